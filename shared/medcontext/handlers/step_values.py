"""Scalars of one training step, for display and logging."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.utils import CommonKeys
from torch import Tensor

from medcontext.keys import MedContextKeys

__all__ = ["STEP_METRICS", "engine_metrics", "read_step", "step_values", "train_metrics", "write_step"]

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


def step_values(engine: Engine) -> dict[str, float]:
    """Return the scalars of an engine's last step by the names that they are logged under.

    They are read from the device once a step, whatever number of handlers asks for them.
    """
    return read_step(engine)[0]


def read_step(engine: Engine, *others: Tensor) -> tuple[dict[str, float], list[float]]:
    """Return the scalars of an engine's last step, and other scalars, read from the device in a single transfer.

    An output that is not decollated yet holds the values on the CPU from then on.

    Args:
        engine: engine whose output holds scalars, or decollated items, in each of which MONAI repeats them.
        others: scalar tensors to read along with them.
    """
    step, values = getattr(engine.state, "step_values", (None, {}))
    if step == engine.state.iteration and not others:
        return values, []
    output = engine.state.output
    item = output if isinstance(output, Mapping) else output[0]
    present = [key for key in STEP_METRICS if key in item]
    names, scalars = [STEP_METRICS[key] for key in present], [item[key] for key in present]
    device = engine.state.device
    tensors = [torch.as_tensor(scalar, dtype=torch.float32, device=device) for scalar in (*scalars, *others)]
    numbers = torch.stack(tensors).tolist()
    values = dict(zip(names, numbers, strict=False))
    if isinstance(output, MutableMapping):  # which MONAI decollates later, reading each scalar by itself
        output.update({key: torch.tensor(value) for key, value in zip(present, numbers, strict=False)})
    engine.state.step_values = engine.state.iteration, values
    return values, numbers[len(names) :]


def train_metrics(engine: Engine) -> dict[str, float]:
    """Return all scalars of the last step: loss terms, masked fraction, learning rate and teacher momentum."""
    values = dict(step_values(engine))
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
