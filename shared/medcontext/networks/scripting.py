"""TorchScript for networks that it cannot compile, but whose computation never branches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn

__all__ = ["TracedNetwork"]


class TracedNetwork(nn.Module):
    r"""The trace of a network for images of a fixed size, which takes the network's place where that is scripted.

    ``torch.jit.script`` asks a module for it by ``__prepare_scriptable__``, so MONAI's exports work as they do for
    networks that compile.

    Args:
        network: of images (B, in_channels, \*img_size), with its weights; traced in evaluation mode.
        in_channels: image channels.
        img_size: the one size that the network takes.
    """

    def __init__(self, network: nn.Module, in_channels: int, img_size: Sequence[int]) -> None:
        super().__init__()
        weight = next(network.parameters())
        image = torch.zeros(1, in_channels, *img_size, dtype=weight.dtype, device=weight.device)
        with eval_mode(network):
            self.network = torch.jit.trace(network, image, check_trace=False)

    def forward(self, image: Tensor) -> Tensor:
        r"""Return the logits (B, out_channels, \*img_size) of a batch of any length."""
        logits: Tensor = self.network(image)
        return logits
