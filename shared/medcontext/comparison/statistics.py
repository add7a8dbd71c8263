"""Paired differences between MedContext and a control, with confidence intervals and p values."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from medcontext.comparison.runs import TrackedRun

__all__ = ["MEAN", "holm", "interval", "label_table", "paired_cases", "wilcoxon_p"]

MEAN = "mean of the classes"
"""Name of the row that averages the classes."""

FEWEST_CASES = 6  # with five, not even five differences of one sign reach 5 %

Array = npt.NDArray[np.float64]


def paired_cases(pairs: Sequence[tuple[TrackedRun, pd.DataFrame]]) -> pd.DataFrame:
    """Pair the test cases of MedContext runs with those of their controls.

    Where a case does not have a class and neither of the two predicts it, there is nothing to compare. Where one of the
    two predicts it nevertheless, it scores 0 and the other, which was right, 1: leaving that out would hide a real
    difference, as in a single run's mean Dice, in which a correct absence does not count. Where other pairs differ on
    such a class and case, pairs in which both are right count as no difference, so that a class is averaged over the
    same cases in all pairs.

    Args:
        pairs: MedContext run and the table of its control, evaluated on the same cases and labels.

    Returns:
        One row per pair, case and label: ``pair``, ``unit`` (fold and seed), ``case``, ``label``, ``difference`` of the
        Dice (MedContext minus control; NaN where there is nothing to compare), ``hd95_difference`` in mm where both
        have one, and with the endings ``_medcontext`` and ``_control`` the ``dice``, ``missed`` and ``spurious``.
    """
    tables = []
    for number, (run, control) in enumerate(pairs):
        table = run.table.merge(control, on=["case", "label"], suffixes=("_medcontext", "_control"))
        # runs of several datasets can be pooled, whose cases may have the same names
        table["case"] = f"{run.tags['dataset']}/" + table["case"]
        tables.append(table.assign(pair=number, unit="/".join(run.unit)))
    cases = pd.concat(tables, ignore_index=True)
    ours, theirs = cases["dice_medcontext"], cases["dice_control"]
    counts = ours.notna() | theirs.notna()
    difference = (ours.fillna(1.0) - theirs.fillna(1.0)).where(counts)
    elsewhere = counts.groupby([cases["case"], cases["label"]]).transform("any")
    cases["difference"] = difference.mask(difference.isna() & elsewhere, 0.0)
    missing = pd.Series(math.nan, index=cases.index)
    cases["hd95_difference"] = cases.get("hd95_mm_medcontext", missing) - cases.get("hd95_mm_control", missing)
    return cases


def label_table(cases: pd.DataFrame) -> pd.DataFrame:
    """Compare class by class.

    Args:
        cases: from :func:`paired_cases`.

    Returns:
        One row per class, in order of first appearance, and last :data:`MEAN`, in which every class weighs the same:
        ``difference``, ``low`` and ``high`` (:func:`interval`), ``p`` (:func:`wilcoxon_p` over the cases, averaged over
        the pairs), ``p_holm`` (classes only), ``cases`` that count, ``dice_medcontext`` and ``dice_control``,
        ``hd95_difference`` in mm with the number ``hd95_cases`` of values behind it, and the counts ``missed`` and
        ``spurious`` of both over all pairs.
    """
    labels = list(dict.fromkeys(cases["label"]))
    difference, low, high = interval(*_sums_and_numbers(cases, labels))
    by_case = cases.pivot_table(index="case", columns="label", values="difference", aggfunc="mean")
    by_case = by_case.reindex(columns=labels)
    by_case[MEAN] = by_case.mean(axis=1)
    table = pd.DataFrame({"difference": difference, "low": low, "high": high}, index=[*labels, MEAN])
    table["p"] = [wilcoxon_p(by_case[name].to_numpy()) for name in table.index]
    table["p_holm"] = [*holm(table["p"].to_numpy()[:-1]), math.nan]
    table["cases"] = by_case.notna().sum()
    groups = cases.groupby("label", sort=False)
    for name in ("dice_medcontext", "dice_control", "hd95_difference"):
        table[name] = groups[name].mean()
        table.loc[MEAN, name] = table[name].mean()
    table["hd95_cases"] = groups["hd95_difference"].count()
    for name in ("missed_medcontext", "missed_control", "spurious_medcontext", "spurious_control"):
        table[name] = cases[name].astype(bool).groupby(cases["label"]).sum()
    counts = ["hd95_cases", *(c for c in table.columns if c.startswith(("missed", "spurious")))]
    table.loc[MEAN, counts] = table[counts].sum()
    return table.astype(dict.fromkeys(counts, int))


def _sums_and_numbers(cases: pd.DataFrame, labels: Sequence[str]) -> tuple[Array, Array]:
    """Return sums and numbers of the differences, (units, cases, labels)."""
    counting = cases.dropna(subset=["difference"])
    axes = [
        pd.Categorical(counting["unit"]),
        pd.Categorical(counting["case"]),
        pd.Categorical(counting["label"], pd.Index(labels)),
    ]
    sums, numbers = (np.zeros([len(axis.categories) for axis in axes]) for _ in range(2))
    index = tuple(axis.codes for axis in axes)
    np.add.at(sums, index, counting["difference"].to_numpy())
    np.add.at(numbers, index, 1)
    return sums, numbers


def interval(sums: Array, numbers: Array, confidence: float = 0.95) -> tuple[Array, Array, Array]:
    r"""Return mean differences with intervals that account for other training runs and for other cases.

    Training runs (units: fold and seed) and cases are crossed: every unit is tested on the same cases. The variance of
    the mean is that between units plus that between cases, each by leaving one out at a time (jackknife), and Student's
    t has the degrees of freedom of the sum by Welch and Satterthwaite. So an interval from three seeds is as wide as
    three seeds deserve, while a percentile bootstrap cannot reach beyond the values that it has seen.

    .. math:: v = v_u + v_c, \quad \nu = v^2 / (v_u^2 / (n_u - 1) + v_c^2 / (n_c - 1)), \quad
        \bar d \pm t_\nu \sqrt v

    Args:
        sums: sums of the differences by unit, case and label, (U, C, L).
        numbers: number of differences in each sum, of the same shape.
        confidence: confidence level of the interval.

    Returns:
        Mean, lower and upper bound, each (L + 1,), for each label and, last, for the mean over the labels. Bounds are
        NaN with fewer than two units or cases.
    """
    value = _means(sums.sum(axis=(0, 1)), numbers.sum(axis=(0, 1)))
    between = [_jackknife(sums.sum(axis=other), numbers.sum(axis=other)) for other in (1, 0)]
    variance = between[0][0] + between[1][0]
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = variance**2 / sum(part**2 / (count - 1) for part, count in between)
        half = stats.t.ppf(0.5 + confidence / 2, freedom) * np.sqrt(variance)
    half = np.where(variance == 0, 0.0, half)
    return value, value - half, value + half


def _means(sums: Array, numbers: Array) -> Array:
    """Return the mean of each label and of the labels' means, (…, L) to (…, L + 1)."""
    with np.errstate(invalid="ignore"):
        each = sums / numbers
    finite = np.isfinite(each)
    with np.errstate(invalid="ignore"):
        overall = np.where(finite, each, 0.0).sum(axis=-1, keepdims=True) / finite.sum(axis=-1, keepdims=True)
    return np.concatenate([each, overall], axis=-1)


