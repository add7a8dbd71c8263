"""The ladder: what is added to plain training, one thing after the other, and which runs stand for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from medcontext.comparison.runs import TrackedRun
from medcontext.engines import TrainingMode

__all__ = ["BASELINES", "CONTROLS", "Basis", "Draw", "Rung", "listed", "rung_of", "rungs_below", "runs_by_rung"]


class Rung(StrEnum):
    """The rungs, lowest first, as they are named everywhere."""

    BASELINE = "baseline at equal steps"
    BASELINE_EQUAL_TIME = "baseline at equal time"
    PATCH_DROPOUT = "patch dropout"
    MASKING_ONLY = "masking only"
    MEDCONTEXT = "MedContext"
    PSEUDO_LABELS = "pseudo-labels"
    MEDCONTEXT_UNLABELED = "MedContext with unlabelled scans"

    @property
    def key(self) -> str:
        """Name of the rung in files and metrics, the one by which ``experiment`` trains it."""
        return self.name.lower()

    @property
    def phrase(self) -> str:
        """The rung within a sentence."""
        return f"the {self}" if self in BASELINES else self.value


BASELINES = (Rung.BASELINE, Rung.BASELINE_EQUAL_TIME)

CONTROLS: Mapping[Rung, tuple[Rung, ...]] = {
    Rung.PATCH_DROPOUT: BASELINES,
    Rung.MASKING_ONLY: (*BASELINES, Rung.PATCH_DROPOUT),
    Rung.MEDCONTEXT: (*BASELINES, Rung.PATCH_DROPOUT, Rung.MASKING_ONLY),
    Rung.PSEUDO_LABELS: (Rung.BASELINE_EQUAL_TIME, Rung.MEDCONTEXT),
    Rung.MEDCONTEXT_UNLABELED: (Rung.BASELINE_EQUAL_TIME, Rung.MEDCONTEXT, Rung.PSEUDO_LABELS),
}
"""What each rung has to beat."""


class Basis(StrEnum):
    """What two runs have in common, so that they can be compared."""

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
        run: the run to which the others were matched, of MedContext where there is one.
        runs: by rung, ``run`` included; a baseline can stand on both of its rungs.
    """

    run: TrackedRun
    runs: Mapping[Rung, TrackedRun]

    @property
    def compared(self) -> bool:
        """Whether there is more than one run."""
        return len(self.runs) > 1

    def opponent(self, upper: Rung, lower: Rung, basis: Basis) -> TrackedRun | None:
        """The run of a lower rung that took as many steps, or as much time, as the run of an upper one.

        At equal steps or time any baseline will do that has them.
        """
        run = self.runs.get(upper)
        if run is None:
            return None
        places = reversed(BASELINES) if lower in BASELINES else (lower,)
        candidates = [self.runs[place] for place in places if place in self.runs]
        if basis is Basis.STEPS:
            return next((one for one in candidates if one.steps == run.steps), None)
        equal = [one for one in candidates if run.equal_time(one)]
        return min(equal, key=lambda one: abs(math.log(run.time_ratio(one))), default=None)


def rungs_below(rung: Rung) -> list[Rung]:
    """Rungs below another, the nearest first; of the two baselines, the last stands for both."""
    order = list(Rung)
    return [lower for lower in reversed(order[: order.index(rung)]) if lower is not Rung.BASELINE]


def runs_by_rung(draws: Iterable[Draw]) -> dict[Rung, list[TrackedRun]]:
    """The runs of each rung that there is, each once, lowest rung first."""
    draws = list(draws)
    found = {rung: list(dict.fromkeys(d.runs[rung] for d in draws if rung in d.runs)) for rung in Rung}
    return {rung: members for rung, members in found.items() if members}


def rung_of(mode: str) -> Rung:
    """The rung on which a run of a mode stands; a baseline may also stand on that of equal time."""
    return Rung[TrainingMode(mode).name]


def listed(parts: Sequence[str]) -> str:
    """Such as ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
