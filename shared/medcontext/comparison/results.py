"""A run of one rung against a run of another, over all draws that have both."""

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
"""Draws of cases, each with its own seed, that it takes to tell anything."""


class Verdict(StrEnum):
    """Of a group, or of one rung against another in it."""

    HELPS = "helps"
    HURTS = "hurts"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, eq=False)
class Result:
    """One rung against a lower one.

    Attributes:
        lower: the rung below, or another one that is to be beaten.
        basis: whether the two took as many steps or as much time.
        table: class by class, see :func:`medcontext.comparison.statistics.label_table`.
        pairs: number of pairs.
        seeds: number of different folds and seeds among them.
        seconds_ratio: training time of the lower rung as a share of the upper one's, mean over the pairs.
        step_cost: what a step of the upper rung takes in steps of the lower one, as measured, mean over the pairs.
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
        """Difference, lower and upper bound of the mean over the classes."""
        value, low, high = self.table.loc[[MEAN], ["difference", "low", "high"]].to_numpy(dtype=float)[0]
        return float(value), float(low), float(high)

    @property
    def enough(self) -> bool:
        """Whether there are seeds enough to tell anything."""
        return self.seeds >= FEWEST_SEEDS

    @property
    def verdict(self) -> Verdict:
        """``helps`` where the interval of the mean lies above 0, ``hurts`` where it lies below."""
        _, low, high = self.mean
        if not self.enough or not (low > 0 or high < 0):
            return Verdict.INCONCLUSIVE
        return Verdict.HELPS if low > 0 else Verdict.HURTS

    @property
    def gain(self) -> str:
        """Such as ``+0.028 (+0.010 to +0.046)``, or with too few seeds ``+0.028 (2 seeds)``."""
        value, low, high = (number(bound, sign=True) for bound in self.mean)
        return f"{value} ({low} to {high})" if self.enough else f"{value} ({counted(self.seeds)})"

    @property
    def opponent(self) -> str:
        """The lower rung and what is equal, within a sentence."""
        return self.lower.phrase if self.lower in BASELINES else f"{self.lower} at {self.basis}"


def compare_rungs(draws: Iterable[Draw], upper: Rung, lower: Rung, basis: Basis) -> Result | None:
    """Compare two rungs over the draws that have both at equal steps, or at equal time.

    Args:
        draws: of a group.
        upper: rung that is to be ahead.
        lower: rung that is to be behind; either baseline stands for the one that fits the basis.
        basis: what must be equal.

    Returns:
        The result, or ``None`` where no draw has both.
    """
    pairs = [(draw.runs[upper], other) for draw in draws if (other := draw.opponent(upper, lower, basis)) is not None]
    if not pairs:
        return None
    if lower in BASELINES:
        lower = BASELINES[basis is Basis.TIME]
    return Result(
        lower=lower,
        basis=basis,
        table=label_table(paired_cases(pairs)),
        pairs=len(pairs),
        seeds=len({run.unit for run, _ in pairs}),
        seconds_ratio=mean(run.time_ratio(other) for run, other in pairs),
        step_cost=mean(step_cost(run, other) for run, other in pairs),
    )


def step_cost(run: TrackedRun, other: TrackedRun) -> float:
    """Measured time of a run's step in steps of another."""
    ratio = run.time_ratio(other)
    return other.steps / (run.steps * ratio) if ratio > 0 else math.nan


def mean(values: Iterable[float]) -> float:
    """Mean of what is finite, NaN where nothing is."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def counted(seeds: int) -> str:
    """Such as ``1 seed`` or ``3 seeds``."""
    return f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
