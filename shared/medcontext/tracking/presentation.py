"""Presentation of runs in MLflow's pages: kind of experiment, description, and sections of charts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["EXPERIMENT_KIND", "chart_name", "describe_run"]

EXPERIMENT_KIND = ("mlflow.experimentKind", "custom_model_development")
"""Tag of the experiment by which MLflow 3 knows that it is about runs and charts, not about traces and judges."""

_BY_LABEL = re.compile(r"(val|test)_(paper_dice|paper_hd95|surface_dice|dice|hd95|missed|spurious)_(.+?)(_ema)?")

_MEAN_DICE = re.compile(r"(val|test)(_paper)?_mean_dice(_ema)?")

_DICE = {"val_mean_dice": "validation", "val_mean_dice_ema": "validation (average weights)", "test_mean_dice": "test"}


def chart_name(name: str) -> str:
    """Return the name that a metric is logged under: ``test_dice/liver`` for ``test_dice_liver``.

    MLflow makes a section of charts of what stands before a slash, and shows the sections by their names, the metrics
    without a slash last. Mean Dice, in the section ``dice``, comes first.

    Example:
        >>> chart_name("val_dice_liver_ema"), chart_name("val_mean_dice"), chart_name("train_loss")
        ('val_dice_ema/liver', 'dice/val_mean_dice', 'train_loss')
    """
    if _MEAN_DICE.fullmatch(name):
        return f"dice/{name}"
    parts = _BY_LABEL.fullmatch(name)
    return f"{parts[1]}_{parts[2]}{parts[4] or ''}/{parts[3]}" if parts else name


def describe_run(
    tags: Mapping[str, Any], cases: Mapping[str, int], metrics: Mapping[str, float], report: str | None = None
) -> str:
    """Return a description of a run in Markdown: its settings, its results, and the place of its report.

    Args:
        tags: tags of the run, of which those that begin with ``medcontext.`` are used.
        cases: number of cases by section.
        metrics: metrics of the run as far as they are known, by :func:`chart_name`.
        report: folder of the evaluation's report.

    Example:
        >>> describe_run({"medcontext.bundle": "unetr", "medcontext.mode": "medcontext"}, {"training": 18}, {})
        '**unetr**, mode `medcontext` (18 training cases).'
    """
    settings = {name.removeprefix("medcontext."): value for name, value in tags.items()}
    counts = ", ".join(f"{count} {section}" for section, count in cases.items())
    summary = f"**{settings.get('bundle', 'Network')}**, mode `{settings.get('mode', 'unknown')}`"
    summary += f", on {settings['dataset']}" if "dataset" in settings else ""
    summary += f" ({counts} cases)" if counts else ""
    summary += f", seed {settings['seed']}" if "seed" in settings else ""
    lines = [summary + "."]
    dice = [f"{title} {metrics[chart_name(name)]:.3f}" for name, title in _DICE.items() if chart_name(name) in metrics]
    if dice:
        lines.append(f"Mean Dice: {', '.join(dice)}.")
    if failed := int(metrics.get("test_failed_cases", 0)):
        lines.append(f"**{failed} test {'case' if failed == 1 else 'cases'} failed** and count in no result.")
    if report is not None:
        lines.append(f"Report: `evaluation/report.html` under Artifacts, and `{report}`.")
    return "\n\n".join(lines)
