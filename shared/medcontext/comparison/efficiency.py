"""Label efficiency: what MedContext and unlabelled scans are worth in labelled cases, and what more labels bring."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from medcontext.comparison.learning_curves import LearningCurve, fit_curves
from medcontext.comparison.rungs import BASELINES, Draw, Rung, listed, runs_by_rung
from medcontext.comparison.statistics import Array
from medcontext.comparison.verdicts import SUBJECTS
from medcontext.report.page import number

__all__ = ["FEWEST_DRAWS", "FEWEST_NUMBERS", "Efficiency", "Worth", "label_efficiency"]

FEWEST_NUMBERS = 3
"""Numbers of labelled cases from which a curve is fitted."""
FEWEST_DRAWS = 3
"""Draws of each of them."""
REACH = 2
"""Factor by which a curve is read beyond the numbers that were trained."""

_RESAMPLES = 1000
_SEED = 0

Bounds = tuple[float, float, float]
"""Value with the bounds of its 95 % interval."""


@dataclass(frozen=True)
class Worth:
    """What one number of labelled cases is worth on a rung.

    Attributes:
        rung: the rung.
        control: the baseline that it is compared with.
        cases: the number of labelled cases.
        equal: number of labelled cases that the baseline needs for the same Dice; above ``most`` or below ``fewest``
            it is only known to lie beyond, and NaN if the baseline does not learn from more cases.
        doubling: gain in Dice from twice as many labelled cases on the same rung.
        trained: smallest and largest number of cases of the baseline, beyond which ``equal`` is extrapolated.
        last: largest number of cases of the rung, beyond which ``doubling`` is extrapolated.
    """

    rung: Rung
    control: Rung
    cases: int
    equal: Bounds
    doubling: Bounds
    trained: tuple[float, float]
    last: float

    @property
    def fewest(self) -> float:
        """Smallest number of cases that is read from the baseline's curve."""
        return self.trained[0] / REACH

    @property
    def most(self) -> float:
        """Largest number of cases that is read from the baseline's curve."""
        return self.trained[1] * REACH

    @property
    def known(self) -> bool:
        """Whether anything can be said about ``equal``."""
        value, low, high = self.equal
        return not math.isnan(value) and (low >= self.fewest or high <= self.most)

    @property
    def extrapolated(self) -> bool:
        """Whether ``equal`` lies beyond the numbers of cases that the baseline was trained on."""
        return not self.trained[0] - 0.5 < self.equal[0] < self.trained[1] + 0.5

    @property
    def doubling_extrapolated(self) -> bool:
        """Whether twice as many cases are more than the rung was trained on."""
        return 2 * self.cases > self.last

    @property
    def equal_within_reach(self) -> Bounds:
        """``equal``, NaN where it is not known or beyond what the curve is read for."""
        value, low, high = (v if self.known and self.fewest <= v <= self.most else math.nan for v in self.equal)
        return value, low, high

    @property
    def equal_text(self) -> str:
        """``equal`` as text, a dash if nothing is known."""
        return self._count(self.equal[0]) if self.known else "–"

    @property
    def interval_text(self) -> str:
        """Interval of ``equal`` as text, such as ``8 to 15``."""
        return " to ".join(dict.fromkeys(map(self._count, self.equal[1:])))

    @property
    def doubling_text(self) -> str:
        """``doubling`` as text, such as ``+0.021 (+0.012 to +0.034)``."""
        value, low, high = (number(bound, sign=True) for bound in self.doubling)
        return f"{value} ({low} to {high})"

    @property
    def equal_clause(self) -> str:
        """What the rung is worth, for a sentence."""
        if not self.known:
            return f"how many labelled cases {self.control.phrase} needs to do what {self.cases} do cannot be told"
        interval = f"95 % interval {self.interval_text}{', extrapolated' * self.extrapolated}"
        return f"{self.cases} labelled cases do what {self.equal_text} do with {self.control.phrase} ({interval})"

    @property
    def doubling_clause(self) -> str:
        """What twice as many labelled cases bring, for a sentence."""
        extrapolated = ", extrapolated" * self.doubling_extrapolated
        return f"{2 * self.cases} instead of {self.cases} would bring {self.doubling_text} Dice{extrapolated}"

    def _count(self, cases: float) -> str:
        """Return a number of cases as text, not beyond what the curve is read for."""
        if cases > self.most:
            return f"more than {self.most:g}"
        if cases < self.fewest:
            return f"fewer than {self.fewest:g}"
        return f"{cases:.0f}" if cases >= 10 else f"{cases:.1f}".removesuffix(".0")


