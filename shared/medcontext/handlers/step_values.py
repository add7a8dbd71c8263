"""Scalars of one training step, for display and logging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ignite.engine import Engine
from monai.utils import CommonKeys

from medcontext.keys import MedContextKeys

__all__ = ["STEP_METRICS", "engine_metrics", "step_values", "train_metrics", "write_step"]

STEP_METRICS = {
    CommonKeys.LOSS: "train_loss",
    MedContextKeys.LOSS_SUPERVISED: "train_loss_supervised",
    MedContextKeys.LOSS_CONTEXT: "train_loss_context",
    MedContextKeys.LOSS_CONSISTENCY: "train_loss_consistency",
    MedContextKeys.LOSS_UNLABELED: "train_loss_unlabeled",
    MedContextKeys.MASKED_FRACTION: "masked_fraction",
    MedContextKeys.CONFIDENT_FRACTION: "confident_fraction",
}
"""Entries of the trainer's output and the names they are logged under."""


def step_values(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the scalars in a trainer's output by the names that they are logged under.

    Args:
        output: the output, or its decollated items, in each of which MONAI repeats the scalars.

    Example:
        >>> step_values([{"loss": 0.5, "loss_supervised": 0.25}])
        {'train_loss': 0.5, 'train_loss_supervised': 0.25}
    """
    item = output if isinstance(output, Mapping) else output[0]
    return {name: float(item[key]) for key, name in STEP_METRICS.items() if key in item}


def train_metrics(engine: Engine) -> dict[str, float]:
    """Return all scalars of the last step: loss terms, masked fraction, learning rate and teacher momentum."""
    values = step_values(engine.state.output)
    values["learning_rate"] = float(engine.optimizer.param_groups[0]["lr"])
    momentum = getattr(engine.state, "teacher_momentum", None)
    if momentum is not None:
        values["teacher_momentum"] = float(momentum)
    return values


def engine_metrics(engine: Engine) -> dict[str, float]:
    """Return the scalars among an engine's metrics, NaN included."""
    return {name: float(value) for name, value in engine.state.metrics.items() if not isinstance(value, Mapping)}


def write_step(engine: Engine, writer: Any) -> None:
    """Write the scalars of the last step to a TensorBoard ``SummaryWriter``."""
    for name, value in train_metrics(engine).items():
        writer.add_scalar(name, value, engine.state.iteration)
