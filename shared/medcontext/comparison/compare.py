"""Comparison of an MLflow experiment's runs: reading, pairing, comparing, writing and logging."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import medcontext
from medcontext.comparison.page import Comparison, write_comparison
from medcontext.comparison.pairing import check_group_by, pair_runs
from medcontext.comparison.predictions import score_predictions
from medcontext.comparison.runs import TrackedRun, read_runs
from medcontext.comparison.store import connect, default_tracking_uri, find_experiment
from medcontext.comparison.tracking import log_comparison
from medcontext.comparison.verdicts import compare_group
from medcontext.engines import TrainingMode
from medcontext.storage.addresses import without_password
from medcontext.tracking import resolve_tracking_uri

__all__ = ["GROUP_BY", "compare_runs"]

GROUP_BY = ("architecture", "dataset", "train_fraction")


def compare_runs(
    experiment: str,
    output_dir: str | os.PathLike[str],
    *,
    group_by: Sequence[str] = GROUP_BY,
    tracking_uri: str | None = None,
    log_to_mlflow: bool = True,
    predictions: Sequence[str] = (),
    dataset_dir: str | None = None,
) -> Comparison:
    """Compare MedContext runs of an experiment with their controls, and all rungs of the ladder with one another.

    Args:
        experiment: name of the MLflow experiment.
        output_dir: folder for the files, see :func:`medcontext.comparison.page.write_comparison`.
        group_by: ``architecture``, ``dataset``, ``train_fraction``, or other tags and hyperparameters of the runs.
        tracking_uri: database or server; by default ``$MLFLOW_TRACKING_URI``, else ``mlruns.db`` of the home.
        log_to_mlflow: log the result to the experiment too, in place of an earlier one by the same names.
        predictions: label maps of other tools, see :func:`medcontext.comparison.predictions.score_predictions`.
        dataset_dir: folder of the dataset that they belong to, if the runs do not say where it is.

    Returns:
        The comparison.

    Raises:
        ValueError: If there is no such store, experiment or name, if there is nothing to compare, if predictions
            cannot be scored, or if MLflow fails.
        OSError: If ``output_dir`` cannot be written.
    """
    uri = str(resolve_tracking_uri(tracking_uri, default=default_tracking_uri()))
    client = connect(uri)
    found = find_experiment(client, experiment)
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    runs = read_runs(client, found.experiment_id)
    _check_comparable(experiment, runs)
    check_group_by(group_by, (run for run in runs if not run.problem))
    pairing = pair_runs(runs, group_by)
    groups = [
        compare_group(dict(zip(group_by, values, strict=True)), members) for values, members in pairing.groups.items()
    ]
    scored = score_predictions(predictions, runs, dataset_dir) if predictions else []
    comparison = Comparison(experiment, group_by, groups, runs, pairing.roles, _info(uri, group_by), scored)
    files = write_comparison(output_dir, comparison)
    if log_to_mlflow:
        try:
            log_comparison(client, found.experiment_id, comparison, files)
        except ValueError as error:
            raise ValueError(
                f"{error} (the comparison is in {output_dir}; if MLflow cannot be written to, give "
                "--log_to_mlflow False)"
            ) from error
    return comparison


def _check_comparable(experiment: str, runs: Sequence[TrackedRun]) -> None:
    if not runs:
        raise ValueError(f"The experiment {experiment!r} has no runs; train and evaluate some first.")
    if not any(run.mode != TrainingMode.BASELINE and not run.problem for run in runs):
        reasons = dict.fromkeys(f"{run.name}: {run.problem}" for run in runs if run.problem)
        more = f", and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        explained = f" ({'; '.join(list(reasons)[:3])}{more})" if reasons else ""
        raise ValueError(
            f"The experiment {experiment!r} has no run above the baseline that can be compared{explained}."
        )


def _info(uri: str, group_by: Sequence[str]) -> Mapping[str, str]:
    return {
        "grouped by": ", ".join(group_by),
        "runs from": without_password(uri),
        "compared": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "medcontext": medcontext.__version__,
    }
