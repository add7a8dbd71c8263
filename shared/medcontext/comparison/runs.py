"""Training runs and their evaluations in MLflow."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from tqdm import tqdm

from medcontext.comparison.store import mlflow_errors
from medcontext.engines import TrainingMode
from medcontext.metrics import summarise
from medcontext.storage.addresses import without_password
from medcontext.storage.json_files import read_json
from medcontext.storage.tables import read_csv_text
from medcontext.text import printable
from medcontext.tracking.final_models import KIND_TAG
from medcontext.tracking.operations import read_inputs

__all__ = ["COMPARISON", "KIND_TAG", "TIME_TOLERANCE", "TrackedRun", "read_runs", "settings_root"]

TIME_TOLERANCE = 0.1
"""Share by which measured times may differ and count as equal."""

COMPARISON = "comparison"
_PREFIX = "medcontext."
_REQUIRED_TAGS = ("bundle", "dataset", "data_hash", "fold", "seed", "steps")
_TABLE_FILE, _CONFIG_FILE = "evaluation/metrics.csv", "train_config.json"


@dataclass(frozen=True, eq=False)
class TrackedRun:
    """One training run, evaluated or not.

    Attributes:
        id: MLflow's identifier.
        name: the run's name.
        status: MLflow's status, such as ``FINISHED``.
        end_time: time when it finished, in ms since 1970; 0 if it has not.
        tags: tags ``medcontext.*`` without their prefix.
        params: the logged hyperparameters.
        metrics: the latest value of each metric.
        inputs: digest and number of cases of the data, by section (``training``, ``test``).
        config: the configuration of the training run as written; empty if it was not kept.
        table: one row per test case and label, see :func:`medcontext.metrics.case_metrics`; empty without evaluation.
        problem: why the run cannot be compared; empty if it can.
    """

    id: str
    name: str
    status: str
    end_time: int
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    inputs: Mapping[str, tuple[tuple[str, int | None], ...]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    problem: str = ""

    @property
    def mode(self) -> str:
        """One of :class:`~medcontext.engines.TrainingMode`."""
        return self.tags.get("mode", "")

    @property
    def steps(self) -> int:
        """Length of the training run in iterations."""
        return int(self.tags["steps"])

    @property
    def unit(self) -> tuple[str, str]:
        """Fold and seed, which distinguish repetitions of a training run."""
        return self.tags["fold"], self.tags["seed"]

    @property
    def unlabeled_hash(self) -> str:
        """Hash of the cases without labels; empty if there are none."""
        return self.tags.get("unlabeled_hash", "")

    @property
    def num_cases(self) -> int | None:
        """Number of training cases, if it was logged."""
        return self._count("training")

    @property
    def num_validation(self) -> int:
        """Number of labelled cases for validation beside these, if it was logged."""
        return self._count("validation") or 0

    @property
    def num_labelled(self) -> int | None:
        """Number of labelled cases, those for validation included, if it was logged."""
        return None if self.num_cases is None else self.num_cases + self.num_validation

    def _count(self, section: str) -> int | None:
        counts = {count for _, count in self.inputs.get(section, ())}
        return counts.pop() if len(counts) == 1 else None

    def time_ratio(self, other: TrackedRun) -> float:
        """Return the measured training time of another run as a share of this one's, NaN if it was not logged.

        It excludes validation, and is processor time if both runs have it, which ignores other load of the machine.
        """
        for name in ("train_processor_seconds", "train_seconds"):
            ours, theirs = self.metrics.get(name, math.nan), other.metrics.get(name, math.nan)
            if ours > 0 and math.isfinite(theirs):
                return theirs / ours
        return math.nan

    def equal_time(self, other: TrackedRun) -> bool:
        """Return whether the two trained for the same measured time, within 10 %."""
        ratio = self.time_ratio(other)
        return ratio > 0 and round(max(ratio, 1 / ratio) - 1, 9) <= TIME_TOLERANCE

    @cached_property
    def mean_dice(self) -> float:
        """Mean over the labels of each label's mean Dice over the test cases."""
        return summarise(self.table, resamples=1).mean_dice

    @cached_property
    def settings(self) -> dict[str, str]:
        """Hyperparameters, and leaves of the configuration by id for those that are not plain numbers or text."""
        plain = {settings_root(name) for name in self.params}
        leaves = {name: text for name, text in _leaves(self.config) if settings_root(name) not in plain}
        return {**self.params, **leaves}

    @property
    def key(self) -> dict[str, str]:
        """Properties that a MedContext run and its control have in common, by their names for users."""
        names = {"bundle": "bundle", "dataset": "dataset", "data_hash": "training or validation cases"}
        common = {shown: self.tags[tag] for tag, shown in names.items()}
        tested = sorted(digest for digest, _ in self.inputs.get("test", ()))
        return {**common, "test cases": " ".join(tested), "fold": self.tags["fold"], "seed": self.tags["seed"]}


