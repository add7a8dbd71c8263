"""Memory and time of a training step, without running one where that would be slow."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from monai.bundle import ConfigComponent
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medcontext.bundle import check_network
from medcontext.networks import prepare_network

__all__ = ["GIB", "StepCost", "check_crop", "resolved_network", "step_bytes", "step_cost", "step_seconds"]

GIB = 2**30

BYTES_PER_WEIGHT = {"torch.optim.SGD": 16, "torch.optim.AdamW": 20}
"""Of weight, gradient, moving average and the optimizer's state, in single precision."""
HALF_SHARE = 0.9
"""Memory of activations in mixed precision, as a share of single precision.

On an NVIDIA H100, the recipes of bundles for BTCV took 0.64 (UNETR), 0.70 (UNETR++), 0.77 (nnFormer) and 0.89
(SwinUNETR); the largest keeps the estimate on the safe side.
"""
LOSS_COPIES = 4
"""Tensors of the size of the logits, in single precision, that the loss keeps."""
CONTEXT_BYTES = GIB // 2
"""What CUDA takes before the first tensor."""
OPERATIONS_PER_SECOND = 20e12
"""What a GPU for workstations sustains in mixed precision."""


@dataclass(frozen=True)
class StepCost:
    """Cost of one crop.

    Attributes:
        activations: bytes that the forward pass keeps for the backward pass, in single precision.
        weights: number of weights.
        operations: floating-point operations of the forward pass.
    """

    activations: int
    weights: int
    operations: int


def resolved_network(definition: Mapping[str, Any], channels: int, classes: int, crop: Sequence[int]) -> dict[str, Any]:
    """Return a ``network_def`` with numbers in the place of the keys that it refers to."""
    text = json.dumps(definition)
    for key, value in (("in_channels", channels), ("out_channels", classes), ("roi_size", list(crop))):
        text = text.replace(f'"@{key}"', json.dumps(value))
    return dict(json.loads(text))


def check_crop(definition: Mapping[str, Any], crop: Sequence[int]) -> None:
    """Check, as training does, that a network takes a crop.

    Raises:
        ValueError: If it does not.
    """
    network = _on_meta_device(json.dumps(definition))
    check_network(network, int(definition["in_channels"]), int(definition["out_channels"]), crop)


@functools.lru_cache(maxsize=8)
def _on_meta_device(definition: str) -> nn.Module:
    """Return a network without memory for its weights."""
    try:
        with torch.device("meta"):
            network: nn.Module = ConfigComponent(json.loads(definition)).instantiate()
    except RuntimeError:  # some compute with tensors while they are built
        network = ConfigComponent(json.loads(definition)).instantiate().to("meta")
    return network.train()


def step_cost(definition: Mapping[str, Any], crop: Sequence[int]) -> StepCost:
    """Return the cost of one crop, counted without computing anything.

    Args:
        definition: ``_target_`` and arguments of the network, from :func:`resolved_network`.
        crop: voxels along each axis, which the network takes.
    """
    network = _on_meta_device(json.dumps(definition))
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), counter:
        output = network(torch.zeros(1, int(definition["in_channels"]), *crop, device="meta"))
    del output  # what it keeps must not be freed, and its place taken, before all is counted
    return StepCost(sum(kept.values()), sum(map(Tensor.numel, network.parameters())), counter.get_total_flops())


def step_bytes(cost: StepCost, crop: Sequence[int], crops: int, classes: int, optimizer: str, *, half: bool) -> float:
    """Return the peak memory of a training step in bytes.

    Args:
        cost: cost of one crop.
        crop: voxels along each axis.
        crops: number of crops of the step.
        classes: classes, background included.
        optimizer: its ``_target_``.
        half: mixed precision on a GPU.
    """
    activations = crops * cost.activations * (HALF_SHARE if half else 1.0)
    loss = crops * LOSS_COPIES * 4 * classes * prod(crop)
    weights = cost.weights * BYTES_PER_WEIGHT.get(optimizer, max(BYTES_PER_WEIGHT.values()))
    return activations + loss + weights + (CONTEXT_BYTES if half else 0)


def step_seconds(definition: Mapping[str, Any], crop: Sequence[int], crops: int, device: str) -> float:
    """Measure the seconds of a forward and backward pass on a device, in mixed precision where it is a GPU."""
    network = prepare_network(ConfigComponent(dict(definition)).instantiate(), device, None, [1, *crop]).train()
    image = torch.zeros(crops, int(definition["in_channels"]), *crop, device=device)
    seconds = 0.0
    for _ in range(2):  # the first chooses algorithms and fills caches
        start = time.perf_counter()
        with torch.autocast(device, enabled=device == "cuda"):
            output = network(image)
            outputs = output if isinstance(output, (list, tuple)) else [output]
            loss = torch.stack([each.float().square().mean() for each in outputs]).sum()
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds
