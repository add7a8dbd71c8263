"""Checkpoints that a crash cannot damage, and resuming from them."""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

import medcontext
from medcontext.engines.trainer import MedContextTrainer
from medcontext.networks import (
    TokenMasking,
    find_token_masking,
    load_checkpoint,
    plain_network,
    save_checkpoint,
)
from medcontext.networks.model_file import (
    MODEL_FILE,
    MODEL_INFO_FILE,
    STUDENT_FILE,
    TEACHER_FILE,
    read_model_file,
    weights_hash,
)
from medcontext.networks.weights import write_model_file

__all__ = [
    "FinalModel",
    "ModelCheckpoint",
    "ResumeTraining",
    "TeacherValidation",
    "TrainingCheckpoint",
    "training_states",
]

logger = logging.getLogger(__name__)

LAST_FILE, PREVIOUS_FILE = "last.pt", "previous.pt"
"""The training state, and the one that was saved before it."""
SELECTIONS = ("best", "last", "student_best", "student_last")
TEACHER_SUFFIX = "_ema"


class ResumeError(ValueError):
    """A checkpoint does not match the run being resumed."""


class ModelCheckpoint:
    """Save the weights of the student or the teacher, whichever validate better, as ``model.pt``.

    Where there is a teacher, a moving average of the student, both networks of that epoch are also saved, as
    ``student.pt`` and ``teacher.pt``; all files have the keys of the plain network. ``model.json`` records whose
    weights ``model.pt`` holds, from which epoch, the key metric of both networks in that epoch, hashes of the weights,
    the settings that they need, and the cases that they were trained on.

    Attach it to the validator, after a :class:`TeacherValidation`, and attach a :class:`FinalModel` to the trainer.
    ``state_dict`` preserves the best value when a run is resumed.

    Args:
        ckpt_dir: folder of the files.
        network: the student, wrapped or plain.
        teacher: the teacher, if there is one.
        select: ``best`` saves the weights and the epoch with the highest key metric of the validator, or the teacher's
            last state if training was never validated; ``last`` saves the teacher's last state. ``student_best`` and
            ``student_last`` consider the student only.
        settings: the settings that the weights need, by configuration key.
        dataset: name of the dataset that the weights are trained on.
        cases: cases that the weights are trained and validated on, from :func:`medcontext.data.describe_cases`.

    Raises:
        ValueError: If ``select`` is none of these.
    """

    def __init__(
        self,
        ckpt_dir: str,
        network: nn.Module,
        teacher: nn.Module | None = None,
        select: str = "best",
        settings: Mapping[str, Any] | None = None,
        dataset: str | None = None,
        cases: Mapping[str, Any] | None = None,
    ) -> None:
        if select not in SELECTIONS:
            raise ValueError(f"select_checkpoint must be one of {', '.join(map(repr, SELECTIONS))}, got {select!r}.")
        self.ckpt_dir = Path(ckpt_dir)
        self.network = network
        self.teacher = teacher
        self.select = select
        self.description = {"dataset": dataset, "settings": dict(settings or {}), "cases": dict(cases or {})}
        self.best: float | None = None

    def attach(self, engine: Engine) -> None:
        """Subscribe to the end of validations."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the weights if this validation is the best so far."""
        key = engine.state.key_metric_name
        names = {"student": key, "teacher": f"{key}{TEACHER_SUFFIX}"}
        values = {name: float(engine.state.metrics[key]) for name, key in names.items() if key in engine.state.metrics}
        if self.select.startswith("student"):
            values.pop("teacher", None)
        valid = {name: value for name, value in values.items() if not math.isnan(value)}
        if self.is_last or not valid:
            return
        weights = max(valid, key=lambda name: valid[name])
        if self.best is None or valid[weights] > self.best:
            self.best = valid[weights]
            self.save(engine, weights, {names[name]: value for name, value in values.items()})

    @property
    def is_last(self) -> bool:
        """Whether the last state is saved regardless of validation."""
        return self.select.endswith("last")

    def save_last(self, engine: Engine) -> None:
        """Save the weights at the end of training."""
        student = self.teacher is None or self.select.startswith("student")
        self.save(engine, "student" if student else "teacher", {})

    def save(self, engine: Engine, weights: str, metrics: Mapping[str, float]) -> None:
        """Save the weights of the ``"student"`` or the ``"teacher"`` as the model, in the first process only."""
        if engine.state.rank > 0:
            return
        student = plain_network(self.network).state_dict()
        teacher = None if self.teacher is None else self.teacher.state_dict()
        states = {MODEL_FILE: student if weights == "student" or teacher is None else teacher}
        if teacher is not None:
            states |= {STUDENT_FILE: student, TEACHER_FILE: teacher}
        self._describe({"weights": weights, "epoch": engine.state.epoch, **metrics}, states)
        for name, state in states.items():
            save_checkpoint(state, self.ckpt_dir / name)

    def _describe(self, selected: Mapping[str, Any], states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write ``model.json``, with the hashes of the weights before too, which a crash may leave in place."""
        path = self.ckpt_dir / MODEL_INFO_FILE
        content = {
            **selected,
            "version": medcontext.__version__,
            **self.description,
            "sha256": {name: weights_hash(state) for name, state in states.items()},
            "sha256_before": read_model_file(path.with_name(MODEL_FILE)).get("sha256"),
        }
        write_model_file(path.with_name(MODEL_FILE), content)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the best value."""
        self.best = state["best"]


class TeacherValidation:
    """Validate the teacher whenever the student is, and add its metrics to the student's with the suffix ``_ema``.

    Attach it to the student's validator before the handlers that read the metrics.

    Args:
        evaluator: engine that evaluates the teacher on the same cases with the same metrics.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def attach(self, engine: Engine) -> None:
        """Subscribe to the end of the validator's epoch, when the student's metrics are known."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Validate the teacher."""
        self.evaluator.run(engine.state.epoch)
        metrics = {f"{name}{TEACHER_SUFFIX}": value for name, value in self.evaluator.state.metrics.items()}
        engine.state.metrics.update(metrics)


class FinalModel:
    """Save the model at the end of training if its checkpoint saves the last state, or if no validation saved one.

    Args:
        checkpoint: the checkpoint that is attached to the validator.
    """

    def __init__(self, checkpoint: ModelCheckpoint) -> None:
        self.checkpoint = checkpoint

    def attach(self, engine: Engine) -> None:
        """Subscribe to the end of training."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the model unless a validation did."""
        if self.checkpoint.is_last or self.checkpoint.best is None:
            self.checkpoint.save_last(engine)


class TrainingCheckpoint:
    """Save the complete training state as ``last.pt`` at the end of every epoch, and keep the one before.

    It holds the student (including the mask token of token masking), the teacher, optimizer, gradient scaler, counters,
    random states, and ``objects``.

    Args:
        ckpt_dir: folder of the file.
        objects: further objects to save by name, each with ``state_dict`` and ``load_state_dict``, such as the
            learning-rate scheduler and the :class:`ModelCheckpoint`; ``None`` is left out.
        interval: number of epochs between two saves; the last epoch is always saved, and one that ends training early.

    Raises:
        ValueError: If ``interval`` is below 1.
    """

    def __init__(self, ckpt_dir: str, objects: Mapping[str, Any] | None = None, interval: int = 1) -> None:
        if interval < 1:
            raise ValueError(f"interval must be 1 or more epochs, got {interval}.")
        self.path = Path(ckpt_dir) / LAST_FILE
        self.objects = {name: item for name, item in (objects or {}).items() if item is not None}
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Subscribe to the end of epochs."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: MedContextTrainer) -> None:
        """Save the state from which the next epoch starts."""
        last = engine.should_terminate or engine.state.epoch == engine.state.max_epochs
        if engine.state.epoch % self.interval and not last:
            return
        if engine.state.rank == 0:
            state = {name: item.state_dict() for name, item in _training_objects(engine, self.objects).items()}
            state["random"] = _random_state()
            save_checkpoint(state, self.path, self.path.with_name(PREVIOUS_FILE))


class ResumeTraining:
    """Restore the training state of a :class:`TrainingCheckpoint` when training starts.

    If ``last.pt`` is damaged, the state that was saved before it is restored, with a warning.

    The learning rate follows the configuration of the resumed run: if ``max_epochs`` or ``learning_rate`` has changed,
    the schedule continues at the same step of the new curve. A finished run completes without a step, so that a job
    restarted by a scheduler ends normally.

    Args:
        path: the ``last.pt`` to resume from.
        objects: objects to restore, under the same names as in :class:`TrainingCheckpoint`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it and the one before are damaged, or if it holds no training state, was trained with another
            epoch length, or has trained for more epochs than ``max_epochs``.
        ResumeError: If a saved state does not match the run, once training starts.
    """

    def __init__(self, path: str, objects: Mapping[str, Any] | None = None) -> None:
        self.path, self.content = _load_newest(Path(path))
        self.objects = {name: item for name, item in (objects or {}).items() if item is not None}
        if not isinstance(self.content, dict) or not {"trainer", "random"} <= self.content.keys():
            raise ValueError(f"{self.path} holds weights but no training state; resume from a {LAST_FILE}.")

    def attach(self, engine: MedContextTrainer) -> None:
        """Check that the checkpoint matches, and restore it when the engine starts."""
        done, asked = self.content["trainer"]["iteration"], engine.state.max_epochs * engine.state.epoch_length
        if self.content["trainer"]["epoch_length"] != engine.state.epoch_length:
            raise ValueError(
                f"{self.path} was trained with {self.content['trainer']['epoch_length']} steps per epoch, this run has "
                f"{engine.state.epoch_length}; resume with the same data, batch_size and number of processes."
            )
        trained = f"{self.path} has already trained {done // engine.state.epoch_length} epochs"
        if done > asked:
            raise ValueError(f"{trained}; max_epochs is {engine.state.max_epochs}, raise it to continue.")
        if done == asked:
            logger.warning("%s, as many as max_epochs; raise it to continue.", trained)
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: MedContextTrainer) -> None:
        """Restore the training state."""
        max_epochs = engine.state.max_epochs
        schedules = {id(item): _schedule_settings(item) for item in self.objects.values() if isinstance(item, LambdaLR)}
        for name, item in _training_objects(engine, self.objects).items():
            if name not in self.content:
                raise ResumeError(f"{self.path} holds no {name!r}; resume with the overlays that it was trained with.")
            if isinstance(item, Optimizer) and _has_other_settings(item, self.content[name]):
                raise ResumeError(
                    f"{self.path} was trained with another optimizer; resume with the overlays of that run."
                )
            try:
                item.load_state_dict(self.content[name])
            except (RuntimeError, ValueError, KeyError) as error:
                reason = str(error).splitlines()[0]
                raise ResumeError(f"{name!r} of {self.path} does not match this run: {reason}") from error
        engine.state.max_epochs = max_epochs
        for item in self.objects.values():
            if isinstance(item, LambdaLR):
                item.__dict__.update(schedules[id(item)])
                _set_learning_rates(item)
        _set_random_state(self.content["random"])
        self.content = {}


