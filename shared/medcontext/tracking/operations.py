"""Records for MLflow as plain values, which a file can keep, and their sending."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunInputs, RunStatus, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_RUN_NOTE

from medcontext.tracking.models import log_model

__all__ = [
    "FILE_KINDS",
    "KEPT_KINDS",
    "METRICS_LIMIT",
    "Operation",
    "clean_key",
    "description_operation",
    "file_operation",
    "input_operation",
    "metrics_operations",
    "model_operation",
    "note_operations",
    "read_inputs",
    "send",
    "status_operation",
    "text_operation",
]

Operation = dict[str, Any]
Point = tuple[str, float, int, int]
"""Point of a metric: key, value, time in milliseconds and step."""

METRICS_LIMIT = 1000
"""Maximum number of points in one request."""
NOTES_LIMIT = 100
KEY_LENGTH, PARAM_LENGTH, TAG_LENGTH = 250, 6000, 8000
FILE_KINDS = {"text", "file", "model"}


def clean_key(key: str) -> str:
    """Return a name that MLflow allows: at most 250 letters, digits, spaces and ``_ - . / :``.

    Example:
        >>> clean_key("network_def.norm=('instance')")
        'network_def.norm___instance__'
    """
    return re.sub(r"[^/\w.\- :]", "_", key)[:KEY_LENGTH]


def metrics_operations(points: Iterable[Point]) -> list[Operation]:
    """Return operations that log points of metrics, none of more than :data:`METRICS_LIMIT` points."""
    rows = [[clean_key(key), *rest] for key, *rest in points]
    return [{"kind": "metrics", "points": rows[i : i + METRICS_LIMIT]} for i in range(0, len(rows), METRICS_LIMIT)]


def note_operations(params: Mapping[str, Any], tags: Mapping[str, Any]) -> list[Operation]:
    """Return operations that log parameters and tags, within MLflow's limits of length and number."""
    kinds = (("params", params, PARAM_LENGTH), ("tags", tags, TAG_LENGTH))
    operations = []
    for kind, notes, length in kinds:
        rows = list({clean_key(key): str(value)[:length] for key, value in notes.items()}.items())
        chunks = (dict(rows[start : start + NOTES_LIMIT]) for start in range(0, len(rows), NOTES_LIMIT))
        operations += [{"kind": kind, "notes": chunk} for chunk in chunks]
    return operations


def input_operation(name: str, digest: str, num_cases: int, context: str) -> Operation:
    """Return an operation that logs a dataset as an input of a run."""
    return {"kind": "input", "name": name, "digest": digest, "num_cases": num_cases, "context": context}


def text_operation(text: str, file: str) -> Operation:
    """Return an operation that logs a text as an artifact."""
    return {"kind": "text", "text": text, "file": file}


def file_operation(path: str | Path, folder: str | None = None) -> Operation:
    """Return an operation that logs a file or a folder as artifacts in ``folder``."""
    return {"kind": "file", "path": str(Path(path).absolute()), "folder": folder}


def model_operation(model: Mapping[str, Any], weights: str | Path) -> Operation:
    """Return an operation that logs a trained network, see :func:`~medcontext.tracking.models.log_model`."""
    return {"kind": "model", **model, "weights": str(Path(weights).absolute())}


def status_operation(status: int) -> Operation:
    """Return an operation that sets the status of a run, one of ``RunStatus``, with the present time."""
    return {"kind": "status", "status": RunStatus.to_string(status), "time": int(time.time() * 1000)}


def description_operation(text: str) -> Operation:
    """Return an operation that sets the description of a run, in Markdown."""
    return {"kind": "description", "text": text[:TAG_LENGTH]}


def send(client: MlflowClient, run_id: str, operation: Operation) -> None:
    """Send an operation to MLflow; sending it twice is harmless."""
    _SENDERS[operation["kind"]](client, run_id, operation)


def _send_metrics(client: MlflowClient, run_id: str, operation: Operation) -> None:
    client.log_batch(run_id, metrics=[Metric(*point) for point in operation["points"]])


def _send_params(client: MlflowClient, run_id: str, operation: Operation) -> None:
    client.log_batch(run_id, params=[Param(*note) for note in operation["notes"].items()])


def _send_tags(client: MlflowClient, run_id: str, operation: Operation) -> None:
    client.log_batch(run_id, tags=[RunTag(*note) for note in operation["notes"].items()])


def _send_input(client: MlflowClient, run_id: str, operation: Operation) -> None:
    profile = json.dumps({"num_cases": operation["num_cases"]})
    source = json.dumps({"uri": operation["name"]})
    data = Dataset(operation["name"], operation["digest"], "local", source, profile=profile)
    client.log_inputs(run_id, [DatasetInput(data, [InputTag(MLFLOW_DATASET_CONTEXT, operation["context"])])])


def read_inputs(inputs: RunInputs | None) -> Iterator[tuple[str, str, int | None]]:
    """Yield section, digest and number of cases of a run's inputs, as :func:`input_operation` logs them."""
    for item in inputs.dataset_inputs if inputs else ():
        section = next((tag.value for tag in item.tags if tag.key == MLFLOW_DATASET_CONTEXT), "")
        yield section, item.dataset.digest, json.loads(item.dataset.profile or "{}").get("num_cases")


def _send_text(client: MlflowClient, run_id: str, operation: Operation) -> None:
    client.log_text(run_id, operation["text"], operation["file"])


def _send_description(client: MlflowClient, run_id: str, operation: Operation) -> None:
    """Replace the description, unless a user has edited it."""
    earlier, text = client.get_run(run_id).data.tags.get(MLFLOW_RUN_NOTE), operation["text"]
    if earlier is None or earlier.split(",")[0] == text.split(",")[0]:
        client.set_tag(run_id, MLFLOW_RUN_NOTE, text)


def _send_file(client: MlflowClient, run_id: str, operation: Operation) -> None:
    path = Path(operation["path"])
    if path.is_dir():
        client.log_artifacts(run_id, str(path), artifact_path=operation["folder"])
    elif path.is_file():
        client.log_artifact(run_id, str(path), artifact_path=operation["folder"])
    else:
        raise FileNotFoundError(f"{path} no longer exists.")


def _send_status(client: MlflowClient, run_id: str, operation: Operation) -> None:
    if operation["status"] == RunStatus.to_string(RunStatus.RUNNING):
        client.update_run(run_id, status=operation["status"])
    else:
        client.set_terminated(run_id, operation["status"], end_time=operation["time"])


_SENDERS: dict[str, Callable[[MlflowClient, str, Operation], None]] = {
    "metrics": _send_metrics,
    "params": _send_params,
    "tags": _send_tags,
    "input": _send_input,
    "text": _send_text,
    "file": _send_file,
    "status": _send_status,
    "description": _send_description,
    "model": log_model,
}
KEPT_KINDS = _SENDERS.keys() - {"model"}
"""Kinds of records that a file may keep: a model holds code, which is only taken from a configuration."""
