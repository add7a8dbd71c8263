"""The numbers of an evaluation as shown, label by label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from medcontext.metrics import summarise
from medcontext.report.page import number

__all__ = ["LABEL_COLUMNS", "PAPER_COLUMNS", "Column", "LabelTable", "label_table"]


class Column(NamedTuple):
    """A column of the metrics, its heading, how many digits it is shown with, and whether the median is shown too.

    ``over_labels`` says whether the mean over labels is meaningful.
    """

    name: str
    heading: str
    digits: int
    median: bool = False
    over_labels: bool = True


LABEL_COLUMNS = (
    Column("dice", "Dice", 3, median=True),
    Column("surface_dice", "surface Dice", 3),
    Column("hd95_mm", "HD95 (mm)", 1),
    Column("assd_mm", "ASSD (mm)", 2),
    Column("volume_error_ml", "volume error (ml)", 1, over_labels=False),
)
PAPER_COLUMNS = (Column("paper_dice", "Dice", 3, median=True), Column("paper_hd95_voxels", "HD95 (voxels)", 1))


@dataclass(frozen=True)
class LabelTable:
    """Some columns of the metrics as shown on a page.

    Attributes:
        headings: headings of the columns.
        rows: by label, for every heading the value and its interval, both as text, the latter ``""`` if there is none.
        overall: means over labels, in the same form.
    """

    headings: list[str]
    rows: dict[str, list[tuple[str, str]]]
    overall: list[tuple[str, str]]


def label_table(metrics: pd.DataFrame, columns: Sequence[Column]) -> LabelTable | None:
    """Average those columns that the metrics have.

    Means come with 95 % intervals of :func:`medcontext.metrics.summarise`. ``volume_error_ml`` is the predicted volume
    minus the true one, of cases in which the label counts.

    Args:
        metrics: one row per case and label.
        columns: columns to show, in order.

    Returns:
        The table, or ``None`` if the metrics have none of the columns.
    """
    metrics = _with_volume_error(metrics)
    table = LabelTable([], {str(label): [] for label in dict.fromkeys(metrics["label"])}, [])
    for column in columns:
        if column.name in metrics.columns:
            _add_column(table, metrics, column)
    return table if table.headings else None


def _with_volume_error(metrics: pd.DataFrame) -> pd.DataFrame:
    if not {"label_volume_ml", "prediction_volume_ml"} <= set(metrics.columns):
        return metrics
    error = metrics["prediction_volume_ml"] - metrics["label_volume_ml"]
    return metrics.assign(volume_error_ml=error.where(metrics["dice"].notna()))


def _add_column(table: LabelTable, metrics: pd.DataFrame, column: Column) -> None:
    """Append the cells of one column, which `summarise` averages like the Dice, whatever it measures."""
    summary = summarise(metrics[["case", "label", "missed", "spurious"]].assign(dice=metrics[column.name]))
    digits = column.digits
    table.headings.append(f"mean {column.heading}")
    for label, row in summary.labels.iterrows():
        interval = _interval(row["dice_low"], row["dice_high"], digits)
        table.rows[str(label)].append((number(row["dice_mean"], digits), interval))
    overall = (number(summary.mean_dice, digits), _interval(*summary.mean_dice_interval, digits))
    table.overall.append(overall if column.over_labels else ("", ""))
    if column.median:
        table.headings.append(f"median {column.heading}")
        for label, median in summary.labels["dice_median"].items():
            table.rows[str(label)].append((number(median, digits), ""))
        table.overall.append(("", ""))


def _interval(low: float, high: float, digits: int) -> str:
    return f"{number(low, digits)} to {number(high, digits)}" if math.isfinite(low) else ""