def settings_root(name: str) -> str:
    """Return the top-level key of the configuration for a setting."""
    return re.split(r"[.#]", name)[0]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of a configuration as text by their id, without handlers, which only observe, and comments."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield name, str(value)
        return
    for key, item in items:
        if key not in ("handlers", "_desc_"):
            yield from _leaves(item, f"{name}#{key}" if name else str(key))


def read_runs(client: MlflowClient, experiment_id: str) -> list[TrackedRun]:
    """Read all runs of an experiment except comparisons and final models, with the tables of those that were evaluated.

    Args:
        client: client of the store.
        experiment_id: identifier of the experiment.

    Returns:
        The runs, oldest first; those that cannot be compared say why.

    Raises:
        ValueError: If the store fails.
    """
    with mlflow_errors(client.tracking_uri), tempfile.TemporaryDirectory() as folder:
        runs = list(_search(client, experiment_id))
        return [_read(client, run, Path(folder)) for run in tqdm(runs, desc="reading runs", unit="run", disable=None)]


def _search(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs([experiment_id], order_by=["attributes.start_time ASC"], page_token=token)
        yield from (run for run in page if KIND_TAG not in run.data.tags)
        token = page.token
        if not token:
            return


def _read(client: MlflowClient, run: Run, folder: Path) -> TrackedRun:
    tags = {name.removeprefix(_PREFIX): text for name, text in _printed(run.data.tags) if name.startswith(_PREFIX)}
    content: dict[str, Any] = {
        "id": run.info.run_id,
        "name": printable(run.info.run_name or run.info.run_id),
        "status": run.info.status,
        "end_time": run.info.end_time or 0,
        "tags": tags,
        "params": dict(_printed(run.data.params)),
        "metrics": run.data.metrics,
        "inputs": _inputs(run),
    }
    problem = _problem(run, tags)
    if problem:
        return TrackedRun(**content, problem=problem)
    try:
        files = get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)
        content["table"] = _read_table(_fetch(files, _TABLE_FILE, folder / run.info.run_id))
        content["config"] = _read_config(_fetch(files, _CONFIG_FILE, folder / run.info.run_id))
    except ValueError as error:
        problem = str(error)
    except (MlflowException, OSError, ImportError) as error:  # unreachable files of one run affect no other
        problem = f"its files cannot be read: {' '.join(without_password(str(error)).split())[:200]}"
    return TrackedRun(**content, problem=problem)


def _printed(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield names and texts, which whoever may write to the store chose."""
    for name, text in texts.items():
        yield printable(name), printable(text)


def _inputs(run: Run) -> dict[str, tuple[tuple[str, int | None], ...]]:
    """Return digest and number of cases of the run's data, by section."""
    inputs: dict[str, tuple[tuple[str, int | None], ...]] = {}
    for section, digest, count in read_inputs(run.inputs):
        inputs[section] = (*inputs.get(section, ()), (digest, count))
    return inputs


def _problem(run: Run, tags: Mapping[str, str]) -> str:
    """Say why a run cannot be compared, as far as can be seen without its files."""
    if "mode" not in tags:
        return "it is not a training run of a bundle: it has no tag medcontext.mode"
    if tags["mode"] not in list(TrainingMode):
        return f"its mode {tags['mode']!r} is none of {', '.join(TrainingMode)}"
    if run.info.status != "FINISHED":
        return f"its status is {run.info.status}"
    missing = [f"medcontext.{name}" for name in _REQUIRED_TAGS if name not in tags]
    if missing:
        return f"it has no tag {', '.join(missing)}"
    if not tags["steps"].isdigit() or tags["steps"] == "0":
        return f"its tag medcontext.steps is not a number of steps but {tags['steps']!r}"
    if failed := int(run.data.metrics.get("test_failed_cases", 0)):
        return f"{failed} of its test cases failed in the evaluation: repair those in failures.csv and evaluate again"
    trained = {metric.key: metric.step for metric in run.data.to_proto().metrics}.get("train_seconds")
    if trained is not None and trained != int(tags["steps"]):
        return f"it trained {trained} steps, although its tag medcontext.steps says {tags['steps']}"
    return ""


def _fetch(files: ArtifactRepository, path: str, folder: Path) -> Path | None:
    """Download a file of a run; ``None`` if there is none."""
    if path not in {item.path for item in files.list_artifacts(path.rpartition("/")[0] or None)}:
        return None
    folder.mkdir(exist_ok=True)
    return Path(files.download_artifacts(path, str(folder)))


def _read_table(path: Path | None) -> pd.DataFrame:
    if path is None:
        raise ValueError(f"it has no {_TABLE_FILE}: run evaluate.json with its checkpoint")
    try:
        table = pd.read_csv(path, dtype={"case": str, "label": str})  # a name may look like a number: 12345e678901
        table["case"] = read_csv_text(table["case"]).map(printable, na_action="ignore")
        summarise(table, resamples=1)
        table["label"] = table["label"].map(printable)
    except ValueError as error:
        raise ValueError(f"its {_TABLE_FILE} cannot be used: {error}") from error
    return table


def _read_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = read_json(path, finite=False)
    except ValueError as error:
        raise ValueError(f"its {_CONFIG_FILE} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"its {_CONFIG_FILE} holds no configuration")
    return content
