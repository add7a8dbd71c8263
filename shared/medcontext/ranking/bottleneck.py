"""What a network sees in a scan, in few numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["Bottleneck"]


class Bottleneck:
    """Mean features at the coarsest grid that a convolution of a network reads, of the last such convolution.

    Args:
        network: a network of convolutions.
        channels: channels of the image.
        size: spatial size of its crop.

    Raises:
        ValueError: If the network has no convolution.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 4, 2, stride=2), nn.ConvTranspose3d(4, 2, 2, stride=2))
        >>> bottleneck = Bottleneck(network, 1, (4, 4, 4))
        >>> with bottleneck.collect() as found:
        ...     _ = network(torch.ones(1, 1, 4, 4, 4))
        >>> len(found), found[0].shape
        (1, torch.Size([4]))
    """

    def __init__(self, network: nn.Module, channels: int, size: Sequence[int]) -> None:
        grids: dict[nn.Module, int] = {}

        def note(module: nn.Module, inputs: Any) -> None:
            grids.setdefault(module, math.prod(inputs[0].shape[2:]))

        modules = [module for module in network.modules() if isinstance(module, _ConvNd)]
        device = next(network.parameters()).device
        with contextlib.ExitStack() as hooks, torch.no_grad():
            for module in modules:
                hooks.callback(module.register_forward_pre_hook(note).remove)
            network(torch.zeros(1, channels, *size, device=device))
        if not grids:
            raise ValueError(f"{type(network).__name__} has no convolution whose features could be compared.")
        self.module = min(reversed(grids), key=lambda module: grids[module])

    @contextlib.contextmanager
    def collect(self) -> Iterator[list[Tensor]]:
        """Collect the features (F,) of each image that the network sees meanwhile, averaged over the grid."""
        found: list[Tensor] = []

        def note(_: nn.Module, inputs: Any) -> None:
            found.extend(inputs[0].detach().float().flatten(2).mean(2).cpu())

        handle = self.module.register_forward_pre_hook(note)
        try:
            yield found
        finally:
            handle.remove()
