"""What each rung of the ladder adds, which one carries the gain, and which is not worth its cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medcontext.comparison.results import Result, Verdict, compare_rungs, counted, mean, step_cost
from medcontext.comparison.rungs import BASELINES, Basis, Draw, Rung, listed, rungs_below, runs_by_rung
from medcontext.comparison.runs import TIME_TOLERANCE, TrackedRun
from medcontext.report.page import number

__all__ = ["Ladder", "Step", "climb"]


@dataclass(frozen=True, eq=False)
class Step:
    """One rung of a group's ladder.

    Attributes:
        rung: which.
        runs: how many stand on it.
        mean_dice: mean over the runs.
        length: mean number of training steps.
        cost: measured time of a training step in those of the baseline, mean over the draws; NaN without a baseline.
        results: at equal steps and at equal time, against all rungs below that can be compared, the nearest first.
    """

    rung: Rung
    runs: int
    mean_dice: float
    length: float
    cost: float
    results: Mapping[Basis, Sequence[Result]]

    def over_below(self, basis: Basis) -> Result | None:
        """The result against the nearest rung below of which something can be told, else the nearest."""
        results = self.results[basis]
        return next((result for result in results if result.enough), results[0] if results else None)

    def over_baseline(self, basis: Basis) -> Result | None:
        """The result against the baseline."""
        return next((result for result in self.results[basis] if result.lower in BASELINES), None)

    @property
    def rivals(self) -> Sequence[Result]:
        """The results of which something can be told, one for each rung below: at equal time, or else equal steps."""
        found: dict[Rung, Result] = {}
        for result in (*self.results[Basis.TIME], *self.results[Basis.STEPS]):
            if result.enough:
                found.setdefault(Rung.BASELINE if result.lower in BASELINES else result.lower, result)
        return list(found.values())

    @property
    def line(self) -> str:
        """The rung as a terminal shows it."""
        text = f"{self.rung}: Dice {number(self.mean_dice)}"
        if math.isfinite(self.cost):
            text += f", a step takes {number(self.cost, 2)} times the baseline's"
        found = [over(basis) for over in (self.over_below, self.over_baseline) for basis in Basis]
        return "; ".join([text, *dict.fromkeys(_over(result) for result in found if result is not None)])


@dataclass(frozen=True, eq=False)
class Ladder:
    """The rungs of a group, lowest first, and in one sentence what they say."""

    steps: Sequence[Step]
    sentence: str


def climb(draws: Sequence[Draw]) -> Ladder:
    """Build the ladder of a group.

    Args:
        draws: of the group, from :func:`medcontext.comparison.pairing.pair_runs`.
    """
    steps = [_step(draws, rung, members) for rung, members in runs_by_rung(draws).items()]
    return Ladder(steps, _sentence([step for step in steps if step.rung not in BASELINES]))


def _step(draws: Sequence[Draw], rung: Rung, members: Sequence[TrackedRun]) -> Step:
    lower = () if rung in BASELINES else rungs_below(rung)
    results = {basis: [compare_rungs(draws, rung, other, basis) for other in lower] for basis in Basis}
    return Step(
        rung=rung,
        runs=len(members),
        mean_dice=mean(run.mean_dice for run in members),
        length=mean(run.steps for run in members),
        cost=mean(_plain_steps(draw, rung) for draw in draws if rung in draw.runs),
        results={basis: [result for result in found if result is not None] for basis, found in results.items()},
    )


def _plain_steps(draw: Draw, rung: Rung) -> float:
    plain = next((draw.runs[place] for place in BASELINES if place in draw.runs), None)
    return math.nan if plain is None else step_cost(draw.runs[rung], plain)


def _sentence(steps: Sequence[Step]) -> str:
    """Which rung carries the gain and which is not worth its cost, from the rungs above the baseline."""
    seeds = {step.rung: max((r.seeds for some in step.results.values() for r in some), default=0) for step in steps}
    if not any(seeds.values()):
        return "There are no two rungs to compare at equal steps or at equal time."
    rivals = {step.rung: step.rivals for step in steps if step.rivals}
    if not rivals:
        most = counted(max(seeds.values()))
        return f"Which rung carries the gain cannot be told yet: {most}, at least three are needed."
    clauses = [*_carrying(rivals), *_costs(rivals)]
    unknown = [rung.phrase for rung, count in seeds.items() if count and rung not in rivals]
    if unknown:
        clauses.append(f"there are too few seeds to tell of {listed(unknown)}")
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."


def _carrying(rivals: Mapping[Rung, Sequence[Result]]) -> list[str]:
    """The rung that is furthest ahead of the best one below, and the others that are clearly ahead of all below."""
    best = {rung: min(results, key=lambda result: result.mean[0]) for rung, results in rivals.items()}
    clear = [rung for rung, results in rivals.items() if {result.verdict for result in results} == {Verdict.HELPS}]
    if clear:
        first = max(clear, key=lambda rung: best[rung].mean[0])
        more = [f"{rung.phrase} adds {_over(best[rung])}" for rung in clear if rung is not first]
        return [f"{first.phrase} carries the gain, {_over(best[first])}", *more]
    plain = {rung: result for rung, some in rivals.items() for result in some if result.lower in BASELINES}
    ahead = [rung for rung, result in plain.items() if result.verdict is Verdict.HELPS]
    if not ahead:
        return ["no rung carries a gain, none is clearly ahead of the baseline" if plain else "no rung carries a gain"]
    top = max(ahead, key=lambda rung: plain[rung].mean[0])
    return [
        f"no single rung carries the gain, {top.phrase} has {_over(plain[top])}, but none is clearly ahead of all below"
    ]


def _costs(rivals: Mapping[Rung, Sequence[Result]]) -> list[str]:
    """The rungs that cost more than one below without being clearly ahead of it."""
    clauses = []
    for rung, results in rivals.items():
        dear = [result for result in results if result.step_cost > 1 + TIME_TOLERANCE]
        lost = [result for result in dear if result.verdict is not Verdict.HELPS]
        longer = [result for result in dear if result.basis is Basis.STEPS]
        if lost:
            clauses.append(f"{rung.phrase} is not worth its cost, {_at_a_cost(min(lost, key=lambda r: r.mean[0]))}")
        elif longer:
            clauses.append(f"whether {rung.phrase} is worth its cost cannot be told, {_at_a_cost(longer[0])}")
    known = all(math.isfinite(result.step_cost) for results in rivals.values() for result in results)
    return clauses or (["no rung costs time without a clear gain"] if known else [])


def _over(result: Result) -> str:
    return f"{result.gain} over {result.opponent}"


def _at_a_cost(result: Result) -> str:
    return f"{_over(result)}, where a step takes {number(result.step_cost, 2)} times as long"
