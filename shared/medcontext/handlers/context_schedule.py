"""Schedule of dropping context and of using unlabelled scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ignite.engine import Engine, Events

from medcontext.engines.schedules import ramp
from medcontext.engines.trainer import MedContextTrainer

__all__ = ["ContextSchedule"]


class ContextSchedule:
    """Scale the masks, the consistency weight and the unlabelled term over a training run.

    Masks become more frequent and larger over ``context_ramp``, while the consistency weight rises, and end at
    ``context_end``, so that training ends on whole images. Unlabelled scans are used after ``burn_in``, once the
    teacher has learned from labels, until the end; their weight rises over a further ``context_ramp``.

    Masks change per epoch, since loader processes copy the transforms when an epoch starts; weights change per step.
    Both depend on the progress only, so a resumed run continues exactly.

    Args:
        transforms: transforms that drop context; those with a ``strength``, their own or their ``dropout``'s, are
            scaled.
        context_ramp: share of the run over which masks and weights rise, within [0, 1].
        context_end: share of the run after which nothing is dropped from labelled crops, within [0, 1].
        burn_in: share of the run before unlabelled scans are used, within [0, 1].

    Raises:
        ValueError: If a share lies outside [0, 1].
        TypeError: If attached to anything but a :class:`~medcontext.engines.MedContextTrainer`.
    """

    def __init__(
        self,
        transforms: Sequence[Any] = (),
        *,
        context_ramp: float = 0.0,
        context_end: float = 1.0,
        burn_in: float = 0.0,
    ) -> None:
        for name, value in (("context_ramp", context_ramp), ("context_end", context_end), ("burn_in", burn_in)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be a share of the training run within [0, 1], got {value}.")
        self.transforms = [transform for transform in transforms if hasattr(transform, "strength")]
        self.context_ramp = context_ramp
        self.context_end = context_end
        self.burn_in = burn_in

    def attach(self, engine: Engine) -> None:
        """Subscribe to the start of epochs and steps."""
        if not isinstance(engine, MedContextTrainer):
            raise TypeError(f"ContextSchedule needs a MedContextTrainer, got {type(engine).__name__}.")
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def start_epoch(self, engine: MedContextTrainer) -> None:
        """Scale the masks of the starting epoch."""
        strength = self._context_strength((engine.state.epoch - 1) / engine.state.max_epochs)
        for transform in self.transforms:
            transform.strength = strength

    def __call__(self, engine: MedContextTrainer) -> None:
        """Scale the weights of the starting step."""
        progress = (engine.state.iteration - 1) / (engine.state.max_epochs * engine.state.epoch_length)
        engine.context_strength = self._context_strength(progress)
        engine.unlabeled_strength = ramp(progress, start=self.burn_in, length=self.context_ramp)

    def _context_strength(self, progress: float) -> float:
        return ramp(progress, length=self.context_ramp, end=self.context_end)
