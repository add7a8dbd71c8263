"""Wrapping a network, and unwrapping it again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from medcontext.networks.token_masking import TokenMasking

__all__ = [
    "find_token_masking",
    "make_teacher",
    "plain_network",
    "prepare_network",
]


def plain_network(network: nn.Module) -> nn.Module:
    """Return the segmentation network itself, without the wrappers of token masking, DDP and ``torch.compile``.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 2, 1))
        >>> plain_network(TokenMasking(network, "0", (1, 4, 4, 4))) is network
        True
    """
    if isinstance(network, TokenMasking):
        return plain_network(network.network)
    if isinstance(network, nn.parallel.DistributedDataParallel):
        return plain_network(network.module)
    original = getattr(network, "_orig_mod", None)
    return network if original is None else plain_network(original)


def find_token_masking(network: nn.Module) -> TokenMasking | None:
    """Return the token masking around a network, inside or outside of other wrappers, if there is one.

    Example:
        >>> find_token_masking(nn.Conv3d(1, 2, 1)) is None
        True
    """
    return next((module for module in network.modules() if isinstance(module, TokenMasking)), None)


def make_teacher(network: nn.Module) -> nn.Module:
    """Return a copy of the plain network, in evaluation mode and without gradients.

    Example:
        >>> teacher = make_teacher(nn.Conv3d(1, 2, 1))
        >>> teacher.training, any(parameter.requires_grad for parameter in teacher.parameters())
        (False, False)
    """
    return copy.deepcopy(plain_network(network)).requires_grad_(False).eval()


def prepare_network(
    network: nn.Module, device: torch.device | str, token_masking: Mapping[str, Any] | None, input_shape: Sequence[int]
) -> nn.Module:
    r"""Move the network to its device, and wrap it in :class:`TokenMasking` if arguments for it are given.

    Args:
        network: the plain network.
        device: device to run on.
        token_masking: arguments of :class:`TokenMasking`, or ``None``.
        input_shape: (C, \*spatial) of the crops.

    Example:
        >>> network = prepare_network(nn.Sequential(nn.Conv3d(1, 2, 1)), "cpu", {"embedding": "0"}, (1, 4, 4, 4))
        >>> type(network).__name__
        'TokenMasking'
    """
    on_cpu = torch.device(device).type == "cpu" and len(input_shape) == 4
    # on the CPU oneDNN's own layout saves conversions between layers
    network = network.to(device, memory_format=torch.channels_last_3d if on_cpu else None)  # type: ignore[call-overload]
    return (
        network if token_masking is None else TokenMasking(network, input_shape=input_shape, **token_masking).to(device)
    )
