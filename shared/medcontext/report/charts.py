"""Charts of an evaluation: box plots of the cases' metrics and training curves.

They are narrow with large letters, to be readable on a phone too, and drawn without pyplot, like the figures of slices.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from medcontext.checks import check_choice
from medcontext.report.figures import label_text
from medcontext.report.palette import label_colours

__all__ = ["curves_figure", "metrics_boxplot", "read_history"]

logger = logging.getLogger(__name__)

_WIDTH, _DPI = 4.8, 160
_AXIS_LABELS = {"dice": "Dice", "surface_dice": "surface Dice", "hd95_mm": "HD95 (mm)", "assd_mm": "ASSD (mm)"}
_MOST_POINTS = 200


def metrics_boxplot(metrics: pd.DataFrame, column: str = "dice") -> Figure:
    """Show every case's value, label by label, as boxes with points.

    Crosses are missed labels, open squares are spurious ones: at 0 for Dice, and beyond the scale for distances, which
    they do not have. Distances are drawn on a logarithmic scale (linear below 1 mm).

    Args:
        metrics: one row per case and label with the columns ``label``, ``missed``, ``spurious`` and ``column``.
        column: ``dice``, ``surface_dice``, ``hd95_mm`` or ``assd_mm``.

    Raises:
        ValueError: If ``metrics`` is empty or ``column`` is unknown.
    """
    check_choice("column", column, _AXIS_LABELS)
    names = list(dict.fromkeys(metrics["label"]))
    if not names:
        raise ValueError("metrics must have at least one row, got none.")
    figure = Figure(figsize=(_WIDTH, 1.2 + 0.32 * len(names)), layout="constrained", dpi=_DPI)
    axis = figure.subplots()
    failed = metrics["missed"].astype(bool) | metrics["spurious"].astype(bool)
    beyond = _set_scale(axis, metrics[column], bool((failed & metrics[column].isna()).any()))
    values = metrics[column].where(metrics[column].notna() | ~failed, beyond)
    colours = label_colours(names)
    for place, name in enumerate(names):
        rows = metrics.assign(value=values)[(metrics["label"] == name) & values.notna()]
        if rows.empty:
            axis.text(
                0.5, place, "in no case", color="0.4", ha="center", va="center", transform=axis.get_yaxis_transform()
            )
            continue
        _box(axis, rows.loc[rows[column].notna(), column], place, colours[name])
        _points(axis, rows, place)
    axis.set_yticks(range(len(names)), [label_text(name) for name in names])
    axis.set(ylim=(len(names) - 0.4, -0.6), xlabel=_AXIS_LABELS[column])
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    _mark_legend(figure, metrics)
    return figure


def _set_scale(axis: Axes, values: pd.Series, failures: bool) -> float:
    """Set the scale of the values and return the position of labels without a value, beyond it."""
    if not str(values.name).endswith("_mm"):
        axis.set_xlim(-0.03, 1.03)
        return 0.0
    largest = max(float(values.max()) if values.notna().any() else 0.0, 3.0)
    end, beyond = 1.15 * largest, 1.6 * largest
    axis.set_xscale("symlog", linthresh=1.0, linscale=0.4)
    steps = [0, *(factor * 10**power for power in range(6) for factor in (1, 3))]
    ticks = [(float(step), f"{step:g}") for step in steps if step <= 0.8 * largest or step <= 3]
    if failures:
        axis.axvspan(end, 1.9 * largest, color="0.95", zorder=0)
        ticks.append((beyond, "none"))
    axis.set_xticks([place for place, _ in ticks], [text for _, text in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlim(-0.05, 1.9 * largest if failures else end)
    return beyond


def _box(axis: Axes, values: pd.Series, place: int, colour: str) -> None:
    if values.empty:
        return
    axis.boxplot(
        values.to_numpy(),
        positions=[place],
        orientation="horizontal",
        widths=0.6,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": (*to_rgb(colour), 0.35), "edgecolor": "0.35"},
        medianprops={"color": "black", "linewidth": 1.5},
        whiskerprops={"color": "0.35"},
        capprops={"color": "0.35"},
    )


def _points(axis: Axes, rows: pd.DataFrame, place: int) -> None:
    # spread evenly, in a fixed order, so that the same metrics give the same picture
    offset = pd.Series(np.linspace(-0.2, 0.2, len(rows)) if len(rows) > 1 else [0.0], index=rows.index)
    missed, spurious = rows["missed"].astype(bool), rows["spurious"].astype(bool)
    hit, across, up = ~missed & ~spurious, rows["value"], place + offset
    axis.scatter(across[hit], up[hit], s=11, color="0.15", alpha=0.75, linewidths=0, zorder=3, clip_on=False)
    axis.scatter(across[missed], up[missed], s=34, color="black", marker="x", zorder=3, clip_on=False)
    axis.scatter(
        across[spurious], up[spurious], s=30, marker="s", facecolors="none", edgecolors="black", zorder=3, clip_on=False
    )


def _mark_legend(figure: Figure, metrics: pd.DataFrame) -> None:
    """Add a legend of the marks that are used."""
    marks = [
        Line2D([], [], marker="x", color="black", linestyle="none", markersize=6, label="missed"),
        Line2D([], [], marker="s", color="black", linestyle="none", fillstyle="none", markersize=6, label="spurious"),
    ]
    used = [mark for mark, column in zip(marks, ("missed", "spurious"), strict=True) if metrics[column].any()]
    if used:
        figure.legend(handles=used, loc="outside lower center", ncols=2, frameon=False)


def read_history(path: str | os.PathLike[str]) -> pd.DataFrame | None:
    """Read the file of :class:`medcontext.handlers.TrainingHistory`.

    Returns:
        The table for :func:`curves_figure`, or ``None`` if there is no such file or nothing in it to draw.
    """
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s holds no history (%s); the report has no curves.", path, error)
        return None
    drawn = [column for group in _groups(table.columns).values() for column in group]
    numbers = "epoch" in table.columns and all(map(pd.api.types.is_numeric_dtype, table[["epoch", *drawn]].dtypes))
    return table if numbers and table[drawn].notna().any(axis=None) else None


def curves_figure(history: pd.DataFrame) -> Figure:
    """Show loss terms and validation Dice by epoch.

    Of more than 200 values, means of successive ones are drawn, and the axis says of how many: a curve of thousands of
    epochs would be a band of noise.

    Args:
        history: one row per epoch, indexed by epoch or with a column ``epoch``. Columns whose names begin with
            ``train_loss`` are drawn as losses; ``val_mean_dice`` and ``val_dice_<label>`` as Dice. Epochs without a
            value (NaN), such as those without validation, are bridged.

    Raises:
        ValueError: If there is nothing to draw.
    """
    table = history.set_index("epoch") if "epoch" in history.columns else history
    groups = _groups(table.columns)
    if not groups:
        raise ValueError(
            "history must have columns train_loss…, val_mean_dice or val_dice_<label>, got "
            f"{list(map(str, table.columns))}. Name them as they are logged."
        )
    figure = Figure(figsize=(_WIDTH, sum(_height(names) for names in groups.values())), layout="constrained", dpi=_DPI)
    heights = [_height(names) for names in groups.values()]
    axes = figure.subplots(len(groups), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axis, (title, names) in zip(axes, groups.items(), strict=True):
        _curves(axis, table[names], title)
        if title == "validation Dice":
            axis.set_ylim(-0.02, 1.02)
    if table.index.min() == table.index.max():
        axes[-1].set_xlim(table.index[0] - 1, table.index[0] + 1)
    axes[-1].set_xlabel("epoch")
    return figure


def _groups(columns: pd.Index) -> dict[str, list[str]]:
    """Return the columns that are drawn, by the title of their axis; those of one axis share a unit."""
    names = [str(name) for name in columns]
    groups = {
        "loss": [name for name in names if name.startswith("train_loss")],
        "validation Dice": [name for name in names if name == "val_mean_dice" or name.startswith("val_dice_")],
    }
    return {title: group for title, group in groups.items() if group}


_LEGEND_COLUMNS = 2


def _height(names: Sequence[str]) -> float:
    """Return the height in inches of an axis and the legend above it."""
    return 2.7 + 0.2 * -(-len(names) // _LEGEND_COLUMNS)


def _curves(axis: Axes, table: pd.DataFrame, title: str) -> None:
    main = {"train_loss": "total", "val_mean_dice": "mean"}
    colours: Mapping[str, str] = label_colours(name for name in table.columns if name not in main)
    size = -(-int(table.notna().sum().max()) // _MOST_POINTS) or 1
    for name in table.columns:
        series = _means(table[name].dropna(), size)
        axis.plot(
            series.index,
            series.to_numpy(),
            color=colours.get(name, "black"),
            linewidth=2.2 if name in main else 1.2,
            marker="o" if len(series) < 30 else None,
            markersize=3,
            label=main.get(name) or label_text(name.removeprefix("train_loss_").removeprefix("val_dice_")),
        )
    axis.set_ylabel(title if size == 1 else f"{title} (means of {size})")
    axis.grid(color="0.92")
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=_LEGEND_COLUMNS, fontsize=9, frameon=False)


def _means(series: pd.Series, size: int) -> pd.Series:
    """Return means of ``size`` successive values, each at the mean of their epochs."""
    groups = np.arange(len(series)) // size
    return series.groupby(groups).mean().set_axis(series.index.to_series().groupby(groups).mean())
