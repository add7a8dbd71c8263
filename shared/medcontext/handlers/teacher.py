"""The teacher, a moving average of the student."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from ignite.engine import Engine, Events
from torch import nn

from medcontext.engines.trainer import MedContextEvents, MedContextTrainer

__all__ = ["TeacherUpdate", "teacher_momentum_at", "update_teacher"]


Momentum = float | Sequence[float]


def teacher_momentum_at(step: int, total_steps: int, *, momentum: Momentum = 0.99, warmup: float = 0.01) -> float:
    """Return the momentum of the update after an optimizer step.

    It rises linearly from 0 over the first ``warmup`` share of the steps. Then it stays at ``momentum`` or, if there
    are two, follows half a cosine from the first to the second.

    Args:
        step: number of the optimizer step, from 0.
        total_steps: number of optimizer steps of the run.
        momentum: momentum after the warm-up, or the first and the last of a half cosine.
        warmup: share of the steps over which the momentum rises from 0.

    Example:
        >>> [teacher_momentum_at(step, 100, momentum=0.8, warmup=0.1) for step in (0, 5, 10, 99)]
        [0.0, 0.4, 0.8, 0.8]

    Source: the cosine is that of Gani et al., MedContext, MICCAI 2024 (arXiv 2402.17725), from 0.996 to 1. It needs
    tens of thousands of steps, since an average whose momentum nears 1 no longer follows the student.
    """
    first, last = _momenta(momentum)
    warmup_steps = round(warmup * total_steps)
    if step < warmup_steps:
        return first * step / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return last - (last - first) * (1 + math.cos(math.pi * min(progress, 1))) / 2


def _momenta(momentum: Momentum) -> tuple[float, float]:
    if isinstance(momentum, (int, float)):
        return momentum, momentum
    first, last = momentum
    return first, last


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set the teacher to ``momentum`` times itself plus (1 - ``momentum``) times the student.

    This includes floating-point buffers; integer buffers, such as counters and index tables, are copied.

    Args:
        teacher: network to update in place.
        student: network of the same architecture.
        momentum: weight of the teacher, within [0, 1].

    Raises:
        ValueError: If the two networks do not have the same parameters and buffers.

    Example:
        >>> teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(teacher.weight), nn.init.ones_(student.weight)
        >>> update_teacher(teacher, student, momentum=0.75)
        >>> teacher.weight.item()
        0.25
    """
    students = student.state_dict(keep_vars=True)
    teachers = teacher.state_dict(keep_vars=True)
    if students.keys() != teachers.keys():
        different = sorted(students.keys() ^ teachers.keys())
        raise ValueError(
            f"Teacher and student differ in {different[:3]}; create the teacher with make_teacher(student)."
        )
    # a module may have several names, nnU-Net's have
    names = {id(value): name for name, value in teachers.items()}.values()
    averaged = [name for name in names if teachers[name].is_floating_point()]
    torch._foreach_lerp_(
        [teachers[name] for name in averaged],
        [students[name].to(teachers[name].dtype) for name in averaged],
        1 - momentum,
    )
    for name in set(names) - set(averaged):
        teachers[name].copy_(students[name])


class TeacherUpdate:
    """Update the trainer's teacher, a moving average of the student, after every optimizer step.

    The current momentum is ``engine.state.teacher_momentum``. The step count follows the trainer's iterations, so a
    resumed run continues the schedule. Without a teacher, the handler does nothing.

    Args:
        momentum: momentum after the warm-up, within [0, 1], or the first and the last of a half cosine.
        warmup: share of all optimizer steps over which the momentum rises from 0, within [0, 1].

    Raises:
        ValueError: If an argument lies outside [0, 1], or there are not one or two momenta.
        TypeError: If attached to anything but a :class:`~medcontext.engines.MedContextTrainer`.
    """

    def __init__(self, momentum: Momentum = 0.99, warmup: float = 0.01) -> None:
        momenta = [momentum] if isinstance(momentum, (int, float)) else list(momentum)
        if len(momenta) not in (1, 2):
            raise ValueError(f"teacher_momentum must be one number, or the first and the last of two, got {momentum}.")
        for name, value in (*(("teacher_momentum", value) for value in momenta), ("teacher_warmup", warmup)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be within [0, 1], got {value}.")
        self.momentum = momentum
        self.warmup = warmup

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer's start and its optimizer steps; attach handlers that load weights before."""
        if not isinstance(engine, MedContextTrainer):
            raise TypeError(f"TeacherUpdate needs a MedContextTrainer, got {type(engine).__name__}.")
        if engine.teacher is not None:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(MedContextEvents.OPTIMIZER_STEPPED, self)

    def _start(self, engine: MedContextTrainer) -> None:
        """Start from the student, whose weights another handler may have loaded, unless training is resumed."""
        if engine.teacher is not None and engine.state.iteration == 0:
            update_teacher(engine.teacher, engine.student, momentum=0)

    def __call__(self, engine: MedContextTrainer) -> None:
        """Update the teacher."""
        if engine.teacher is None:
            return
        step = engine.optimizer_step_index()
        momentum = teacher_momentum_at(step, engine.total_optimizer_steps(), momentum=self.momentum, warmup=self.warmup)
        update_teacher(engine.teacher, engine.student, momentum)
        engine.state.teacher_momentum = momentum
