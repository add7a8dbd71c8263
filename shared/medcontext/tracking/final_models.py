"""Final models of cross-validations in MLflow."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import RunStatus

from medcontext.networks.model_file import MODEL_FILE
from medcontext.tracking.identity import read_identity, write_identity
from medcontext.tracking.operations import (
    description_operation,
    file_operation,
    metrics_operations,
    model_operation,
    note_operations,
    send,
    status_operation,
)
from medcontext.tracking.outbox import reach

__all__ = ["FINAL_MODEL", "KIND_TAG", "log_final_model"]

KIND_TAG = "medcontext.kind"
"""Tag of runs that trained nothing, which are not compared."""
FINAL_MODEL = "final_model"


def log_final_model(
    *,
    tracking_uri: str,
    experiment_name: str,
    ckpt_dir: Path,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    report: Path,
    note: str,
    model: Mapping[str, Any] | None = None,
) -> None:
    """Log the estimate of a final model to its run in MLflow, which is created if there is none yet.

    Evaluations of the model join this run.

    Args:
        tracking_uri: database or server.
        experiment_name: MLflow experiment of the cross-validation.
        ckpt_dir: folder of the weights, with ``run.json``.
        tags: tags of a new run.
        metrics: metrics of the estimate; NaN is left out.
        report: folder that is uploaded as ``cross_validation``.
        note: description of a new run.
        model: arguments of :func:`~medcontext.tracking.models.log_model` without the weights; ``None`` logs no model.

    Raises:
        TrackingError: If MLflow is unreachable or fails.
    """
    client, identity, now = MlflowClient(tracking_uri), read_identity(ckpt_dir), int(time.time() * 1000)
    operations = metrics_operations((name, value, now, 0) for name, value in metrics.items() if math.isfinite(value))
    operations.append(file_operation(report, "cross_validation"))
    with reach(tracking_uri, timeout=None):
        run_id = identity.get("mlflow_run_id")
        if run_id is None:
            run_id = _new_run(client, experiment_name, identity["run_name"])
            write_identity(ckpt_dir, **identity, mlflow_run_id=run_id)
            operations += note_operations({}, {KIND_TAG: FINAL_MODEL, **tags})
            operations += [description_operation(note), status_operation(RunStatus.FINISHED)]
        if model is not None:
            operations.append(model_operation(model, ckpt_dir / MODEL_FILE))
        for operation in operations:
            send(client, run_id, operation)


def _new_run(client: MlflowClient, experiment_name: str, run_name: str) -> str:
    experiment = client.get_experiment_by_name(experiment_name)
    experiment_id = client.create_experiment(experiment_name) if experiment is None else experiment.experiment_id
    return str(client.create_run(experiment_id, run_name=run_name).info.run_id)