def training_states(ckpt_dir: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a training run's states, the newest first: ``last.pt`` and the one before."""
    return [path for path in (Path(ckpt_dir) / LAST_FILE, Path(ckpt_dir) / PREVIOUS_FILE) if path.is_file()]


def _load_newest(path: Path) -> tuple[Path, dict[str, Any]]:
    """Return a training state and its file: the one asked for or, if it is damaged or gone, the one before."""
    previous = path.with_name(PREVIOUS_FILE)
    try:
        return path, load_checkpoint(path)
    except (FileNotFoundError, ValueError):
        if path.name != LAST_FILE or not previous.is_file():
            raise
        try:
            content = load_checkpoint(previous)
        except ValueError as error:
            raise ValueError(f"{path} and {previous} are both damaged; train again, under another run_name.") from error
    if idist.get_rank() == 0:
        logger.warning("%s is damaged or gone; the run resumes from %s, which was saved before it.", path, previous)
    return previous, content


def _training_objects(engine: MedContextTrainer, objects: Mapping[str, Any]) -> dict[str, Any]:
    stateful: dict[str, Any] = {"network": plain_network(engine.network), **objects}
    masking = find_token_masking(engine.network)
    if masking is not None:
        stateful["token_masking"] = _MaskToken(masking)
    if engine.teacher is not None:
        stateful["teacher"] = engine.teacher
    return {**stateful, "optimizer": engine.optimizer, "scaler": engine.scaler, "trainer": engine}


def _has_other_settings(optimizer: Optimizer, state: Mapping[str, Any]) -> bool:
    """Return whether a state is of an optimizer with other settings, which ``load_state_dict`` accepts all the same."""
    own, saved = (set(groups[0]) for groups in (optimizer.param_groups, state["param_groups"]))
    return bool(own - saved and saved - own)


def _schedule_settings(schedule: LambdaLR) -> dict[str, Any]:
    """Return the attributes of a schedule that the configuration sets, without its progress."""
    progress = ("last_epoch", "_step_count", "_last_lr", "lr_lambdas", "optimizer")
    return {name: value for name, value in vars(schedule).items() if name not in progress}


def _set_learning_rates(schedule: LambdaLR) -> None:
    """Set the optimizer's learning rates to those of the schedule at its current step."""
    rates = [
        base * curve(schedule.last_epoch) for base, curve in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, base, rate in zip(schedule.optimizer.param_groups, schedule.base_lrs, rates, strict=True):
        group["initial_lr"], group["lr"] = base, rate
    schedule._last_lr = rates


class _MaskToken:
    """The mask token as an object with a state."""

    def __init__(self, masking: TokenMasking) -> None:
        self.masking = masking

    def state_dict(self) -> dict[str, Any]:
        return {"mask_token": self.masking.mask_token.detach()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.masking.mask_token.copy_(state["mask_token"])


def _random_state() -> dict[str, Any]:
    """Return the states of the random number generators as tensors and plain values, which load without code."""
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
