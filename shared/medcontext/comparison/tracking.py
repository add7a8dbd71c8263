"""A comparison's figures, tables and verdicts as a run of MLflow, beside the runs that it compares."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunStatus
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from medcontext.comparison.report import Comparison
from medcontext.comparison.runs import COMPARISON, KIND_TAG
from medcontext.comparison.store import mlflow_errors
from medcontext.handlers.mlflow_operations import METRICS_LIMIT

__all__ = ["log_comparison"]

_GROUP_BY_TAG = "medcontext.group_by"
_NOTE_LIMIT = 5000  # characters that every MLflow server takes in a tag


def log_comparison(client: MlflowClient, experiment_id: str, comparison: Comparison, files: Mapping[str, Path]) -> str:
    """Log a comparison to the experiment that it compares.

    One run holds the files, as metrics ``difference_<control>/<group>`` and its bounds with the endings ``_low`` and
    ``_high``, and the verdicts as its description. A later comparison of the experiment by the same names takes its
    place: in the same run, or, since MLflow keeps metrics, in a new one where a group or control is gone; the old one
    then goes to MLflow's trash.

    Args:
        client: connected to the store.
        experiment_id: of the experiment.
        comparison: what was compared.
        files: from :func:`medcontext.comparison.report.write_comparison`.

    Returns:
        The run's identifier.

    Raises:
        ValueError: When MLflow does not take it.
    """
    with mlflow_errors(client.tracking_uri):
        metrics = _metrics(comparison)
        run_id = _run(client, experiment_id, ",".join(comparison.group_by), metrics).info.run_id
        try:
            client.set_tag(run_id, MLFLOW_RUN_NOTE, _note(comparison))
            for start in range(0, len(metrics), METRICS_LIMIT):
                client.log_batch(run_id, metrics=metrics[start : start + METRICS_LIMIT])
            for path in files.values():
                client.log_artifact(run_id, str(path))
        except BaseException:
            client.set_terminated(run_id, RunStatus.to_string(RunStatus.FAILED))
            raise
        client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))
    return str(run_id)


def _run(client: MlflowClient, experiment_id: str, group_by: str, metrics: Sequence[Metric]) -> Run:
    """The run of an earlier comparison by the same names, or a new one."""
    known = client.search_runs([experiment_id], f"tags.`{KIND_TAG}` = '{COMPARISON}'")
    run = next((run for run in known if run.data.tags.get(_GROUP_BY_TAG) == group_by), None)
    if run is not None and run.data.metrics.keys() - {metric.key for metric in metrics}:
        client.delete_run(run.info.run_id)
        run = None
    if run is None:
        tags = {KIND_TAG: COMPARISON, _GROUP_BY_TAG: group_by}
        return client.create_run(experiment_id, run_name=f"comparison by {group_by}", tags=tags)
    client.update_run(run.info.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
    return run


def _metrics(comparison: Comparison) -> list[Metric]:
    now = int(time.time() * 1000)
    return [
        Metric(f"difference_{control.replace(' ', '_')}/{comparison.slug(group)}{ending}", value, now, 0)
        for group in comparison.groups
        for control, result in group.results.items()
        for ending, value in zip(("", "_low", "_high"), result.mean, strict=True)
        if math.isfinite(value)
    ]


def _note(comparison: Comparison) -> str:
    """The sentences as Markdown, cut where a tag must end."""
    text = "\n".join(f"- **{group.title}: {group.verdict}.** {group.explanation}" for group in comparison.groups)
    return text if len(text) <= _NOTE_LIMIT else f"{text[: _NOTE_LIMIT - 40]}…\n\nThe rest is in comparison.html."
