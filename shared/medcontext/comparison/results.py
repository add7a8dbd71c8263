"""Runs of one rung against runs of another, over all draws that have both."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from medcontext.comparison.rungs import BASELINES, Basis, Draw, Rung
from medcontext.comparison.runs import TrackedRun
from medcontext.comparison.statistics import MEAN, label_table, paired_cases
from medcontext.report.page import number

__all__ = ["FEWEST_SEEDS", "Result", "Verdict", "compare_rungs", "counted", "mean", "step_cost"]

FEWEST_SEEDS = 3
"""Number of draws of cases, each with its own seed, from which a verdict is given."""


class Verdict(StrEnum):
    """Verdict on a group, or on one rung against another in it."""

    HELPS = "helps"
    HURTS = "hurts"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, eq=False)
class Result:
    """One rung against a lower one.

    Attributes:
        lower: the rung below, or another one that must be beaten.
        basis: whether the two are compared at equal steps or at equal time.
        table: results class by class, see :func:`medcontext.comparison.statistics.label_table`.
        pairs: number of pairs.
        seeds: number of different folds and seeds among them.
        seconds_ratio: training time of the lower rung as a share of the upper one's, mean over the pairs.
        step_cost: measured time of a step of the upper rung in steps of the lower one, mean over the pairs.
    """

    lower: Rung
    basis: Basis
    table: pd.DataFrame
    pairs: int
    seeds: int
    seconds_ratio: float
    step_cost: float

    @property
    def mean(self) -> tuple[float, float, float]:
        """Difference with lower and upper bound, for the mean over the classes."""
        value, low, high = self.table.loc[[MEAN], ["difference", "low", "high"]].to_numpy(dtype=float)[0]
        return float(value), float(low), float(high)

    @property
    def enough(self) -> bool:
        """Whether there are enough seeds for a verdict."""
        return self.seeds >= FEWEST_SEEDS

    @property
    def verdict(self) -> Verdict:
        """``helps`` if the interval of the mean lies above 0, ``hurts`` if it lies below."""
        _, low, high = self.mean
        if not self.enough or not (low > 0 or high < 0):
            return Verdict.INCONCLUSIVE
        return Verdict.HELPS if low > 0 else Verdict.HURTS

    @property
    def gain(self) -> str:
        """Gain as text, such as ``+0.028 (+0.010 to +0.046)``, or with too few seeds ``+0.028 (2 seeds)``."""
        value, low, high = (number(bound, sign=True) for bound in self.mean)
        return f"{value} ({low} to {high})" if self.enough else f"{value} ({counted(self.seeds)})"

    @property
    def opponent(self) -> str:
        """The lower rung and the basis, for a sentence."""
        return self.lower.phrase if self.lower in BASELINES else f"{self.lower} at {self.basis}"


def compare_rungs(draws: Iterable[Draw], upper: Rung, lower: Rung, basis: Basis) -> Result | None:
    """Compare two rungs over the draws that have both at equal steps, or at equal time.

    Args:
        draws: draws of a group.
        upper: rung that should be ahead.
        lower: rung that should be behind; either baseline stands for the one that matches the basis.
        basis: whether steps or time must be equal.

    Returns:
        The result, or ``None`` if no draw has both.
    """
    pairs = [(draw.runs[upper], other) for draw in draws if (other := draw.opponent(upper, lower, basis)) is not None]
    if not pairs:
        return None
    if lower in BASELINES:
        lower = BASELINES[basis is Basis.TIME]
    return Result(
        lower=lower,
        basis=basis,
        table=label_table(paired_cases([(run, other.table) for run, other in pairs])),
        pairs=len(pairs),
        seeds=len({run.unit for run, _ in pairs}),
        seconds_ratio=mean(run.time_ratio(other) for run, other in pairs),
        step_cost=mean(step_cost(run, other) for run, other in pairs),
    )


def step_cost(run: TrackedRun, other: TrackedRun) -> float:
    """Return the measured time of a run's step in steps of another."""
    ratio = run.time_ratio(other)
    return other.steps / (run.steps * ratio) if ratio > 0 else math.nan


def mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values, NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def counted(seeds: int) -> str:
    """Return ``1 seed`` or, for example, ``3 seeds``."""
    return f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
