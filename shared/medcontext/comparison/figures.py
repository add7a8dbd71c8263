"""Figures of a comparison: the ladder, paired differences, their overview, and Dice by the number of cases."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from medcontext.comparison.efficiency import REACH
from medcontext.comparison.ladder import Ladder
from medcontext.comparison.learning_curves import LearningCurve
from medcontext.comparison.results import Result
from medcontext.comparison.rungs import Basis, Rung
from medcontext.comparison.runs import TrackedRun
from medcontext.comparison.statistics import MEAN, Array
from medcontext.comparison.verdicts import Group
from medcontext.report.figures import plain
from medcontext.report.page import number

__all__ = ["differences_figure", "few_shot_figure", "ladder_figure", "overview_figure"]

_DPI = 150
_WIDTH = 7.2  # inches, at which letters can be read on a telephone too
# a colour and a shape for each rung, so that either suffices (colours: Okabe and Ito)
_STYLES = {
    Rung.BASELINE: ("#E69F00", "s"),
    Rung.BASELINE_EQUAL_TIME: ("#D55E00", "D"),
    Rung.PATCH_DROPOUT: ("#56B4E9", "v"),
    Rung.MASKING_ONLY: ("#009E73", "^"),
    Rung.MEDCONTEXT: ("#0072B2", "o"),
    Rung.PSEUDO_LABELS: ("#CC79A7", "P"),
    Rung.MEDCONTEXT_UNLABELED: ("#000000", "X"),
}
_BASES = {Basis.STEPS: ("#E69F00", "s"), Basis.TIME: ("#0072B2", "o")}


def ladder_figure(ladder: Ladder) -> Figure:
    """Show the gain of each rung over the one below, and over the baseline, with 95 % intervals.

    Args:
        ladder: ladder with at least one result.

    Raises:
        ValueError: If there is no result.
    """
    steps = [step for step in ladder.steps if any(step.results.values())]
    if not steps:
        raise ValueError("there must be at least one rung above another to draw, got none.")
    figure = Figure(figsize=(_WIDTH, 2.3 + 0.9 * len(steps)), layout="constrained", dpi=_DPI)
    below, baseline = figure.subplots(2, sharex=True)
    names = [f"{_wrapped(step.rung, 22)}\nDice {number(step.mean_dice)}" for step in steps]
    for axis, title in ((below, "over the rung below"), (baseline, "over the baseline")):
        for offset, basis in zip((-0.14, 0.14), Basis, strict=True):
            if not any(step.results[basis] for step in steps):
                continue
            results = [step.over_below(basis) if axis is below else step.over_baseline(basis) for step in steps]
            rows = np.array([_bounds(result) for result in results])
            _draw_marks(axis, np.arange(len(steps), dtype=float) + offset, rows, _BASES[basis], f"at {basis}")
        _label_rows(axis, names)
        axis.set_title(title, fontsize=12, loc="left")
    baseline.set_xlabel("gain in Dice", fontsize=12)
    _style_axes(figure, below, baseline)
    return figure


def _bounds(result: Result | None) -> tuple[float, float, float]:
    return (np.nan, np.nan, np.nan) if result is None else result.mean


def differences_figure(results: Mapping[Rung, Result], subject: Rung) -> Figure:
    """Show how far MedContext is ahead of each control, class by class, with 95 % intervals.

    Args:
        results: results by control, at least one.
        subject: rung that is compared with the controls.
    """
    tables = {control: result.table for control, result in results.items()}
    labels = list(dict.fromkeys(label for table in tables.values() for label in table.index if label != MEAN))
    return _forest_figure([*labels, MEAN], tables, subject)


def overview_figure(groups: Sequence[Group], subject: Rung) -> Figure:
    """Show how far MedContext is ahead of each control in the mean over the classes, group by group.

    Args:
        groups: groups, each with at least one result of the subject.
        subject: rung that is compared with the controls.
    """
    results_of = {group.title: group.subjects[subject].results for group in groups}
    tables = {}
    for control in Rung:
        rows = {title: results[control].mean for title, results in results_of.items() if control in results}
        if rows:
            tables[control] = pd.DataFrame.from_dict(rows, orient="index", columns=["difference", "low", "high"])
    return _forest_figure(list(results_of), tables, subject)


def _forest_figure(names: Sequence[str], tables: Mapping[Rung, pd.DataFrame], subject: Rung) -> Figure:
    """Draw a row for each name, and in it a mark with an interval for each control."""
    if not names or not tables:
        raise ValueError("there must be at least one paired difference to draw, got none.")
    figure = Figure(figsize=(_WIDTH, 1.5 + (0.16 + 0.13 * len(tables)) * len(names)), layout="constrained", dpi=_DPI)
    axis = figure.subplots()
    offsets = np.linspace(-0.26, 0.26, len(tables)) if len(tables) > 1 else np.zeros(1)
    for offset, (control, table) in zip(offsets, tables.items(), strict=True):
        rows = table.reindex(list(names))[["difference", "low", "high"]].to_numpy(dtype=float)
        _draw_marks(axis, np.arange(len(names)) + offset, rows, _STYLES[control], f"against {control}")
    _label_rows(axis, [_wrapped(name.replace("_", " ")) for name in names])
    axis.set_xlabel(_wrapped(f"Dice: {subject} − control"), fontsize=12)
    _style_axes(figure, axis)
    return figure


def _label_rows(axis: Axes, names: Sequence[str]) -> None:
    """Label the rows from top to bottom, separate them, and draw a line at no difference."""
    axis.axvline(0, color="0.3", linewidth=1)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=12)
    for row in range(1, len(names)):
        axis.axhline(row - 0.5, color="0.92", linewidth=0.8, zorder=0)
    for tick in axis.get_yticklabels():
        if tick.get_text() == MEAN:
            tick.set_fontweight("bold")
    axis.set_ylim(len(names) - 0.5, -0.5)


def _draw_marks(axis: Axes, heights: Array, rows: Array, style: tuple[str, str], label: str) -> None:
    """Draw differences with their bounds, (rows, 3)."""
    colour, marker = style
    values, low, high = rows.T
    axis.errorbar(
        values,
        heights,
        xerr=np.nan_to_num([values - low, high - values]),  # without an interval, only the mark
        fmt=marker,
        color=colour,
        markersize=6,
        elinewidth=1.8,
        capsize=3,
        label=label,
    )


def few_shot_figure(runs: Mapping[Rung, Sequence[TrackedRun]], curves: Mapping[Rung, LearningCurve]) -> Figure:
    """Show test Dice by the number of labelled cases, as points for the runs, their means, and learning curves.

    Cases for validation are included. Bars are the standard deviation over the runs. Curves are dashed beyond the
    numbers that they were fitted to; rungs without a curve have lines between their means. If the number of cases of
    any run was not logged, the share of the training cases is used for all, and no curve is drawn.

    Args:
        runs: runs by rung, see :func:`medcontext.comparison.rungs.runs_by_rung`.
        curves: curves by rung, see :func:`medcontext.comparison.efficiency.label_efficiency`.
    """
    figure = Figure(figsize=(_WIDTH, 4.2), layout="constrained", dpi=_DPI)
    axis = figure.subplots()
    counted = all(run.num_cases is not None for members in runs.values() for run in members)
    curves = curves if counted else {}
    ticks: set[float] = set()
    for index, (rung, members) in enumerate(runs.items()):
        shift = 1.03 ** (index - (len(runs) - 1) / 2)  # beside each other, not over
        points = pd.DataFrame(
            {"x": [_num_cases_or_percent(run, counted) for run in members], "dice": [run.mean_dice for run in members]}
        )
        ticks |= set(points["x"])
        _draw_points(axis, points, shift, rung, line="" if rung in curves else "-")
        if rung in curves:
            _draw_curve(axis, curves[rung], _STYLES[rung][0])
    reach = REACH if curves else 1.25
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(sorted(ticks), [f"{tick:g}" for tick in sorted(ticks)])
    axis.set_xlim(min(ticks) / 1.25, max(ticks) * reach)
    axis.set_xlabel("labelled cases" if counted else "share of the training cases, %", fontsize=12)
    axis.set_ylabel("mean test Dice", fontsize=12)
    _style_axes(figure, axis)
    return figure


def _draw_points(axis: Axes, points: pd.DataFrame, shift: float, rung: Rung, line: str) -> None:
    """Draw the runs of a rung as small marks, and their means as large ones with bars."""
    colour, marker = _STYLES[rung]
    means = points.groupby("x")["dice"].agg(["mean", "std"])
    axis.scatter(points["x"] * shift, points["dice"], color=colour, marker=marker, s=14, alpha=0.45, linewidths=0)
    axis.errorbar(
        means.index.to_numpy() * shift,
        means["mean"],
        yerr=means["std"].fillna(0),
        fmt=f"{marker}{line}",
        color=colour,
        markersize=6,
        linewidth=1.6,
        capsize=3,
        label=rung,
    )


def _draw_curve(axis: Axes, curve: LearningCurve, colour: str) -> None:
    """Draw a learning curve, dashed beyond the numbers of cases that it was fitted to."""
    for ends, style in (((curve.first, curve.last), "-"), ((curve.last, REACH * curve.last), "--")):
        cases = np.geomspace(*ends, 50)
        axis.plot(cases, [curve.dice(number) for number in cases], style, color=colour, linewidth=1.6)


def _num_cases_or_percent(run: TrackedRun, counted: bool) -> float:
    if counted and run.num_labelled is not None:
        return float(run.num_labelled)
    return 100 * float(run.tags.get("train_fraction", 1))


def _style_axes(figure: Figure, *axes: Axes) -> None:
    for axis in axes:
        axis.tick_params(labelsize=12)
        axis.grid(axis="x", color="0.92")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=11, frameon=False)


def _wrapped(text: str, width: int = 30) -> str:
    return "\n".join(textwrap.wrap(text, width))
