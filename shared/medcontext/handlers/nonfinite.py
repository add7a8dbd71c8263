"""Stop of training before a loss that is not finite corrupts the weights."""

from __future__ import annotations

import math

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from medcontext.handlers.step_values import read_step

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
        """Subscribe to the end of each backward pass whose results are recorded."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check each loss term, and the norm of all gradients, which are read from the device together."""
        gradients = [] if engine.scaler.is_enabled() else _gradients(engine.network)
        norm = [torch.nn.utils.get_total_norm(gradients)] if gradients else []
        terms, norms = read_step(engine, *norm)
        nonfinite = [name for name, value in terms.items() if not math.isfinite(value)]
        if nonfinite:
            raise NonFiniteLossError(
                f"{', '.join(nonfinite)} not finite at step {engine.state.iteration}; the weights are those before the "
                "step. Lower learning_rate, set amp to false, or look for non-finite voxels in the images, then resume."
            )
        if not all(map(math.isfinite, norms)):
            raise NonFiniteLossError(
                f"Gradients not finite at step {engine.state.iteration}; the weights are those before the step. "
                "Lower learning_rate or set max_grad_norm, then resume."
            )


def _gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
