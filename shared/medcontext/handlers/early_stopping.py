"""End of a training run that no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ignite.handlers
from ignite.engine import Engine, Events

from medcontext.checks import check_integer
from medcontext.handlers.checkpoints import TEACHER_SUFFIX

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """End training after a number of validations in a row without improvement.

    Validations are compared by the better of the key metrics of the student and the teacher. List it before the
    :class:`~medcontext.handlers.TrainingCheckpoint`, which then saves the epoch at which training ended, and give its
    state to that and to the :class:`~medcontext.handlers.ResumeTraining`: a run that was stopped early then completes
    without a step when it is resumed. ignite's ``EarlyStopping`` does the counting.

    Args:
        patience: number of validations without improvement after which training ends; ``None`` never ends it.
        validator: engine whose validations are counted.

    Raises:
        TypeError: If ``patience`` is not an integer.
        ValueError: If ``patience`` is below 1.
    """

    def __init__(self, patience: int | None, validator: Engine) -> None:
        self.enabled = patience is not None
        remedy = "give a number of validations, or null to train for max_epochs"
        self.patience = check_integer("early_stopping", 1 if patience is None else patience, minimum=1, remedy=remedy)
        self.validator = validator
        self.counter = ignite.handlers.EarlyStopping(self.patience, _best_score, validator)

    def attach(self, engine: Engine) -> None:
        """Subscribe to the validations, which may end the engine, and to the start of a resumed run."""
        if not self.enabled:
            return
        self.counter.trainer = engine  # which did not exist before, since it takes this handler
        self.validator.add_event_handler(Events.COMPLETED, self.counter)
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """End a resumed run that was stopped before."""
        if self.counter.counter >= self.patience:
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far and the number of validations since."""
        return dict(self.counter.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the best value and the number of validations since."""
        self.counter.load_state_dict(state)


def _best_score(validator: Engine) -> float:
    """Return the better of the key metrics of both networks, the lowest number where neither is one."""
    key, metrics = validator.state.key_metric_name, validator.state.metrics
    values = [float(metrics[name]) for name in (key, f"{key}{TEACHER_SUFFIX}") if name in metrics]
    return max((value for value in values if not math.isnan(value)), default=-math.inf)
