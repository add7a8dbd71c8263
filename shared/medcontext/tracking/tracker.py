"""One MLflow run for training, validation, resumed training and evaluation."""

from __future__ import annotations

import importlib
import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from ignite.engine import Engine, Events
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from monai.handlers import MLFlowHandler

from medcontext.engines.trainer import MedContextEvents, MedContextTrainer
from medcontext.handlers.checkpoints import MODEL_FILE
from medcontext.handlers.step_values import engine_metrics, train_metrics
from medcontext.tracking.address import resolve_tracking_uri, without_tracking_variable
from medcontext.tracking.identity import read_identity, write_identity
from medcontext.tracking.operations import (
    PARAM_LENGTH,
    Operation,
    Point,
    clean_key,
    description_operation,
    file_operation,
    input_operation,
    metrics_operations,
    model_operation,
    note_operations,
    status_operation,
    text_operation,
)
from medcontext.tracking.outbox import Outbox, reach, send_unsent, unsent_file
from medcontext.tracking.presentation import EXPERIMENT_KIND, case_counts, chart_name, describe_run
from medcontext.tracking.run_context import context_tags
from medcontext.tracking.system_metrics import SystemMonitor

__all__ = ["MLflowTracker", "check_tracking"]

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"
"""In the folder of an evaluation."""
WAIT_AT_THE_START = 10.0
"""Seconds to wait, at most, until the parameters of a run are logged."""
WAIT_AFTER_ABORT = 10.0
"""Seconds to wait, at most, for a server that is away when a run breaks off: who kills it does not wait for long."""


