"""The gain of each rung of the ladder: which one carries it, and which is not worth its cost."""

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
        rung: the rung.
        runs: number of its runs.
        mean_dice: mean over the runs.
        length: mean number of training steps.
        cost: measured time of a training step in steps of the baseline, mean over the draws; NaN without a baseline.
        results: results at equal steps and at equal time against all rungs below that can be compared, the nearest
            first.
    """

    rung: Rung
    runs: int
    mean_dice: float
    length: float
    cost: float
    results: Mapping[Basis, Sequence[Result]]

    def over_below(self, basis: Basis) -> Result | None:
        """Return the result against the nearest rung below with enough seeds, or else against the nearest."""
        results = self.results[basis]
        return next((result for result in results if result.enough), results[0] if results else None)

    def over_baseline(self, basis: Basis) -> Result | None:
        """Return the result against the baseline."""
        return next((result for result in self.results[basis] if result.lower in BASELINES), None)

    @property
    def rivals(self) -> Sequence[Result]:
        """The results with enough seeds, one for each rung below: at equal time, or else at equal steps."""
        rivals: dict[Rung, Result] = {}
        for result in (*self.results[Basis.TIME], *self.results[Basis.STEPS]):
            if result.enough:
                rivals.setdefault(Rung.BASELINE if result.lower in BASELINES else result.lower, result)
        return list(rivals.values())

    @property
    def line(self) -> str:
        """The rung as shown in a terminal."""
        text = f"{self.rung}: Dice {number(self.mean_dice)}"
        if math.isfinite(self.cost):
            text += f", a step takes {number(self.cost, 2)} times the baseline's"
        results = [over(basis) for over in (self.over_below, self.over_baseline) for basis in Basis]
        return "; ".join([text, *dict.fromkeys(_gain_over(result) for result in results if result is not None)])


@dataclass(frozen=True, eq=False)
class Ladder:
    """The rungs of a group, lowest first, and their conclusion in one sentence."""

    steps: Sequence[Step]
    sentence: str


def climb(draws: Sequence[Draw]) -> Ladder:
    """Build the ladder of a group.

    Args:
        draws: draws of the group, from :func:`medcontext.comparison.pairing.pair_runs`.
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
        cost=mean(_cost_in_baseline_steps(draw, rung) for draw in draws if rung in draw.runs),
        results={basis: [result for result in of_basis if result is not None] for basis, of_basis in results.items()},
    )


def _cost_in_baseline_steps(draw: Draw, rung: Rung) -> float:
    baseline = next((draw.runs[lower] for lower in BASELINES if lower in draw.runs), None)
    return math.nan if baseline is None else step_cost(draw.runs[rung], baseline)


def _sentence(steps: Sequence[Step]) -> str:
    """Say which rung carries the gain and which is not worth its cost, from the rungs above the baseline."""
    seeds = {step.rung: max((r.seeds for some in step.results.values() for r in some), default=0) for step in steps}
    if not any(seeds.values()):
        return "There are no two rungs to compare at equal steps or at equal time."
    rivals = {step.rung: step.rivals for step in steps if step.rivals}
    if not rivals:
        most = counted(max(seeds.values()))
        return f"Which rung carries the gain cannot be told yet: {most}, at least three are needed."
    clauses = [*_gain_clauses(rivals), *_cost_clauses(rivals)]
    unknown = [rung.phrase for rung, count in seeds.items() if count and rung not in rivals]
    if unknown:
        clauses.append(f"there are too few seeds to tell of {listed(unknown)}")
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."


def _gain_clauses(rivals: Mapping[Rung, Sequence[Result]]) -> list[str]:
    """Name the rung that is furthest ahead of the best one below, and others that are clearly ahead of all below."""
    best = {rung: min(results, key=lambda result: result.mean[0]) for rung, results in rivals.items()}
    clear = [rung for rung, results in rivals.items() if {result.verdict for result in results} == {Verdict.HELPS}]
    if clear:
        first = max(clear, key=lambda rung: best[rung].mean[0])
        more = [f"{rung.phrase} adds {_gain_over(best[rung])}" for rung in clear if rung is not first]
        return [f"{first.phrase} carries the gain, {_gain_over(best[first])}", *more]
    plain = {rung: result for rung, some in rivals.items() for result in some if result.lower in BASELINES}
    ahead = [rung for rung, result in plain.items() if result.verdict is Verdict.HELPS]
    if not ahead:
        return ["no rung carries a gain, none is clearly ahead of the baseline" if plain else "no rung carries a gain"]
    top = max(ahead, key=lambda rung: plain[rung].mean[0])
    return [
        f"no single rung carries the gain, {top.phrase} has {_gain_over(plain[top])}, but none is clearly ahead of all "
        "below"
    ]


def _cost_clauses(rivals: Mapping[Rung, Sequence[Result]]) -> list[str]:
    """Name the rungs that cost more than one below without being clearly ahead of it."""
    clauses = []
    for rung, results in rivals.items():
        costlier = [result for result in results if result.step_cost > 1 + TIME_TOLERANCE]
        without_gain = [result for result in costlier if result.verdict is not Verdict.HELPS]
        at_equal_steps = [result for result in costlier if result.basis is Basis.STEPS]
        if without_gain:
            worst = min(without_gain, key=lambda result: result.mean[0])
            clauses.append(f"{rung.phrase} is not worth its cost, {_gain_at_a_cost(worst)}")
        elif at_equal_steps:
            clauses.append(
                f"whether {rung.phrase} is worth its cost cannot be told, {_gain_at_a_cost(at_equal_steps[0])}"
            )
    known = all(math.isfinite(result.step_cost) for results in rivals.values() for result in results)
    return clauses or (["no rung costs time without a clear gain"] if known else [])


def _gain_over(result: Result) -> str:
    return f"{result.gain} over {result.opponent}"


def _gain_at_a_cost(result: Result) -> str:
    return f"{_gain_over(result)}, where a step takes {number(result.step_cost, 2)} times as long"