@dataclass(frozen=True, eq=False)
class Efficiency:
    """Label efficiency of one setting.

    Attributes:
        curves: learning curves by rung, of those with enough numbers of cases and draws.
        worths: by rung of :data:`~medcontext.comparison.verdicts.SUBJECTS` and number of cases, fewest first.
        sentences: what the worths say, or what is missing for them.
    """

    curves: Mapping[Rung, LearningCurve] = field(default_factory=dict)
    worths: Sequence[Worth] = ()
    sentences: Sequence[str] = ()


def label_efficiency(draws: Sequence[Draw]) -> Efficiency:
    r"""Compare the learning curves of MedContext, with and without unlabelled scans, with that of the baseline.

    The baseline is the one at equal time, or the one at equal steps if only that has a curve.
    Intervals are from a wild bootstrap over draws: the deviations :math:`x_i - \bar x` of the draws from the mean of
    their number of cases get random weights :math:`g_i`,

    .. math:: \bar x^* = \bar x + \frac{\sum_i g_i (x_i - \bar x)}{\sqrt{k (k - 1)}} \cdot
        \sqrt{\frac{k - 1}{\chi^2_{k-1}}}, \qquad g_i \sim N(0, 1)

    so that, at each number, :math:`\bar x^*` has the distribution that Student's t gives from :math:`k` draws: drawing
    three of three with replacement cannot reach beyond them. A fold and seed has one weight on all rungs and at all
    numbers, which keeps pairs together. Test cases are not resampled.

    Args:
        draws: draws of one setting with different numbers of labelled cases, those for validation included.
    """
    tables = {rung: _table(draws, rung) for rung in runs_by_rung(draws)}
    complete = {rung: _complete(table) for rung, table in tables.items()}
    curves = {
        rung: _fit(table, table.mean().to_numpy()[None])[0]
        for rung, table in complete.items()
        if len(table.columns) >= FEWEST_NUMBERS
    }
    control = max(reversed(BASELINES), key=lambda rung: (rung in curves, rung in tables))
    worths: list[Worth] = []
    sentences: list[str] = []
    for rung in (rung for rung in SUBJECTS if rung in tables):
        if rung in curves and control in curves:
            found = list(_worths(rung, control, complete, curves))
            worths += found
            name = f"{rung[0].upper()}{rung[1:]}"
            sentences.append(f"{name}: {found[0].equal_clause}; {found[-1].doubling_clause}.")
        else:
            sentences.append(_missing_sentence(rung, control, tables))
    return Efficiency(curves, worths, sentences)


def _table(draws: Sequence[Draw], rung: Rung) -> pd.DataFrame:
    """Return the mean Dice of a rung's runs, by fold and seed (rows) and number of labelled cases (columns)."""
    runs = runs_by_rung(draws).get(rung, [])
    rows = [("/".join(run.unit), run.num_labelled, run.mean_dice) for run in runs if run.num_labelled is not None]
    return pd.DataFrame(rows, columns=["unit", "cases", "dice"]).pivot_table("dice", "unit", "cases")


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[:, table.notna().sum() >= FEWEST_DRAWS]


def _fit(table: pd.DataFrame, means: Array) -> list[LearningCurve]:
    """Fit curves to means of a table's columns, (curves, columns), each with the weight of its draws."""
    return fit_curves(table.columns.to_numpy(float), means, table.notna().sum().to_numpy(float))


