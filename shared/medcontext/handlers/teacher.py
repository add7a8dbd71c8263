"""The slowly moving teacher."""

from __future__ import annotations

import math

import torch
from ignite.engine import Engine
from torch import nn

from medcontext.engines.trainer import MedContextEvents, MedContextTrainer

__all__ = ["TeacherUpdate", "teacher_momentum_at", "update_teacher"]


def teacher_momentum_at(step: int, total_steps: int, *, momentum: float = 0.996, warmup: float = 0.01) -> float:
    """Momentum of the update that follows optimizer step number ``step`` (the first is 0).

    It rises linearly from 0 to ``momentum`` over the first ``warmup`` share of the steps, then from ``momentum`` to 1
    by half a cosine.

    Source: the schedule of Gani et al., MedContext, MICCAI 2024 (arXiv 2402.17725).
    """
    warmup_steps = round(warmup * total_steps)
    if step < warmup_steps:
        return momentum * step / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return 1 - (1 - momentum) * (1 + math.cos(math.pi * min(progress, 1))) / 2


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the teacher: ``momentum`` times itself plus the rest of the student, buffers with fractions included.

    Integer buffers, such as counters and index tables, are copied.

    Raises:
        ValueError: When the two networks do not have the same parameters and buffers.
    """
    students = student.state_dict(keep_vars=True)
    teachers = teacher.state_dict(keep_vars=True)
    if students.keys() != teachers.keys():
        different = sorted(students.keys() ^ teachers.keys())
        raise ValueError(f"Teacher and student differ in {different[:3]}; make the teacher with make_teacher(student).")
    for name, value in teachers.items():
        if value.is_floating_point():
            value.lerp_(students[name].to(value.dtype), 1 - momentum)
        else:
            value.copy_(students[name])


class TeacherUpdate:
    """Update the trainer's teacher after every optimizer step.

    The momentum in use stands in ``engine.state.teacher_momentum``. The step count follows the trainer's iterations, so
    a resumed run goes on with the schedule where it was. Without a teacher the handler does nothing.

    Args:
        momentum: momentum after the warm-up, within [0, 1].
        warmup: share of all optimizer steps over which the momentum rises from 0, within [0, 1].

    Raises:
        ValueError: When an argument lies outside [0, 1].
        TypeError: When attached to anything but a :class:`~medcontext.engines.MedContextTrainer`.
    """

    def __init__(self, momentum: float = 0.996, warmup: float = 0.01) -> None:
        for name, value in (("teacher_momentum", momentum), ("teacher_warmup", warmup)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be within [0, 1], got {value}.")
        self.momentum = momentum
        self.warmup = warmup

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer's optimizer steps."""
        if not isinstance(engine, MedContextTrainer):
            raise TypeError(f"TeacherUpdate needs a MedContextTrainer, got {type(engine).__name__}.")
        if engine.teacher is not None:
            engine.add_event_handler(MedContextEvents.OPTIMIZER_STEPPED, self)

    def __call__(self, engine: MedContextTrainer) -> None:
        """Update once."""
        if engine.teacher is None:
            return
        step = engine.optimizer_step_index()
        momentum = teacher_momentum_at(step, engine.total_optimizer_steps(), momentum=self.momentum, warmup=self.warmup)
        update_teacher(engine.teacher, engine.student, momentum)
        engine.state.teacher_momentum = momentum
