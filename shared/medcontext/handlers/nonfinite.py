"""Stop before a loss that is not finite spoils the weights."""

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
    """Raise before the optimizer steps when a loss term or a gradient is NaN or infinite.

    With gradient scaling (mixed precision on a GPU) gradients are left to the scaler, which skips such steps itself.

    ignite's ``TerminateOnNan`` ends the run as if it were complete, after the weights took the step.

    Raises:
        NonFiniteLossError: Naming the terms, the step, and what to do.
    """

    def attach(self, engine: Engine) -> None:
        """Subscribe to the losses of each step."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.check_gradients)

    def __call__(self, engine: Engine) -> None:
        """Look at each term."""
        bad = [name for name, value in step_values(engine.state.output).items() if not math.isfinite(value)]
        if bad:
            raise NonFiniteLossError(
                f"{', '.join(bad)} not finite at step {engine.state.iteration}; the weights were left as before the "
                "step. Lower learning_rate, set amp to false, or look for non-finite voxels in the images, then resume."
            )

    def check_gradients(self, engine: Engine) -> None:
        """Look at the gradients' norm, one number for all of them."""
        gradients = [p.grad for p in engine.network.parameters() if p.grad is not None]
        if not engine.scaler.is_enabled() and not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise NonFiniteLossError(
                f"Gradients not finite at step {engine.state.iteration}; the weights were left as before the step. "
                "Lower learning_rate or set max_grad_norm, then resume."
            )
