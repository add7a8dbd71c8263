"""Logging of training, validation and evaluation to one MLflow run, also when training is resumed."""

from __future__ import annotations

import importlib
import json
import logging
import math
import re
import sys
import time
import uuid
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
from medcontext.handlers.step_values import engine_metrics, train_metrics
from medcontext.networks.model_file import MODEL_FILE, read_model_file
from medcontext.report.evaluation_page import REPORT_FILE
from medcontext.tracking.address import resolve_tracking_uri, without_tracking_variable
from medcontext.tracking.database import make_database
from medcontext.tracking.identity import RUN_FILE, read_identity, write_identity
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
    read_inputs,
    status_operation,
    text_operation,
)
from medcontext.tracking.outbox import Outbox, reach
from medcontext.tracking.presentation import EXPERIMENT_KIND, chart_name, describe_run
from medcontext.tracking.run_context import context_tags
from medcontext.tracking.system_metrics import SystemMonitor
from medcontext.tracking.unsent import send_unsent, unsent_file

__all__ = ["MLflowTracker", "check_tracking"]

logger = logging.getLogger(__name__)

START, START_TAG = "mlflow_start", "mlflow.medcontext.start"
"""Entry of ``run.json`` and tag of a run for a random text, while the run's id is not known yet."""
DATA_TAGS = ("medcontext.data_hash", "medcontext.unlabeled_hash")
"""Tags that tell the cases of a training run."""
WEIGHTS_TAG = "medcontext.weights"
"""Tag with the hash of the weights that a finished training run chose."""
WAIT_AT_THE_START = 10.0
"""Maximum number of seconds to wait until the parameters of a run are logged."""
WAIT_AFTER_ABORT = 10.0
"""Maximum number of seconds to wait for an unreachable server when a run is aborted, before a scheduler kills it."""


