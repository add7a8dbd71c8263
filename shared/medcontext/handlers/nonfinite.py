"""Stop before a loss that is not finite spoils the weights."""

from __future__ import annotations

import math

from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from medcontext.handlers.step_values import step_values

__all__ = ["NonFiniteLossError", "StopOnNonFiniteLoss"]


class NonFiniteLossError(RuntimeError):
    """A loss term became NaN or infinite."""


class StopOnNonFiniteLoss:
    """Raise before the optimizer steps when a loss term is NaN or infinite.

    ignite's ``TerminateOnNan`` ends the run as if it were complete, after the weights took the step.

    Raises:
        NonFiniteLossError: Naming the terms, the step, and what to do.
    """

    def attach(self, engine: Engine) -> None:
        """Subscribe to the losses of each step."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Look at each term."""
        bad = [name for name, value in step_values(engine.state.output).items() if not math.isfinite(value)]
        if bad:
            raise NonFiniteLossError(
                f"{', '.join(bad)} not finite at step {engine.state.iteration}; the weights were left as before the "
                "step. Lower learning_rate, set amp to false, or look for non-finite voxels in the images, then resume."
            )
