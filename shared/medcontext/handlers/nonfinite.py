"""Stop of training before a loss that is not finite corrupts the weights."""

from __future__ import annotations

import math

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from medcontext.handlers.step_values import step_values

__all__ = ["NonFiniteLossError", "StopOnNonFiniteLoss"]


class NonFiniteLossError(RuntimeError):
    """A loss term became NaN or infinite."""


class StopOnNonFiniteLoss:
    """Raise an error before the optimizer steps if a loss term or a gradient is NaN or infinite.

    With gradient scaling (mixed precision on a GPU), gradients are left to the scaler, which skips such steps itself.

    ignite's ``TerminateOnNan`` ends the run as if it were complete, after the weights were updated.

    Raises:
        NonFiniteLossError: If it is; the message names the terms, the step, and what to do.
    """

    def attach(self, engine: Engine) -> None:
        """Subscribe to the losses and the gradients of each step."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.check_gradients)

    def __call__(self, engine: Engine) -> None:
        """Check each loss term."""
        nonfinite = [name for name, value in step_values(engine.state.output).items() if not math.isfinite(value)]
        if nonfinite:
            raise NonFiniteLossError(
                f"{', '.join(nonfinite)} not finite at step {engine.state.iteration}; the weights are those before the "
                "step. Lower learning_rate, set amp to false, or look for non-finite voxels in the images, then resume."
            )

    def check_gradients(self, engine: Engine) -> None:
        """Check the norm of all gradients."""
        gradients = [p.grad for p in engine.network.parameters() if p.grad is not None]
        if not engine.scaler.is_enabled() and not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise NonFiniteLossError(
                f"Gradients not finite at step {engine.state.iteration}; the weights are those before the step. "
                "Lower learning_rate or set max_grad_norm, then resume."
            )
