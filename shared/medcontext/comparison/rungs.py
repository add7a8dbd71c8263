"""The ladder: additions to plain training, one after the other, and the runs of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from medcontext.comparison.runs import TrackedRun
from medcontext.engines import TrainingMode

__all__ = ["BASELINES", "CONTROLS", "Basis", "Draw", "Rung", "listed", "rung_of", "rungs_below", "runs_by_rung"]


class Rung(StrEnum):
    """The rungs, lowest first, by their names in reports."""

    BASELINE = "baseline at equal steps"
    BASELINE_EQUAL_TIME = "baseline at equal time"
    PATCH_DROPOUT = "patch dropout"
    MASKING_ONLY = "masking only"
    MEDCONTEXT = "MedContext"
    PSEUDO_LABELS = "pseudo-labels"
    MEDCONTEXT_UNLABELED = "MedContext with unlabelled scans"

    @property
    def key(self) -> str:
        """Name of the rung in files and metrics, and as a mode of ``experiment``."""
        return self.name.lower()

    @property
    def phrase(self) -> str:
        """Name of the rung in a sentence."""
        return f"the {self}" if self in BASELINES else self.value


BASELINES = (Rung.BASELINE, Rung.BASELINE_EQUAL_TIME)

CONTROLS: Mapping[Rung, tuple[Rung, ...]] = {
    Rung.PATCH_DROPOUT: BASELINES,
    Rung.MASKING_ONLY: (*BASELINES, Rung.PATCH_DROPOUT),
    Rung.MEDCONTEXT: (*BASELINES, Rung.PATCH_DROPOUT, Rung.MASKING_ONLY),
    Rung.PSEUDO_LABELS: (Rung.BASELINE_EQUAL_TIME, Rung.MEDCONTEXT),
    Rung.MEDCONTEXT_UNLABELED: (Rung.BASELINE_EQUAL_TIME, Rung.MEDCONTEXT, Rung.PSEUDO_LABELS),
}
"""Rungs that each rung has to beat."""


class Basis(StrEnum):
    """What two compared runs have in common."""

    STEPS = "equal steps"
    TIME = "equal time"

    @property
    def key(self) -> str:
        """Name in files and metrics."""
        return self.name.lower()


@dataclass(frozen=True, eq=False)
class Draw:
    """The runs of one draw of labelled cases: same cases, fold, seed and settings, each on its own rung.

    Attributes:
        run: the reference run to which the others were matched, of MedContext if there is one.
        runs: the runs by rung, ``run`` included; a baseline can be on both of its rungs.
    """

    run: TrackedRun
    runs: Mapping[Rung, TrackedRun]

    @property
    def compared(self) -> bool:
        """Whether there is more than one run."""
        return len(self.runs) > 1

    def opponent(self, upper: Rung, lower: Rung, basis: Basis) -> TrackedRun | None:
        """Return the run of a lower rung with as many steps, or as much time, as the run of an upper one.

        Either baseline is returned if its steps or time are equal.
        """
        run = self.runs.get(upper)
        if run is None:
            return None
        rungs = reversed(BASELINES) if lower in BASELINES else (lower,)
        candidates = [self.runs[rung] for rung in rungs if rung in self.runs]
        if basis is Basis.STEPS:
            return next((one for one in candidates if one.steps == run.steps), None)
        equal = [one for one in candidates if run.equal_time(one)]
        return min(equal, key=lambda one: abs(math.log(run.time_ratio(one))), default=None)


def rungs_below(rung: Rung) -> list[Rung]:
    """Return the rungs below another, the nearest first; of the two baselines, the last stands for both."""
    order = list(Rung)
    return [lower for lower in reversed(order[: order.index(rung)]) if lower is not Rung.BASELINE]


def runs_by_rung(draws: Iterable[Draw]) -> dict[Rung, list[TrackedRun]]:
    """Return the runs of each rung that has any, each once, lowest rung first."""
    draws = list(draws)
    runs = {rung: list(dict.fromkeys(draw.runs[rung] for draw in draws if rung in draw.runs)) for rung in Rung}
    return {rung: members for rung, members in runs.items() if members}


def rung_of(mode: str) -> Rung:
    """Return the rung of a run's mode; a baseline may also be on that of equal time."""
    return Rung[TrainingMode(mode).name]


def listed(parts: Sequence[str]) -> str:
    """Return the parts as text, such as ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