class MLflowTracker(MLFlowHandler):
    """Log a run's metrics, parameters, tags and files under the names that ``medcontext compare`` reads.

    A training run adds its MLflow id to ``<ckpt_dir>/run.json``; a resumed one, or an evaluation, that finds it there
    joins that run, where MONAI's handler would open a new one. All but the opening of the run is sent in the
    background (:class:`~medcontext.tracking.outbox.Outbox`), step values at the end of each epoch; what MLflow
    does not take is kept beside the checkpoints, and sent by whatever joins the run next. A training that ends by an
    exception is marked ``FAILED``, by Ctrl-C or SIGTERM ``KILLED``; an evaluation that joins a training leaves its
    status as it is.

    Steps that are trained again after a crash keep the values that they were logged with first. A resumed training
    renews tags; parameters, which MLflow never changes, keep their first value, and the new one becomes the tag
    ``resumed.<parameter>``. The tag ``medcontext.resumed_at_step`` lists the steps after which training was taken up
    again.

    Attach it to the trainer (and name the ``validator``), or to the evaluator of a test set.

    Args:
        ckpt_dir: folder of the checkpoints.
        tracking_uri: database or server, see :func:`~medcontext.tracking.resolve_tracking_uri`.
        experiment_name: MLflow experiment, created when it is not there.
        run_name: name of a new run.
        tags: tags of the run.
        params: parameters of the run.
        configs: files to upload when the run opens.
        figures: a folder whose files are uploaded under its name when they appear.
        artifacts: a file or folder to upload when the engine is done.
        artifact_path: folder of the run's artifacts that a folder goes to; its own name if ``None``.
        dataset: name of the data, under which the cases are logged as the run's inputs.
        cases: by section, as :func:`medcontext.data.describe_cases` gives them: their hash becomes a dataset input of
            the run, their list the file ``cases/<section>.json``.
        validator: engine whose metrics are logged along with the trainer's.
        join: join the run named beside the checkpoints, if there is one; a new training must not.
        system_metrics: whether to sample the load of the machine every ten seconds of training.
        model: log the best network as an MLflow model at the end, see
            :func:`~medcontext.tracking.models.log_model`; all but ``weights``, which are those in ``ckpt_dir``.
        wait: seconds to wait at the end for MLflow where it does not answer.

    Raises:
        ValueError: When ``wait`` is negative.
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
        configs: Sequence[str] = (),
        figures: str | None = None,
        artifacts: str | None = None,
        artifact_path: str | None = None,
        dataset: str = "cases",
        cases: Mapping[str, Mapping[str, Any]] | None = None,
        validator: Engine | None = None,
        join: bool = True,
        system_metrics: bool = False,
        model: Mapping[str, Any] | None = None,
        wait: float = 60.0,
    ) -> None:
        if wait < 0:
            raise ValueError(f"tracking_wait must be 0 or more seconds, got {wait}.")
        uri = resolve_tracking_uri(tracking_uri)
        with without_tracking_variable():
            super().__init__(tracking_uri=uri, experiment_name=experiment_name, run_name=run_name, artifacts=artifacts)
        self.ckpt_dir = Path(ckpt_dir)
        self.tags = dict(tags or {})
        self.params = dict(params or {})
        self.configs = tuple(configs)
        self.figures = None if figures is None else Path(figures)
        self.artifact_path = artifact_path
        self.dataset = dataset
        self.cases = dict(cases or {})
        self.validator = validator
        self.join = join
        self.system_metrics = system_metrics
        self.model = model
        self.wait = wait
        self.step = 0
        self.outbox: Outbox | None = None
        self._monitor: SystemMonitor | None = None
        self._owns_status = True
        self._points: list[Point] = []
        self._last_steps: dict[str, int] = {}
        self._drawn: set[Path] = set()
        self._step_started = 0.0
        self._train_seconds = 0.0
        self._latest: dict[str, float] = {}

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
        """Open a run, or join the one named beside the checkpoint.

        Raises:
            TrackingError: When MLflow does not answer.
        """
        training = isinstance(engine, MedContextTrainer)
        uri = str(self.client.tracking_uri)
        with reach(uri):
            self._set_experiment()
            if EXPERIMENT_KIND[0] not in self.experiment.tags:
                self.client.set_experiment_tag(self.experiment.experiment_id, *EXPERIMENT_KIND)
            known = self._known_run() if self.join else None
        if known is not None:
            known = self._caught_up(known, uri)
        with reach(uri):
            self.cur_run = known or self.client.create_run(self.experiment.experiment_id, run_name=self.run_name)
        run_id = self.cur_run.info.run_id
        self.outbox = Outbox(self.client, run_id, unsent_file(self.ckpt_dir, run_id), uri, ahead=training)
        self._owns_status = training or known is None
        if training:
            name = str(self.cur_run.info.run_name)
            write_identity(self.ckpt_dir, **{"run_name": name, **read_identity(self.ckpt_dir), "mlflow_run_id": run_id})
        self.outbox.put(*self._opening(engine, joined=known is not None))
        # MONAI's own handler, which --tracking mlflow adds, logs parameters next; both at once end in an error
        self.outbox.settle(WAIT_AT_THE_START)
        if training and self.system_metrics:
            self._start_monitor()

    def _opening(self, engine: Engine, *, joined: bool) -> list[Operation]:
        """What is to be said of a run when it opens."""
        known, training = self.cur_run.data, isinstance(engine, MedContextTrainer)
        self._train_seconds = known.metrics.get("train_seconds", 0.0)
        self._last_steps = {metric.key: metric.step for metric in known.to_proto().metrics} if training else {}
        tags = {**context_tags(), **self.tags} if self._owns_status else dict(self.tags)
        if not training:
            tags = {name: value for name, value in tags.items() if name not in known.tags}
        if training and joined:
            tags |= self._changes(known)
            steps = known.tags.get("medcontext.resumed_at_step")
            tags["medcontext.resumed_at_step"] = (
                f"{steps}, {engine.state.iteration}" if steps else engine.state.iteration
            )
        params = {name: value for name, value in self.params.items() if clean_key(name) not in known.params}
        operations = [status_operation(RunStatus.RUNNING)] if self._owns_status else []
        operations += note_operations(params, tags)
        operations.append(self._description())
        operations += [file_operation(path) for path in self.configs if Path(path).is_file()]
        for section, content in self.cases.items():
            operations.append(input_operation(self.dataset, content["hash"], len(content["cases"]), section))
            operations.append(text_operation(json.dumps(dict(content), indent=2), f"cases/{section}.json"))
        return operations

    def _description(self, report: str | None = None) -> Operation:
        """What the run is and has come to so far."""
        known, inputs = self.cur_run.data, self.cur_run.inputs
        counts = case_counts(inputs.dataset_inputs if inputs else ())
        counts |= {section: len(content["cases"]) for section, content in self.cases.items() if content["cases"]}
        tags = {**known.tags, **self.tags}
        return description_operation(describe_run(tags, counts, {**known.metrics, **self._latest}, report))

    def _changes(self, known: Any) -> dict[str, str]:
        """Tags for the parameters that have another value than the run was opened with."""
        now = {clean_key(name): str(value)[:PARAM_LENGTH] for name, value in self.params.items()}
        return {f"resumed.{name}": value for name, value in now.items() if known.params.get(name, value) != value}

    def _known_run(self) -> Any:
        """The run named beside the checkpoints."""
        run_id = read_identity(self.ckpt_dir).get("mlflow_run_id")
        if run_id is None:
            return None
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return None  # the checkpoint came from another machine's database
            raise
        return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None

    def _caught_up(self, run: Any, uri: str) -> Any:
        """The run with what was kept for it beside the checkpoints."""
        with reach(uri, timeout=None):
            sent = send_unsent(unsent_file(self.ckpt_dir, run.info.run_id), self.client)
            return self.client.get_run(run.info.run_id) if sent else run

    def _start_monitor(self) -> None:
        """Sample the machine from now on, counting on where an earlier process of the run stopped."""
        first = max((step for key, step in self._last_steps.items() if key.startswith("system/")), default=-1) + 1
        try:
            self._monitor = SystemMonitor(
                self._sampled,
                first=first,
                run_id=self.cur_run.info.run_id,
                tracking_uri=str(self.client.tracking_uri),  # or MLflow makes a database in the working directory
            )
        except Exception as error:  # no network device, say: not worth a training
            logger.warning("The machine's load cannot be sampled: %s", error)
        else:
            self._monitor.start()

    def _sampled(self, values: Mapping[str, float], number: int) -> None:
        now = _milliseconds()
        if self.outbox is not None:
            self.outbox.put(*metrics_operations((name, value, now, number) for name, value in values.items()))

    def _start_step(self) -> None:
        self._step_started = time.perf_counter()

    def iteration_completed(self, engine: Engine) -> None:
        """Collect the values of one training step."""
        self.step = engine.state.iteration
        seconds = time.perf_counter() - self._step_started
        self._train_seconds += seconds
        self._collect({**train_metrics(engine), "step_seconds": seconds})

    def _epoch_completed(self, engine: Engine) -> None:
        self._collect_costs()
        seconds = getattr(engine.state, "train_processor_seconds", math.nan)  # of a TrainingHistory
        if not math.isnan(seconds):
            self._collect({"train_processor_seconds": seconds})
        self.flush()

    def _collect_costs(self) -> None:
        """What training has cost so far."""
        self._collect({"train_seconds": self._train_seconds, "peak_memory_mib": _peak_memory_mib()})

    def _validated(self, engine: Engine) -> None:
        self._collect(_known(engine))

    def _collect(self, values: Mapping[str, float]) -> None:
        now = _milliseconds()
        self._latest |= values
        named = {chart_name(name): value for name, value in values.items()}
        new = {name: value for name, value in named.items() if self.step > self._last_steps.get(clean_key(name), -1)}
        self._points += [(name, value, now, self.step) for name, value in new.items()]

    def flush(self) -> None:
        """Hand what was collected and drawn to the outbox; nothing waits for it to be sent."""
        if self.outbox is None:
            return
        self.outbox.put(*metrics_operations(self._points))
        self._points = []
        if self.figures is not None and self.figures.is_dir():
            new = sorted(set(self.figures.iterdir()) - self._drawn)
            self.outbox.put(*(file_operation(path, self.figures.name) for path in new))
            self._drawn.update(new)

    def _complete(self, engine: Engine) -> None:
        if not isinstance(engine, MedContextTrainer):
            self._collect(_known(engine))
        self._finish(RunStatus.FINISHED, self.wait)

    def _aborted(self, engine: Engine) -> None:
        if self.step:
            self._collect_costs()
        self._break_off(engine.state.exception)

    def _exception(self, _engine: Engine, error: BaseException) -> None:
        self._break_off(error)
        raise error

    def _break_off(self, error: BaseException) -> None:
        killed = isinstance(error, (KeyboardInterrupt, SystemExit))
        self._finish(RunStatus.KILLED if killed else RunStatus.FAILED, min(self.wait, WAIT_AFTER_ABORT))

    def _finish(self, status: int, wait: float) -> None:
        if self.outbox is None:
            return
        if self._monitor is not None:
            self._monitor.finish()
        self.flush()
        for path in filter(None, self.artifacts):
            if Path(path).exists():
                folder = (self.artifact_path or Path(path).name) if Path(path).is_dir() else None
                self.outbox.put(file_operation(path, folder))
        if self.model is not None and status == RunStatus.FINISHED:
            self.outbox.put(model_operation(self.model, self.ckpt_dir / MODEL_FILE))
        folder = next(filter(None, self.artifacts), None)
        report = folder if folder is not None and (Path(folder) / REPORT_FILE).is_file() else None
        self.outbox.put(self._description(report))
        if self._owns_status:
            self.outbox.put(status_operation(status))
        sent = self.outbox.close(wait)
        self.outbox = self.cur_run = self._monitor = None
        if sent:
            self._dispose_sqlite_store()


def check_tracking(tracking_uri: str | None) -> None:
    """See within seconds whether MLflow answers, before a run has cost anything.

    Args:
        tracking_uri: as for :class:`MLflowTracker`.

    Raises:
        TrackingError: When it does not.
    """
    uri = resolve_tracking_uri(tracking_uri)
    with reach(str(uri)):
        MlflowClient(uri).search_experiments(max_results=1)


def _milliseconds() -> int:
    return int(time.time() * 1000)


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


def _known(engine: Engine) -> dict[str, float]:
    """An engine's metrics without NaN, which MLflow would show as a value."""
    return {name: value for name, value in engine_metrics(engine).items() if not math.isnan(value)}
