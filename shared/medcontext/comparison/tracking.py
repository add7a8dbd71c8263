"""Logging of a comparison's figures, tables and verdicts as an MLflow run, beside the runs that it compares."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunStatus
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from medcontext.comparison.few_shot import FewShot
from medcontext.comparison.page import Comparison, prediction_sentences
from medcontext.comparison.rungs import Basis, Rung
from medcontext.comparison.runs import COMPARISON
from medcontext.comparison.store import mlflow_errors
from medcontext.comparison.verdicts import Group
from medcontext.tracking.final_models import KIND_TAG
from medcontext.tracking.operations import METRICS_LIMIT

__all__ = ["log_comparison"]

_GROUP_BY_TAG = "medcontext.group_by"
_NOTE_LIMIT = 5000  # characters that every MLflow server accepts in a tag


def log_comparison(client: MlflowClient, experiment_id: str, comparison: Comparison, files: Mapping[str, Path]) -> str:
    """Log a comparison to the experiment that it compares.

    One run has the files, metrics with bounds that end in ``_low`` and ``_high``, and the verdicts as its description.
    Metrics are ``difference_<control>/<group>`` of MedContext, and by rung of the ladder ``dice_<rung>/<group>``,
    ``gain_<rung>_over_below_at_<steps or time>/<group>`` and the same over the baseline. For each setting they are
    ``worth_of_<n>_cases_<rung>/<setting>``, in labelled cases of the baseline, and
    ``doubling_<n>_cases_<rung>/<setting>``, in Dice; of other tools ``dice_of_predictions/<name>`` and
    ``difference_<rung>_to_predictions_<name>/<group>``. A later comparison of the experiment by the same names replaces
    it: in the same run or, since MLflow keeps metrics, in a new one if a group or control is gone; the old one is then
    moved to MLflow's trash.

    Args:
        client: client of the store.
        experiment_id: identifier of the experiment.
        comparison: the comparison.
        files: files from :func:`medcontext.comparison.page.write_comparison`.

    Returns:
        The run's identifier.

    Raises:
        ValueError: If MLflow does not accept it.
    """
    with mlflow_errors(client.tracking_uri):
        metrics = _metrics(comparison)
        run_id = _comparison_run(client, experiment_id, ",".join(comparison.group_by), metrics).info.run_id
        try:
            client.set_tag(run_id, MLFLOW_RUN_NOTE, _description(comparison))
            for start in range(0, len(metrics), METRICS_LIMIT):
                client.log_batch(run_id, metrics=metrics[start : start + METRICS_LIMIT])
            for path in files.values():
                client.log_artifact(run_id, str(path))
        except BaseException:
            client.set_terminated(run_id, RunStatus.to_string(RunStatus.FAILED))
            raise
        client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))
    return str(run_id)


def _comparison_run(client: MlflowClient, experiment_id: str, group_by: str, metrics: Sequence[Metric]) -> Run:
    """Return the run of an earlier comparison by the same names, or a new one."""
    earlier = client.search_runs([experiment_id], f"tags.`{KIND_TAG}` = '{COMPARISON}'")
    run = next((run for run in earlier if run.data.tags.get(_GROUP_BY_TAG) == group_by), None)
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
    values = chain(
        *(_metric_values(group, comparison.slug(group)) for group in comparison.groups),
        *(_worth_values(setting, slug) for slug, setting in comparison.few_shot.items()),
        ((f"dice_of_predictions/{others.name}", others.mean_dice) for others in comparison.predictions),
        *(
            _bounds(f"difference_{lead.rung.key}_to_predictions_{lead.name}/{comparison.slug(group)}", lead.difference)
            for group, lead in comparison.leads
        ),
    )
    return [Metric(name, value, now, 0) for name, value in values if math.isfinite(value)]


def _metric_values(group: Group, slug: str) -> Iterator[tuple[str, float]]:
    """Yield names and values of a group's metrics."""
    for rung, subject in group.subjects.items():
        for control, result in subject.results.items():
            plain = rung is Rung.MEDCONTEXT
            name = f"difference_{control.replace(' ', '_')}" if plain else f"difference_unlabeled_{control.key}"
            yield from _bounds(f"{name}/{slug}", result.mean)
    for step in group.ladder.steps:
        yield f"dice_{step.rung.key}/{slug}", step.mean_dice
        for basis in Basis:
            for over, gain in (("below", step.over_below(basis)), ("baseline", step.over_baseline(basis))):
                if gain is not None:
                    yield from _bounds(f"gain_{step.rung.key}_over_{over}_at_{basis.key}/{slug}", gain.mean)


def _worth_values(setting: FewShot, slug: str) -> Iterator[tuple[str, float]]:
    """Yield names and values of a setting's metrics."""
    for worth in setting.efficiency.worths:
        yield from _bounds(f"worth_of_{worth.cases}_cases_{worth.rung.key}/{slug}", worth.equal_within_reach)
        yield from _bounds(f"doubling_{worth.cases}_cases_{worth.rung.key}/{slug}", worth.doubling)


def _bounds(name: str, bounds: tuple[float, float, float]) -> Iterator[tuple[str, float]]:
    return ((f"{name}{ending}", value) for ending, value in zip(("", "_low", "_high"), bounds, strict=True))


def _description(comparison: Comparison) -> str:
    """Return the sentences as Markdown, shortened to the length of a tag."""
    groups = (f"- **{group.title}: {group.verdict}.** {group.explanation}" for group in comparison.groups)
    settings = comparison.few_shot.values()
    worths = (
        f"- **{each.title}.** {' '.join(sentences)}" for each in settings if (sentences := each.efficiency.sentences)
    )
    text = "\n".join((*groups, *worths, *(f"- {sentence}" for sentence in prediction_sentences(comparison))))
    return text if len(text) <= _NOTE_LIMIT else f"{text[: _NOTE_LIMIT - 40]}…\n\nThe rest is in comparison.html."
