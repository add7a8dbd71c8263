"""The weights that a training run leaves: the best on validation, or the last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import Tensor, nn

import medcontext
from medcontext.networks import plain_network, save_checkpoint
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
    "TeacherValidation",
]

SELECTIONS = ("best", "last", "student_best", "student_last")
TEACHER_SUFFIX = "_ema"


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