class MLflowTracker(MLFlowHandler):
    """Log a run's metrics, parameters, tags and files under the names that ``medcontext compare`` reads.

    A training run adds its MLflow id to ``<ckpt_dir>/run.json``; when it is resumed or evaluated, that MLflow run is
    joined, where MONAI's handler would create a new one. If MLflow is unreachable at the start, the run stops. After
    that, an unreachable server never stops training: everything is sent in the background
    (:class:`~medcontext.tracking.outbox.Outbox`), step values at the end of each epoch, and unsent records are kept
    beside the checkpoints and sent when the run is next joined. A training run that ends with an exception is marked
    ``FAILED``, with Ctrl-C or SIGTERM ``KILLED``; an evaluation that joins it does not change its status.

    Steps that are trained again after a crash keep the values that were logged first. A resumed run updates tags;
    parameters, which MLflow never changes, keep their first value, and the new one becomes the tag
    ``resumed.<parameter>``. The tag ``medcontext.resumed_at_step`` lists the steps after which training was resumed.

    Attach it to the trainer (and name the ``validator``), or to the evaluator of a test set.

    Args:
        ckpt_dir: folder of the checkpoints.
        tracking_uri: address of a database or server, see :func:`~medcontext.tracking.resolve_tracking_uri`.
        experiment_name: MLflow experiment, created if necessary.
        run_name: name of a new run.
        tags: tags of the run.
        params: parameters of the run.
        configs: files to upload at the start.
        figures: folder whose files are uploaded, under its name, as they appear.
        artifacts: file or folder to upload at the end.
        artifact_path: folder of the run's artifacts to upload a folder to; by default the name of the folder.
        dataset: name of the data, under which the cases are logged as the run's inputs.
        cases: cases by section as returned by :func:`medcontext.data.describe_cases`; their hash becomes a dataset
            input of the run, their list the file ``cases/<section>.json``.
        validator: engine whose metrics are logged along with the trainer's.
        join: whether to join the run that is recorded beside the checkpoints, if there is one. A new training run joins
            it only if it is an attempt with the same parameters and cases that did not finish, so that one that is
            killed before its first checkpoint and started again remains one run.
        system_metrics: whether to sample the load of the machine every ten seconds during training.
        model: arguments of :func:`~medcontext.tracking.models.log_model` to log the best network as an MLflow model at
            the end, without ``weights``, which are those in ``ckpt_dir``; ``None`` logs no model.
        wait: seconds to wait for an unreachable MLflow at the end.

    Raises:
        ValueError: If ``wait`` is negative.
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
        self._uploaded_figures: set[Path] = set()
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
        engine.add_event_handler(MedContextEvents.STATE_SAVING, self.flush)
        engine.add_event_handler(MedContextEvents.RUN_ABORTED, self._aborted)
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, self._validated)

    def start(self, engine: Engine) -> None:
        """Create a run, or join the one that is recorded beside the checkpoints.

        Raises:
            TrackingError: If MLflow is unreachable.
        """
        training = isinstance(engine, MedContextTrainer)
        self.step = engine.state.iteration if training else 0
        uri = str(self.client.tracking_uri)
        with reach(uri):
            self._set_experiment()
            if EXPERIMENT_KIND[0] not in self.experiment.tags:
                self.client.set_experiment_tag(self.experiment.experiment_id, *EXPERIMENT_KIND)
            recorded = self._recorded_run(training) if self.join or training else None
        if recorded is not None:
            recorded = self._updated_from_unsent(recorded, uri)
        with reach(uri):
            if recorded is not None and not self.join:
                recorded = self._begun_before(recorded)
            self.cur_run = recorded or self._new_run(training)
        run_id = self.cur_run.info.run_id
        self.outbox = Outbox(self.client, run_id, unsent_file(self.ckpt_dir, run_id), uri, ahead=training)
        self._owns_status = training or recorded is None
        if training:
            name = str(self.cur_run.info.run_name)
            known = {"run_name": name, **read_identity(self.ckpt_dir), "mlflow_run_id": run_id}
            known.pop(START, None)
            write_identity(self.ckpt_dir, **known)
        self.outbox.put(*self._opening_operations(engine, joined=recorded is not None))
        # MONAI's own handler, which --tracking mlflow adds, logs parameters next, which fails if both do at once
        self.outbox.settle(WAIT_AT_THE_START)
        if training and self.system_metrics:
            self._start_monitor()

    def _opening_operations(self, engine: Engine, *, joined: bool) -> list[Operation]:
        """Return what is logged at the start: status, parameters, tags, description, files and inputs."""
        known, training = self.cur_run.data, isinstance(engine, MedContextTrainer)
        self._train_seconds = known.metrics.get("train_seconds", 0.0)
        self._last_steps = {metric.key: metric.step for metric in known.to_proto().metrics} if training else {}
        tags = {**context_tags(), **self.tags} if self._owns_status else dict(self.tags)
        if not training:
            tags = {name: value for name, value in tags.items() if name not in known.tags}
        if training and joined:
            tags |= self._changed_params(known)
            steps = known.tags.get("medcontext.resumed_at_step")
            step = engine.state.iteration
            tags |= {"medcontext.resumed_at_step": f"{steps}, {step}" if steps else step} if step else {}
            tags |= {WEIGHTS_TAG: ""} if WEIGHTS_TAG in known.tags else {}  # they will be others
        params = {name: value for name, value in self.params.items() if clean_key(name) not in known.params}
        operations = [status_operation(RunStatus.RUNNING)] if self._owns_status else []
        operations += note_operations(params, tags)
        operations.append(self._description())
        configs = [path for path in map(Path, self.configs) if path.is_file()]
        operations += [text_operation(path.read_text(encoding="utf-8"), path.name) for path in configs]
        for section, content in self.cases.items():
            operations.append(input_operation(self.dataset, content["hash"], len(content["cases"]), section))
            operations.append(text_operation(json.dumps(dict(content), indent=2), f"cases/{section}.json"))
        return operations

    def _description(self, report: str | None = None) -> Operation:
        """Return the description of the run with its results so far."""
        known = self.cur_run.data
        logged = read_inputs(self.cur_run.inputs)
        counts = {section: count for section, _, count in logged if section and count is not None}
        counts |= {section: len(content["cases"]) for section, content in self.cases.items() if content["cases"]}
        tags = {**known.tags, **self.tags}
        return description_operation(describe_run(tags, counts, {**known.metrics, **self._latest}, report))

    def _changed_params(self, known: Any) -> dict[str, str]:
        """Return tags for the parameters whose values differ from those logged first."""
        now = {clean_key(name): str(value)[:PARAM_LENGTH] for name, value in self.params.items()}
        return {f"resumed.{name}": value for name, value in now.items() if known.params.get(name, value) != value}

    def _recorded_run(self, training: bool) -> Any:
        """Return the run that is recorded beside the checkpoints, ``None`` if there is none."""
        run_id = read_identity(self.ckpt_dir).get("mlflow_run_id")
        if run_id is None:
            return None
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return None  # the checkpoint came from another machine's database
            raise
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            return None
        if training or self._is_of_these_weights(run):
            return run
        logger.warning(
            "%s names the MLflow run %s, which did not train the weights beside it; the evaluation becomes a run "
            "of its own.",
            self.ckpt_dir / RUN_FILE,
            run_id,
        )
        return None

    def _is_of_these_weights(self, run: Any) -> bool:
        """Return whether a run trained the weights, as far as it says; a file from elsewhere may name any run."""
        trained, weights = run.data.tags.get(WEIGHTS_TAG), self._weights_hash()
        if not trained or weights is None:
            return any(name.startswith("medcontext.") for name in run.data.tags)
        return bool(trained == weights)

    def _weights_hash(self) -> str | None:
        """Return the hash of ``model.pt`` that ``model.json`` beside it has."""
        hashes = read_model_file(self.ckpt_dir / MODEL_FILE).get("sha256")
        return hashes.get(MODEL_FILE) if isinstance(hashes, dict) else None

    def _new_run(self, training: bool) -> Any:
        """Create a run, unless a process did that was killed before it could note the run's id.

        What it is to be found by is therefore noted first.
        """
        experiment = self.experiment.experiment_id
        if not training:
            return self.client.create_run(experiment, run_name=self.run_name)
        known = read_identity(self.ckpt_dir)
        if re.fullmatch(r"[0-9a-f]{32}", known.get(START, "")):
            found = self.client.search_runs([experiment], f"tags.`{START_TAG}` = '{known[START]}'", max_results=1)
            if found:
                return found[0]
        start = uuid.uuid4().hex
        write_identity(self.ckpt_dir, **{"run_name": str(self.run_name), **known, START: start})
        return self.client.create_run(experiment, run_name=self.run_name, tags={START_TAG: start})

    def _begun_before(self, recorded: Any) -> Any:
        """Return the run of an earlier attempt at this training that saved no state, ``None`` if it was another.

        One that a kill left as running is marked ``KILLED`` if it was another.
        """
        if recorded.info.status == RunStatus.to_string(RunStatus.FINISHED):
            return None
        known = recorded.data
        same_cases = all(known.tags.get(name, self.tags.get(name)) == self.tags.get(name) for name in DATA_TAGS)
        if same_cases and not self._changed_params(known):
            return recorded
        if recorded.info.status == RunStatus.to_string(RunStatus.RUNNING):
            self.client.set_terminated(recorded.info.run_id, RunStatus.to_string(RunStatus.KILLED))
        return None

    def _updated_from_unsent(self, run: Any, uri: str) -> Any:
        """Send the records that are kept beside the checkpoints, and return the updated run."""
        with reach(uri, timeout=None):
            sent = send_unsent(unsent_file(self.ckpt_dir, run.info.run_id), self.client)
            return self.client.get_run(run.info.run_id) if sent else run

    def _start_monitor(self) -> None:
        """Start sampling the machine, continuing the count of an earlier process of the run."""
        first = max((step for key, step in self._last_steps.items() if key.startswith("system/")), default=-1) + 1
        try:
            self._monitor = SystemMonitor(
                self._publish_sample,
                first=first,
                run_id=self.cur_run.info.run_id,
                tracking_uri=str(self.client.tracking_uri),  # else MLflow creates a database in the working directory
            )
        except Exception as error:  # a missing network device, for example, must not end training
            logger.warning("The machine's load cannot be sampled: %s", error)
        else:
            self._monitor.start()

    def _publish_sample(self, values: Mapping[str, float], number: int) -> None:
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
        """Collect time and memory of training so far."""
        self._collect({"train_seconds": self._train_seconds, "peak_memory_mib": _peak_memory_mib()})

    def _validated(self, engine: Engine) -> None:
        self._collect(_metrics_without_nan(engine))

    def _collect(self, values: Mapping[str, float]) -> None:
        now = _milliseconds()
        named = {chart_name(name): value for name, value in values.items()}
        self._latest |= named
        new = {name: value for name, value in named.items() if self.step > self._last_steps.get(clean_key(name), -1)}
        self._points += [(name, value, now, self.step) for name, value in new.items()]

    def flush(self) -> None:
        """Pass collected values and new figures to the outbox, without waiting for them to be sent."""
        if self.outbox is None:
            return
        self.outbox.put(*metrics_operations(self._points))
        self._points = []
        if self.figures is not None and self.figures.is_dir():
            new = sorted(set(self.figures.iterdir()) - self._uploaded_figures)
            self.outbox.put(*(file_operation(path, self.figures.name) for path in new))
            self._uploaded_figures.update(new)

    def _complete(self, engine: Engine) -> None:
        if not isinstance(engine, MedContextTrainer):
            self._collect(_metrics_without_nan(engine))
        self._finish(RunStatus.FINISHED, self.wait, trained=isinstance(engine, MedContextTrainer))

    def _aborted(self, engine: Engine) -> None:
        if self.step:
            self._collect_costs()
        self._finish_aborted(engine.state.exception)

    def _exception(self, _engine: Engine, error: BaseException) -> None:
        self._finish_aborted(error)
        raise error

    def _finish_aborted(self, error: BaseException) -> None:
        killed = isinstance(error, (KeyboardInterrupt, SystemExit))
        self._finish(RunStatus.KILLED if killed else RunStatus.FAILED, min(self.wait, WAIT_AFTER_ABORT))

    def _finish(self, status: int, wait: float, *, trained: bool = False) -> None:
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
        if status == RunStatus.FINISHED and trained and (weights := self._weights_hash()):
            self.outbox.put(*note_operations({}, {WEIGHTS_TAG: weights}))
        if self._owns_status:
            self.outbox.put(status_operation(status))
        sent = self.outbox.close(wait)
        self.outbox = self.cur_run = self._monitor = None
        if sent:
            self._dispose_sqlite_store()


def check_tracking(tracking_uri: str | None) -> None:
    """Check within seconds that MLflow is reachable, before anything is computed, and make a missing database.

    Args:
        tracking_uri: as for :class:`MLflowTracker`.

    Raises:
        TrackingError: If it is not.
    """
    uri = resolve_tracking_uri(tracking_uri)
    with reach(str(uri)):
        make_database(str(uri))
        MlflowClient(uri).search_experiments(max_results=1)


def _milliseconds() -> int:
    return int(time.time() * 1000)


def _peak_memory_mib() -> float:
    """Return the peak memory of PyTorch on the GPU or, without a GPU, of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return float(memory.peak_wset) / 2**20
    resource = importlib.import_module("resource")
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit) / 2**20


def _metrics_without_nan(engine: Engine) -> dict[str, float]:
    """Return an engine's metrics without NaN, which MLflow would show as a value."""
    return {name: value for name, value in engine_metrics(engine).items() if not math.isnan(value)}
