"""Averages of per-case metrics, with confidence intervals."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from medcontext.checks import check_integer

__all__ = ["MetricSummary", "case_mean_dice", "summarise"]


@dataclass(frozen=True)
class MetricSummary:
    """Averages over cases.

    Attributes:
        labels: one row per label. ``cases`` counts the cases in which it is annotated; every numeric column ``x`` of
            the metrics gives ``x_mean``, ``x_median``, ``x_std`` (of a sample, n - 1) and ``x_count``, the number of
            values that are not NaN; every boolean column gives its count; ``dice_low`` and ``dice_high`` bound the mean
            Dice.
        mean_dice: the mean over labels of each label's mean Dice over the cases in which it counts. Every label weighs
            the same, however often it occurs. A label that counts nowhere is left out.
        mean_dice_interval: bounds of ``mean_dice``.
        cases: number of cases.
        missed: how often a label was present and not predicted, over all cases and labels.
        spurious: how often a label was predicted and not present.
    """

    labels: pd.DataFrame
    mean_dice: float
    mean_dice_interval: tuple[float, float]
    cases: int
    missed: int
    spurious: int


def summarise(
    metrics: pd.DataFrame, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> MetricSummary:
    """Average per-case metrics.

    The intervals are percentile bootstraps: whole cases are drawn with replacement, all their labels together. They
    show how much the mean depends on which cases were tested, not how much it varies between training runs. With fewer
    than two cases they are NaN.

    Args:
        metrics: one row per case and label, as from :func:`medcontext.metrics.case_metrics` with a ``case`` column.
            Other numeric columns are averaged too, and other boolean ones counted.
        confidence: share of the resampled means inside an interval.
        resamples: number of bootstrap samples.
        seed: seed of the resampling; the same seed gives the same interval.

    Returns:
        The averages, with labels in order of first appearance.

    Raises:
        ValueError: If a required column is missing, there are no rows, a case holds a label twice, or ``confidence``
            or ``resamples`` is out of range.

    Example:
        >>> metrics = pd.DataFrame(
        ...     [("case1", "spleen", 0.8, False, False), ("case2", "spleen", 0.6, False, False)],
        ...     columns=["case", "label", "dice", "missed", "spurious"],
        ... )
        >>> summary = summarise(metrics)
        >>> round(summary.mean_dice, 3), summary.cases
        (0.7, 2)
    """
    _check_metrics(metrics, confidence, resamples)
    columns: dict[Hashable, pd.Series] = {}
    groups = metrics.groupby("label", sort=False)
    annotated = metrics.get("label_volume_ml", metrics["case"]).notna()
    columns["cases"] = annotated.groupby(metrics["label"], sort=False).sum()
    for name in metrics.columns.drop(["case", "label"]):
        if pd.api.types.is_bool_dtype(metrics[name]):
            columns[name] = groups[name].sum().astype(int)
        elif pd.api.types.is_numeric_dtype(metrics[name]):
            for statistic in ("mean", "median", "std", "count"):
                columns[f"{name}_{statistic}"] = groups[name].agg(statistic)
    labels = pd.DataFrame(columns)

    dice = _dice_table(metrics, labels.index)
    low, high, mean_interval = _bootstrap(dice, confidence, resamples, seed)
    labels["dice_low"], labels["dice_high"] = low, high
    return MetricSummary(
        labels=labels,
        mean_dice=float(labels["dice_mean"].mean()),
        mean_dice_interval=mean_interval,
        cases=int(metrics["case"].nunique()),
        missed=int(labels["missed"].sum()),
        spurious=int(labels["spurious"].sum()),
    )


def case_mean_dice(metrics: pd.DataFrame) -> pd.Series:
    """Return the mean Dice of each case over the labels that count in it, best first and NaN last.

    Args:
        metrics: one row per case and label with the columns ``case`` and ``dice``.

    Returns:
        Series indexed by case.

    Example:
        >>> metrics = pd.DataFrame({"case": ["a", "a", "b"], "dice": [0.5, 0.25, 1.0]})
        >>> case_mean_dice(metrics).to_dict()
        {'b': 1.0, 'a': 0.375}
    """
    return metrics.groupby("case", sort=False)["dice"].mean().sort_values(ascending=False, kind="stable")


def _check_metrics(metrics: pd.DataFrame, confidence: float, resamples: int) -> None:
    if metrics.empty:
        raise ValueError("metrics must have at least one row, got none. Was the evaluator given any case?")
    missing = [name for name in ("case", "label", "dice", "missed", "spurious") if name not in metrics.columns]
    if missing:
        raise ValueError(
            f"metrics must have the columns case, label, dice, missed and spurious, but lack {missing}. "
            "Build the rows with medcontext.metrics.case_metrics and add the case's name."
        )
    repeated = metrics.loc[metrics.duplicated(["case", "label"]), ["case", "label"]]
    if len(repeated):
        raise ValueError(
            f"every case must hold every label once, got more for {repeated.iloc[0].tolist()}. "
            "Give every case a name of its own."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}. Use 0.95 for a 95 % interval.")
    check_integer("resamples", resamples, minimum=1, remedy="use 2000")


def _dice_table(metrics: pd.DataFrame, labels: pd.Index) -> npt.NDArray[np.float64]:
    """Return the Dice as (cases, labels), NaN where a label does not count."""
    table = metrics.pivot(index="case", columns="label", values="dice").reindex(columns=labels)
    return table.to_numpy(dtype=np.float64)


def _bootstrap(
    dice: npt.NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], tuple[float, float]]:
    """Return the bounds of every label's mean Dice and of the mean over labels, from (cases, labels)."""
    cases, labels = dice.shape
    if cases < 2:
        unknown = np.full(labels, np.nan)
        return unknown, unknown, (np.nan, np.nan)
    drawn = np.random.default_rng(seed).integers(cases, size=(resamples, cases))
    counts = np.zeros((resamples, cases))  # how often each case was drawn: means become two matrix products
    np.add.at(counts, (np.arange(resamples)[:, None], drawn), 1)
    finite = np.isfinite(dice)
    with np.errstate(invalid="ignore"):  # 0 / 0 where no drawn case holds the label
        means = (counts @ np.where(finite, dice, 0.0)) / (counts @ finite)
    tail = 100 * (1 - confidence) / 2
    bounds = [_percentiles(column, tail) for column in means.T]
    overall = _percentiles(pd.DataFrame(means).mean(axis=1).to_numpy(), tail)
    return np.array([low for low, _ in bounds]), np.array([high for _, high in bounds]), overall


def _percentiles(values: npt.NDArray[np.float64], tail: float) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.nan, np.nan
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)
