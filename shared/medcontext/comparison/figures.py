"""Figures of a comparison: paired differences, their overview, and Dice by the number of training cases."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from medcontext.comparison.pairing import MEDCONTEXT, Control
from medcontext.comparison.runs import TrackedRun
from medcontext.comparison.statistics import MEAN, Array
from medcontext.comparison.verdicts import Group
from medcontext.report.figures import plain

__all__ = ["differences_figure", "few_shot_figure", "overview_figure"]

_DPI = 130
# by role, a colour and a shape, so that neither is needed alone (colours: Okabe and Ito)
_STYLES = {
    MEDCONTEXT: ("#0072B2", "o"),
    Control.EQUAL_STEPS: ("#E69F00", "s"),
    Control.EQUAL_TIME: ("#D55E00", "D"),
    Control.MASKING_ONLY: ("#009E73", "^"),
}


def differences_figure(group: Group) -> Figure:
    """Show how far MedContext is ahead of each control, class by class, with 95 % intervals.

    Args:
        group: with at least one result.
    """
    tables = {control: result.table for control, result in group.results.items()}
    labels = list(dict.fromkeys(label for table in tables.values() for label in table.index if label != MEAN))
    return _forest([*labels, MEAN], tables)


def overview_figure(groups: Sequence[Group]) -> Figure:
    """Show how far MedContext is ahead of each control in the mean over the classes, group by group.

    Args:
        groups: with at least one result among them.
    """
    tables = {}
    for control in Control:
        rows = {group.title: group.results[control].mean for group in groups if control in group.results}
        if rows:
            tables[control] = pd.DataFrame.from_dict(rows, orient="index", columns=["difference", "low", "high"])
    return _forest([group.title for group in groups if group.results], tables)


def _forest(names: Sequence[str], tables: Mapping[Control, pd.DataFrame]) -> Figure:
    """Draw a row for each name, and in it a mark with an interval for each control."""
    if not names or not tables:
        raise ValueError("there must be at least one paired difference to draw, got none.")
    figure = Figure(figsize=(6.4, 1.5 + (0.16 + 0.13 * len(tables)) * len(names)), layout="constrained", dpi=_DPI)
    axis = figure.subplots()
    offsets = np.linspace(-0.26, 0.26, len(tables)) if len(tables) > 1 else np.zeros(1)
    for offset, (control, table) in zip(offsets, tables.items(), strict=True):
        rows = table.reindex(list(names))[["difference", "low", "high"]].to_numpy(dtype=float)
        _marks(axis, np.arange(len(names)) + offset, rows, control)
    axis.axvline(0, color="0.3", linewidth=1)
    shown = [plain(_wrapped(name.replace("_", " "))) for name in names]
    axis.set_yticks(range(len(names)), shown, fontsize=12)
    for row in range(1, len(names)):
        axis.axhline(row - 0.5, color="0.92", linewidth=0.8, zorder=0)
    for tick in axis.get_yticklabels():
        if tick.get_text() == MEAN:
            tick.set_fontweight("bold")
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("Dice: MedContext − control", fontsize=12)
    _tidy(figure, axis)
    return figure


def _marks(axis: Axes, heights: Array, rows: Array, control: Control) -> None:
    """Draw a control's differences with their bounds, (rows, 3)."""
    colour, marker = _STYLES[control]
    values, low, high = rows.T
    axis.errorbar(
        values,
        heights,
        xerr=np.nan_to_num([values - low, high - values]),  # without an interval, the mark alone
        fmt=marker,
        color=colour,
        markersize=6,
        elinewidth=1.8,
        capsize=3,
        label=f"against {control}",
    )


def few_shot_figure(runs: Mapping[str, Sequence[TrackedRun]]) -> Figure:
    """Show test Dice by the number of training cases, as points for the runs and lines for their means.

    Bars are the standard deviation over the runs. Where a run's number of cases was not logged, the share of the
    training cases stands for it in all.

    Args:
        runs: by role, see :func:`medcontext.comparison.cost.runs_by_role`.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained", dpi=_DPI)
    axis = figure.subplots()
    counted = all(run.num_cases is not None for members in runs.values() for run in members)
    ticks: set[float] = set()
    for at, (role, members) in enumerate(runs.items()):
        shift = 1.03 ** (at - (len(runs) - 1) / 2)  # beside each other, not over
        points = pd.DataFrame(
            {"x": [_amount(run, counted) for run in members], "dice": [run.mean_dice for run in members]}
        )
        ticks |= set(points["x"])
        colour, marker = _STYLES[MEDCONTEXT if role == MEDCONTEXT else Control(role)]
        means = points.groupby("x")["dice"].agg(["mean", "std"])
        axis.scatter(points["x"] * shift, points["dice"], color=colour, marker=marker, s=14, alpha=0.45, linewidths=0)
        axis.errorbar(
            means.index.to_numpy() * shift,
            means["mean"],
            yerr=means["std"].fillna(0),
            fmt=f"{marker}-",
            color=colour,
            markersize=6,
            linewidth=1.6,
            capsize=3,
            label=role,
        )
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(sorted(ticks), [f"{tick:g}" for tick in sorted(ticks)])
    axis.set_xlim(min(ticks) / 1.25, max(ticks) * 1.25)
    axis.set_xlabel("training cases" if counted else "share of the training cases, %", fontsize=12)
    axis.set_ylabel("mean test Dice", fontsize=12)
    _tidy(figure, axis)
    return figure


def _amount(run: TrackedRun, counted: bool) -> float:
    count = run.num_cases
    return float(count) if counted and count is not None else 100 * float(run.tags.get("train_fraction", 1))


def _tidy(figure: Figure, axis: Axes) -> None:
    axis.tick_params(labelsize=12)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=11, frameon=False)


def _wrapped(text: str, width: int = 30) -> str:
    return "\n".join(textwrap.wrap(text, width))
