"""How a run is shown in MLflow's pages: its kind of experiment, its description, and the order of its charts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mlflow.entities import DatasetInput
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

__all__ = ["EXPERIMENT_KIND", "case_counts", "chart_name", "describe_run"]

EXPERIMENT_KIND = ("mlflow.experimentKind", "custom_model_development")
"""A tag of the experiment: MLflow 3 opens it with runs and charts, instead of traces and judges."""

_BY_LABEL = re.compile(r"(val|test)_(paper_dice|paper_hd95|surface_dice|dice|hd95|missed|spurious)_(.+?)(_ema)?")

_DICE = {"val_mean_dice": "validation", "val_mean_dice_ema": "validation (average weights)", "test_mean_dice": "test"}


def chart_name(name: str) -> str:
    """Return the name that a metric is logged under: ``test_dice/liver`` for ``test_dice_liver``.

    MLflow makes a section of what stands before a slash, so that the few figures over all labels, which have none, are
    not lost among those of each label.
    """
    found = _BY_LABEL.fullmatch(name)
    return f"{found[1]}_{found[2]}{found[4] or ''}/{found[3]}" if found else name


def case_counts(inputs: Iterable[DatasetInput]) -> dict[str, int]:
    """Return the number of cases by section, of a run's inputs."""
    counts = {}
    for item in inputs:
        section = next((tag.value for tag in item.tags if tag.key == MLFLOW_DATASET_CONTEXT), "")
        count = json.loads(item.dataset.profile or "{}").get("num_cases")
        if section and count is not None:
            counts[section] = int(count)
    return counts


def describe_run(
    tags: Mapping[str, Any], cases: Mapping[str, int], metrics: Mapping[str, float], report: str | None = None
) -> str:
    """Describe a run in Markdown: what it is, what came out, and where the report lies.

    Args:
        tags: of the run, those that begin with ``medcontext.``.
        cases: number of cases by section.
        metrics: of the run, as far as they are known.
        report: folder of the evaluation's report.
    """
    known = {name.removeprefix("medcontext."): value for name, value in tags.items()}
    counts = ", ".join(f"{count} {section}" for section, count in cases.items())
    what = f"**{known.get('bundle', 'Network')}**, mode `{known.get('mode', 'unknown')}`"
    what += f", on {known['dataset']}" if "dataset" in known else ""
    what += f" ({counts} cases)" if counts else ""
    what += f", seed {known['seed']}" if "seed" in known else ""
    lines = [what + "."]
    dice = [f"{title} {metrics[name]:.3f}" for name, title in _DICE.items() if name in metrics]
    if dice:
        lines.append(f"Mean Dice: {', '.join(dice)}.")
    if report is not None:
        lines.append(f"Report: `evaluation/report.html` under Artifacts, and `{report}`.")
    return "\n\n".join(lines)
