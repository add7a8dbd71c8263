"""Report of an evaluation: tables as files, and one page that opens anywhere without a network."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medcontext.data.datalist import hashed_name
from medcontext.labels import Labels, label_ids
from medcontext.metrics import ESTIMATE, MetricSummary, case_mean_dice, summarise
from medcontext.reliability import Calibration
from medcontext.report.charts import curves_figure, metrics_boxplot
from medcontext.report.figures import draw_planes
from medcontext.report.page import data_uri, number, png, render
from medcontext.report.planes import Plane
from medcontext.report.quality import quality_rows
from medcontext.report.tables import LABEL_COLUMNS, PAPER_COLUMNS, label_table
from medcontext.storage.files import write_file
from medcontext.storage.json_files import json_text
from medcontext.storage.tables import csv_bytes

__all__ = ["REPORT_FILE", "write_report"]

REPORT_FILE = "report.html"
"""Name of the report in the folder of an evaluation."""

_Ranked = dict[str, tuple[str, float]]
"""Case and mean Dice by rank."""


@dataclass(frozen=True)
class _Pictures:
    """PNGs of a report, none of which names a case: overlays by rank, box plots by title, and training curves."""

    overlays: Mapping[str, bytes]
    charts: Mapping[str, bytes]
    curves: bytes | None


def write_report(
    output_dir: str | os.PathLike[str],
    metrics: pd.DataFrame,
    *,
    cases: Mapping[str, Sequence[Plane]],
    labels: Labels,
    info: Mapping[str, object] | None = None,
    history: pd.DataFrame | None = None,
    failed: Mapping[str, str] | None = None,
    anonymous_dir: str | os.PathLike[str] | None = None,
    calibration: Calibration | None = None,
) -> Path:
    """Write the report of an evaluation.

    The files in ``output_dir`` are ``metrics.csv`` (one row per case and label), ``summary.json`` (averages, intervals,
    counts and ``info``), ``overlay_best.png``, ``overlay_median.png`` and ``overlay_worst.png`` (by the cases' mean
    Dice; fewer with less than three cases), and ``report.html``, which contains all pictures. Every file is replaced
    atomically, the numbers first and ``report.html`` last; overlays of an earlier report are removed.

    Args:
        output_dir: folder, created if necessary.
        metrics: one row per case and label: ``case`` and the keys of :func:`medcontext.metrics.case_metrics`.
        cases: slices by case from :func:`medcontext.report.label_planes`. Cases without slices get no picture.
        labels: foreground names with their id or ids.
        info: circumstances in reading order: bundle, dataset, run, checkpoint, command, versions, date. Values are
            shown as text; a mapping as its items.
        history: training history for :func:`medcontext.report.curves_figure`.
        failed: reasons by the names of cases that could not be evaluated.
        anonymous_dir: folder of a second copy with hashes instead of the cases' names, and without the reasons, which
            name files.
        calibration: what the column ``estimated_dice`` of the metrics comes from; its errors are shown beside that
            measured here.

    Returns:
        Path of ``report.html``.

    Raises:
        ValueError: If ``metrics`` or ``labels`` are unusable, see :func:`medcontext.metrics.summarise`.
    """
    label_ids(labels)
    summary, info, ranked = summarise(metrics), dict(info or {}), _ranked_cases(metrics)
    copies = {Path(output_dir): (metrics, ranked, dict(failed or {}))}
    if anonymous_dir is not None:
        hashed = {hashed_name(case): "" for case in failed or ()}
        copies[Path(anonymous_dir)] = (*_with_hashed_names(metrics, ranked), hashed)
    for output, (rows, shown, left_out) in copies.items():
        output.mkdir(parents=True, exist_ok=True)
        write_file(output / "metrics.csv", csv_bytes(rows))
        write_file(output / "summary.json", _summary_json(summary, shown, info, left_out).encode())

    pictures = _Pictures(
        overlays={rank: png(draw_planes(cases[case], labels)) for rank, (case, _) in ranked.items() if case in cases},
        charts=_charts(metrics),
        curves=None if history is None else png(curves_figure(history)),
    )
    for output, (rows, shown, left_out) in copies.items():
        page = _render_page(summary, rows, shown, pictures, info, calibration, left_out)
        for rank in ("best", "median", "worst"):
            (output / f"overlay_{rank}.png").unlink(missing_ok=True)
        for rank, picture in pictures.overlays.items():
            write_file(output / f"overlay_{rank}.png", picture)
        write_file(output / REPORT_FILE, page.encode())
    return Path(output_dir) / REPORT_FILE


def _with_hashed_names(metrics: pd.DataFrame, ranked: _Ranked) -> tuple[pd.DataFrame, _Ranked]:
    """Return metrics and ranked cases with hashes instead of the names."""
    renamed = metrics.assign(case=metrics["case"].astype(str).map(hashed_name))
    return renamed, {rank: (hashed_name(case), dice) for rank, (case, dice) in ranked.items()}


def _ranked_cases(metrics: pd.DataFrame) -> _Ranked:
    """Return best, median and worst case with their mean Dice, each case once."""
    ranked = [(str(case), float(dice)) for case, dice in case_mean_dice(metrics).dropna().items()]
    if not ranked:
        return {}
    indices = {"best": 0, "worst": len(ranked) - 1, "median": len(ranked) // 2}
    unique = {index: rank for rank, index in reversed(indices.items())}  # best outranks worst, worst the median
    return {rank: ranked[index] for index, rank in sorted(unique.items())}


def _render_page(
    summary: MetricSummary,
    metrics: pd.DataFrame,
    ranked: _Ranked,
    pictures: _Pictures,
    info: Mapping[str, object],
    calibration: Calibration | None,
    failed: Mapping[str, str],
) -> str:
    headings = {rank: f"{case}, mean Dice {number(dice)}" for rank, (case, dice) in ranked.items()}
    return render(
        "report.html.j2",
        info={str(key).replace("_", " "): _text(value) for key, value in info.items()},
        summary=summary,
        counts=summary.labels.to_dict("index"),
        table=label_table(metrics, LABEL_COLUMNS),
        paper=label_table(metrics, PAPER_COLUMNS),
        cases=_case_table(metrics),
        calibration=calibration,
        quality=[] if calibration is None else quality_rows(metrics, calibration),
        failed=failed,
        charts={title: data_uri(picture) for title, picture in pictures.charts.items()},
        overlays=[
            {"rank": rank, "heading": headings[rank], "uri": data_uri(picture)}
            for rank, picture in pictures.overlays.items()
        ],
        curves=None if pictures.curves is None else data_uri(pictures.curves),
    )


def _charts(metrics: pd.DataFrame) -> dict[str, bytes]:
    """Return box plots by title."""
    shown = {"Dice": "dice", "HD95": "hd95_mm"}
    return {
        title: png(metrics_boxplot(metrics, column))
        for title, column in shown.items()
        if column == "dice" or (column in metrics.columns and metrics[column].notna().any())
    }


def _case_table(metrics: pd.DataFrame) -> list[dict[str, object]]:
    """Return every case with its mean Dice, and its missed and spurious labels, worst first."""
    missed, spurious = _labels_where(metrics, "missed"), _labels_where(metrics, "spurious")
    estimated: Mapping[Any, float] = (
        metrics.groupby("case", sort=False)[ESTIMATE].mean().to_dict() if ESTIMATE in metrics.columns else {}
    )
    return [
        {
            "case": case,
            "dice": dice,
            "estimate": float(estimated.get(case, math.nan)),
            "missed": missed.get(str(case), ""),
            "spurious": spurious.get(str(case), ""),
        }
        for case, dice in case_mean_dice(metrics)[::-1].items()
    ]


def _labels_where(metrics: pd.DataFrame, column: str) -> dict[str, str]:
    """Return by case the names of the labels for which a boolean column is true, as shown."""
    chosen = metrics[metrics[column].astype(bool)]
    return {str(case): ", ".join(rows["label"]).replace("_", " ") for case, rows in chosen.groupby("case", sort=False)}


def _summary_json(
    summary: MetricSummary, ranked: _Ranked, info: Mapping[str, object], failed: Mapping[str, str]
) -> str:
    content = {
        "info": info,
        "cases": summary.cases,
        "failed_cases": failed,
        "mean_dice": summary.mean_dice,
        "mean_dice_interval_95": list(summary.mean_dice_interval),
        "missed": summary.missed,
        "spurious": summary.spurious,
        "ranked_cases": {rank: {"case": case, "mean_dice": dice} for rank, (case, dice) in ranked.items()},
        "labels": summary.labels.to_dict("index"),
    }
    return json_text(content)


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {item}" for key, item in value.items())
    return str(value)