def _worths(
    rung: Rung, control: Rung, tables: Mapping[Rung, pd.DataFrame], curves: Mapping[Rung, LearningCurve]
) -> Iterator[Worth]:
    """Yield what each number of cases of a rung is worth."""
    own, base = curves[rung], curves[control]
    resampled = _resampled(tables[rung], tables[control])
    for cases in map(int, tables[rung].columns):
        yield Worth(
            rung=rung,
            control=control,
            cases=cases,
            equal=(base.cases(own.dice(cases)), *_interval([other.cases(one.dice(cases)) for one, other in resampled])),
            doubling=(_doubling(own, cases), *_interval([_doubling(one, cases) for one, _ in resampled])),
            trained=(base.first, base.last),
            last=own.last,
        )


def _doubling(curve: LearningCurve, cases: float) -> float:
    return curve.dice(2 * cases) - curve.dice(cases)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of resampled values, which may be infinite; NaN are left out."""
    known = np.array([value for value in values if not math.isnan(value)] or [math.nan])
    return float(np.quantile(known, 0.025, method="lower")), float(np.quantile(known, 0.975, method="higher"))


def _resampled(*tables: pd.DataFrame) -> list[tuple[LearningCurve, ...]]:
    """Return the curves of each resample, one for each table, see :func:`label_efficiency`."""
    units = sorted(set().union(*(table.index for table in tables)))
    random = np.random.default_rng(_SEED)
    weights = pd.DataFrame(random.standard_normal((_RESAMPLES, len(units))), columns=units)
    quantiles = random.uniform(size=(_RESAMPLES, 1))
    return list(zip(*(_fit(table, _resampled_means(table, weights, quantiles)) for table in tables), strict=True))


def _resampled_means(table: pd.DataFrame, weights: pd.DataFrame, quantiles: Array) -> Array:
    """Return the means of a table's columns in each resample, (resamples, numbers of cases)."""
    count, deviations = table.notna().sum().to_numpy(), (table - table.mean()).fillna(0.0).to_numpy()
    widening = np.sqrt(stats.chi2.ppf(quantiles, count - 1) / (count - 1))
    shift = weights[table.index].to_numpy() @ deviations / np.sqrt(count * (count - 1)) / widening
    return np.clip(table.mean().to_numpy() + shift, 0, 1)


def _missing_sentence(rung: Rung, control: Rung, tables: Mapping[Rung, pd.DataFrame]) -> str:
    """Say which rung lacks how many draws of which numbers of cases."""
    rungs_of: dict[str, list[str]] = {}
    for one in (rung, control):
        needed = _needed(tables.get(one, pd.DataFrame()))
        if needed:
            rungs_of.setdefault(listed(needed), []).append(one.phrase)
    clauses = [f"{listed(names)} {_needs(names)} {needed}" for needed, names in rungs_of.items()]
    return (
        f"What {rung} is worth in labelled cases cannot be told yet: {'; '.join(clauses)}. A curve is fitted from at "
        "least three numbers of labelled cases with three draws each."
    )


def _needs(names: Sequence[str]) -> str:
    return "needs" if len(names) == 1 else "need"


def _needed(table: pd.DataFrame) -> list[str]:
    """Return the draws that are missing for a curve: those of begun numbers of cases first, the least work first."""
    counts = table.notna().sum()
    begun = counts[counts < FEWEST_DRAWS].sort_values(ascending=False, kind="stable")
    numbers = FEWEST_NUMBERS - int((counts >= FEWEST_DRAWS).sum())
    needed = [_more_draws(FEWEST_DRAWS - int(count), cases) for cases, count in begun[:numbers].items()]
    further = numbers - len(needed)
    if further > 0:
        others = "another number" if further == 1 else f"each of {further} other numbers"
        needed.append(f"{FEWEST_DRAWS} draws with {others} of labelled cases")
    return needed


def _more_draws(count: int, cases: object) -> str:
    return f"{count} more {'draw' if count == 1 else 'draws'} with {cases} labelled cases"
