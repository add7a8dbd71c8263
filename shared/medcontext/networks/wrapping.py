"""Putting wrappers around a network, taking them off again, and filling it with weights."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medcontext.networks.token_masking import TokenMasking

__all__ = [
    "find_token_masking",
    "load_checkpoint",
    "load_weights",
    "make_teacher",
    "plain_network",
    "prepare_network",
]


def plain_network(network: nn.Module) -> nn.Module:
    """The segmentation network itself, without the wrappers of token masking, DDP and ``torch.compile``."""
    if isinstance(network, TokenMasking):
        return plain_network(network.network)
    if isinstance(network, nn.parallel.DistributedDataParallel):
        return plain_network(network.module)
    original = getattr(network, "_orig_mod", None)
    return network if original is None else plain_network(original)


def find_token_masking(network: nn.Module) -> TokenMasking | None:
    """The token masking around a network, inside or outside of other wrappers, if there is one."""
    return next((module for module in network.modules() if isinstance(module, TokenMasking)), None)


def make_teacher(network: nn.Module) -> nn.Module:
    """A copy of the plain network in evaluation mode whose parameters ask for no gradient."""
    return copy.deepcopy(plain_network(network)).requires_grad_(False).eval()


def prepare_network(
    network: nn.Module, device: torch.device | str, token_masking: Mapping[str, Any] | None, input_shape: Sequence[int]
) -> nn.Module:
    r"""The network on its device, wrapped in :class:`TokenMasking` if arguments for it are given.

    Args:
        network: the plain network.
        device: where it shall run.
        token_masking: arguments of :class:`TokenMasking`, or ``None``.
        input_shape: (C, \*spatial) of the crops.
    """
    layout = torch.device(device).type == "cpu" and len(input_shape) == 4
    # on the CPU oneDNN's own layout saves conversions between layers
    network = network.to(device, memory_format=torch.channels_last_3d if layout else None)  # type: ignore[call-overload]
    return (
        network if token_masking is None else TokenMasking(network, input_shape=input_shape, **token_masking).to(device)
    )


def load_checkpoint(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; code in the file is never run.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When the file is no readable checkpoint, or holds code.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}; give the run's models folder as --ckpt_dir.")
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} {_unreadable(error)}") from error
    return content


def _unreadable(error: Exception) -> str:
    """What is wrong with a file that PyTorch's restricted reader refused."""
    name = re.search(r"GLOBAL (\S+)", str(error))
    if name is not None or "TorchScript" in str(error):
        code = f"refers to {name[1]}" if name is not None else "is a TorchScript archive"
        return (
            f"{code}: it holds code, which is not run. If you trust its source, load it there and save the weights "
            "alone: torch.save(network.state_dict(), 'weights.pt')."
        )
    return f"is damaged or no checkpoint ({type(error).__name__}); use another one."


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Fill a network with the weights in a file, all of them.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When the file is damaged, or its weights are those of another network.
    """
    weights, own = load_checkpoint(path), network.state_dict()
    shapes = [{key: getattr(value, "shape", None) for key, value in state.items()} for state in (own, weights)]
    differing = [key for key in own.keys() | weights.keys() if shapes[0].get(key) != shapes[1].get(key)]
    if differing:
        raise ValueError(
            f"The weights in {path} are not those of this {type(network).__name__}: {len(differing)} of "
            f"{len(own)} tensors differ, such as {min(differing)}; give the overlays that it was trained with."
        )
    network.load_state_dict(weights)
    return network