def _jackknife(sums: Array, numbers: Array) -> tuple[Array, Array]:
    """Return the variance of each mean between units or cases, and how many count, from (n, L) to (L + 1,)."""
    left_out = _means(sums.sum(axis=0) - sums, numbers.sum(axis=0) - numbers)
    counts = np.column_stack([numbers > 0, (numbers > 0).any(axis=1)])
    count = counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.where(counts, left_out, 0.0).sum(axis=0) / count
        squares = (np.where(counts, left_out - centre, 0.0) ** 2).sum(axis=0)
        variance = np.where(count > 1, (count - 1) / count * squares, np.nan)
    return variance, count.astype(float)


def wilcoxon_p(differences: Array) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test, NaN with fewer than six values, 1 if all are zero.

    Zeros are left out, as by Wilcoxon; the test is about these training runs on other cases, not about other runs.

    Args:
        differences: one value per case; NaN are ignored.
    """
    finite = np.round(differences[np.isfinite(differences)], 9)  # restores ties that rounding of the averages broke
    if finite.size < FEWEST_CASES:
        return math.nan
    nonzero = finite[finite != 0]
    return _signed_rank_p(tuple(nonzero)) if nonzero.size else 1.0


@functools.lru_cache(maxsize=1024)
def _signed_rank_p(values: tuple[float, ...]) -> float:
    """Return Wilcoxon's p; verdict, ladder and overall result ask for that of the same two rungs."""
    return float(stats.wilcoxon(values).pvalue)


def holm(p: Array) -> Array:
    """Adjust p values for their number by Holm's method; NaN are kept and do not count.

    Args:
        p: one value per class.
    """
    adjusted = np.full(p.shape, np.nan)
    order = [i for i in np.argsort(p) if np.isfinite(p[i])]
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, float(p[i]) * (len(order) - rank)))
        adjusted[i] = largest
    return adjusted
