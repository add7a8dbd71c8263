"""One MLflow run for training, validation, resumed training and evaluation."""

from __future__ import annotations

import importlib
import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from ignite.engine import Engine, Events
from mlflow.entities import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from monai.handlers import MLFlowHandler

from medcontext.engines.trainer import MedContextEvents, MedContextTrainer
from medcontext.handlers.step_values import train_metrics

__all__ = ["RUN_FILE", "MLflowTracker"]

RUN_FILE = "mlflow_run.json"
"""Beside the checkpoint: names the MLflow run that it came from."""

logger = logging.getLogger(__name__)

BATCH = 1000  # MLflow's limit of metrics in one request


class MLflowTracker(MLFlowHandler):
    """Log a run's metrics, parameters, tags and files under the names that ``medcontext compare`` reads.

    Training writes the run's identity to ``<ckpt_dir>/mlflow_run.json``; a resumed training or an evaluation that finds
    the file joins that run, where MONAI's handler would open a new one. Step values are collected and sent at the end
    of each epoch; what cannot be sent is kept and tried again. A training that ends by an exception is marked
    ``FAILED``, by Ctrl-C ``KILLED``; an evaluation leaves the status of the training that it joins as it was.

    Attach it to the trainer (and name the ``validator``), or to the evaluator of a test set.

    Args:
        ckpt_dir: folder of the checkpoints.
        tracking_uri: database or server; the environment variable ``MLFLOW_TRACKING_URI`` takes precedence.
        experiment_name: MLflow experiment, created when it is not there.
        run_name: name of a new run.
        tags: tags of the run.
        params: parameters of the run; those already logged are left alone.
        artifacts: a file or folder to upload when the engine is done.
        artifact_path: folder of the run's artifacts that a folder goes to; its own name if ``None``.
        dataset: name of the data, under which the cases are logged as the run's inputs.
        cases: by section, as :func:`medcontext.data.describe_cases` gives them: their hash becomes a dataset input of
            the run, their list the file ``cases/<section>.json``.
        validator: engine whose metrics are logged along with the trainer's.
        join: join the run named beside the checkpoints, if there is one; a new training must not.
    """

    def __init__(
        self,
        ckpt_dir: str,
        *,
        tracking_uri: str | None,
        experiment_name: str,
        run_name: str,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        artifacts: str | None = None,
        artifact_path: str | None = None,
        dataset: str = "cases",
        cases: Mapping[str, Mapping[str, Any]] | None = None,
        validator: Engine | None = None,
        join: bool = True,
    ) -> None:
        super().__init__(
            tracking_uri=tracking_uri,
            experiment_name=experiment_name,
            run_name=run_name,
            artifacts=artifacts,
        )
        self.run_file = Path(ckpt_dir) / RUN_FILE
        self.tags = {name: str(value) for name, value in (tags or {}).items()}
        self.params = {name: str(value)[:500] for name, value in (params or {}).items()}
        self.artifact_path = artifact_path
        self.dataset = dataset
        self.cases = dict(cases or {})
        self.validator = validator
        self.join = join
        self.step = 0
        self._status_before: str | None = None
        self._pending: list[Metric] = []
        self._step_started = 0.0
        self._train_seconds = 0.0

    def attach(self, engine: Engine) -> None:
        """Subscribe to the engine, and to the validator if there is one."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.COMPLETED, self._complete)
        if not isinstance(engine, MedContextTrainer):
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._exception)
            return
        engine.add_event_handler(Events.ITERATION_STARTED, self._start_step)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(MedContextEvents.RUN_ABORTED, self._aborted)
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, self._validated)

    def start(self, engine: Engine) -> None:
        """Open a run, or join the one named beside the checkpoint."""
        self._set_experiment()
        self.cur_run = (self._known_run() if self.join else None) or self._new_run(
            isinstance(engine, MedContextTrainer)
        )
        run_id = self.cur_run.info.run_id
        self._status_before = self.cur_run.info.status
        self.client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        known = self.client.get_run(run_id).data
        self._train_seconds = known.metrics.get("train_seconds", 0.0)
        params = [Param(name, value) for name, value in self.params.items() if name not in known.params]
        tags = [RunTag(name, value) for name, value in self.tags.items() if name not in known.tags]
        for i in range(0, max(len(params), 1), 100):
            self.client.log_batch(run_id, params=params[i : i + 100], tags=tags if i == 0 else [])
        self._log_cases(run_id)

    def _log_cases(self, run_id: str) -> None:
        for section, content in self.cases.items():
            profile = json.dumps({"num_cases": len(content["cases"])})
            data = Dataset(self.dataset, content["hash"], "local", json.dumps({"uri": self.dataset}), profile=profile)
            context = InputTag(MLFLOW_DATASET_CONTEXT, section)
            self.client.log_inputs(run_id, [DatasetInput(data, [context])])
            self.client.log_dict(run_id, dict(content), f"cases/{section}.json")

    def _known_run(self) -> Any:
        if not self.run_file.is_file():
            return None
        try:
            run_id = json.loads(self.run_file.read_text())["run_id"]
        except (ValueError, KeyError, TypeError):
            logger.warning("%s names no MLflow run; a new one is opened.", self.run_file)
            return None
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return None  # the checkpoint came from another machine's database
            raise
        return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None

    def _new_run(self, training: bool) -> Any:
        run = self.client.create_run(self.experiment.experiment_id, run_name=self.run_name)
        if training:
            self.run_file.parent.mkdir(parents=True, exist_ok=True)
            self.run_file.write_text(json.dumps({"run_id": run.info.run_id, "run_name": self.run_name}, indent=4))
        return run

    def _start_step(self) -> None:
        self._step_started = time.perf_counter()

    def iteration_completed(self, engine: Engine) -> None:
        """Collect the values of one training step."""
        self.step = engine.state.iteration
        seconds = time.perf_counter() - self._step_started
        self._train_seconds += seconds
        self._collect({**train_metrics(engine), "step_seconds": seconds})

    def _epoch_completed(self) -> None:
        """Log what training has cost so far, and send."""
        self._collect({"train_seconds": self._train_seconds, "peak_memory_mib": _peak_memory_mib()})
        self.flush()

    def _validated(self, engine: Engine) -> None:
        self._collect(_scalars(engine.state.metrics))

    def _collect(self, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._pending += [Metric(name, value, now, self.step) for name, value in values.items()]

    def flush(self) -> None:
        """Send what was collected."""
        try:
            while self._pending and self.cur_run is not None:
                self.client.log_batch(self.cur_run.info.run_id, metrics=self._pending[:BATCH])
                del self._pending[:BATCH]
        except MlflowException as error:
            logger.warning(
                "MLflow did not take %d values (%s); they are kept and sent later.", len(self._pending), error
            )

    def _complete(self, engine: Engine) -> None:
        if isinstance(engine, MedContextTrainer):
            self._finish(RunStatus.FINISHED)
            return
        self._collect(_scalars(engine.state.metrics))
        self._finish(self._joined_status(RunStatus.FINISHED))

    def _joined_status(self, own: int) -> int:
        """The status of the training that an evaluation joined, else the evaluation's own."""
        before = RunStatus.from_string(self._status_before)
        return int(before) if RunStatus.is_terminated(before) else own

    def _finish(self, status: int) -> None:
        self.flush()
        if self.cur_run is None:
            return
        for path in filter(None, self.artifacts):
            if Path(path).is_dir():
                self.client.log_artifacts(
                    self.cur_run.info.run_id, str(path), artifact_path=self.artifact_path or Path(path).name
                )
            elif Path(path).is_file():
                self.client.log_artifact(self.cur_run.info.run_id, str(path))
        self.client.set_terminated(self.cur_run.info.run_id, RunStatus.to_string(status))
        self.cur_run = None
        self._dispose_sqlite_store()

    def _aborted(self, engine: Engine) -> None:
        killed = isinstance(engine.state.exception, KeyboardInterrupt)
        self._finish(RunStatus.KILLED if killed else RunStatus.FAILED)

    def _exception(self, _engine: Engine, error: Exception) -> None:
        self._finish(self._joined_status(RunStatus.FAILED))
        raise error


def _peak_memory_mib() -> float:
    """The most memory that PyTorch has held on the GPU, or without one this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return float(memory.peak_wset) / 2**20
    resource = importlib.import_module("resource")
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit) / 2**20


def _scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    return {name: float(value) for name, value in numbers.items() if not math.isnan(float(value))}
