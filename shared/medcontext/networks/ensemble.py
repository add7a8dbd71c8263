"""Prediction with several checkpoints of one network."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medcontext.networks.model_file import check_weights_hash
from medcontext.networks.state_dicts import StateDict, member_states
from medcontext.networks.weights import fitting_weights, load_checkpoint
from medcontext.storage.file_memory import sha256_of

__all__ = ["CheckpointEnsemble", "MeanEnsemble", "checkpoint_record", "load_networks", "mean_logits"]

logger = logging.getLogger(__name__)

TINY = torch.finfo(torch.float32).tiny
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class CheckpointEnsemble(nn.Module):
    """One network that takes the weights of several checkpoints in turn.

    The device holds one set of weights, the others are kept in the CPU's memory. The output is the logarithm of the
    mean probability; its softmax is that mean. Swapping weights takes time:
    :class:`medcontext.inferers.AveragingInferer` swaps them once for each volume, not for each window.

    Args:
        network: the plain network, with weights of its own until the first pass.
        states: weights by name, one dictionary for each member.

    Raises:
        ValueError: If there is no member.

    Example:
        >>> states = [{"weight": torch.full((2, 1, 1, 1, 1), value)} for value in (0.0, 1.0)]
        >>> network = CheckpointEnsemble(nn.Conv3d(1, 2, 1, bias=False), states)
        >>> network(torch.ones(1, 1, 2, 2, 2)).softmax(1).mean().item()
        0.5
    """

    def __init__(self, network: nn.Module, states: Sequence[dict[str, Tensor]]) -> None:
        super().__init__()
        if not states:
            raise ValueError("states must hold the weights of at least one member, got none.")
        self.network = network
        self.states = list(states)

    def members(self) -> Iterator[nn.Module]:
        """Yield the network with the weights of each member in turn."""
        for state in self.states:
            self.network.load_state_dict(state)
            yield self.network

    def forward(self, image: Tensor) -> Tensor:
        r"""Return the joint logits (B, C, \*spatial) of all members."""
        return mean_logits(member(image) for member in self.members())


class MeanEnsemble(nn.Module):
    """An ensemble whose members are all on the device, for formats that hold one computation: TorchScript and ONNX.

    Its tensors have the names of those of the ensemble's ``model.pt``, so that MONAI's exports load them. The output is
    that of :class:`CheckpointEnsemble`.

    Args:
        network: the plain network.
        ckpt_path: the ensemble's ``model.pt``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no ensemble, or weights of another network.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     states = {f"members.{index}.weight": torch.ones(2, 1, 1, 1, 1) for index in range(2)}
        ...     torch.save(states, f"{folder}/model.pt")
        ...     network = MeanEnsemble(nn.Conv3d(1, 2, 1, bias=False), f"{folder}/model.pt")
        >>> network(torch.ones(1, 1, 2, 2, 2)).softmax(1).mean().item()
        0.5
    """

    def __init__(self, network: nn.Module, ckpt_path: str | os.PathLike[str]) -> None:
        super().__init__()
        ensemble = load_networks(network, ckpt_path)
        if not isinstance(ensemble, CheckpointEnsemble):
            raise ValueError(f"{ckpt_path} holds one network, not an ensemble; export it as network_def.")
        self.members = nn.ModuleList(copy.deepcopy(member) for member in ensemble.members())
        self.tiny = TINY  # TorchScript knows no globals

    def forward(self, image: Tensor) -> Tensor:
        r"""Return the joint logits (B, C, \*spatial) of all members."""
        total = torch.zeros(1, device=image.device)
        for member in self.members:
            total = total + member(image).float().softmax(dim=1)
        return (total / len(self.members)).clamp_min(self.tiny).log()


def mean_logits(outputs: Iterator[Tensor]) -> Tensor:
    r"""Return the logits whose softmax is the mean softmax of several logits, which are consumed one at a time.

    Args:
        outputs: logits (B, C, \*spatial), at least one.

    Returns:
        The logarithm of the mean probability, float32, on the device of the first.
    """
    total, count = next(outputs).float().softmax(dim=1), 1
    for logits in outputs:
        total += logits.float().softmax(dim=1)
        count += 1
        del logits
    return total.div_(count).clamp_min_(TINY).log_()


def load_networks(network: nn.Module, ckpt_path: Paths, *, required: bool = True) -> nn.Module:
    """Load the weights of a file into a network, or make an ensemble of it with those of several.

    Args:
        network: the plain network.
        ckpt_path: path of a ``model.pt`` or ``teacher.pt``, or several. A ``model.pt`` may hold an ensemble itself.
        required: whether a missing file is an error. Otherwise the network is returned as it is, with a warning, for
            programs that load weights into it by themselves.

    Returns:
        The network itself for one set of weights, else a :class:`CheckpointEnsemble`; :func:`checkpoint_record` returns
        the files.

    Raises:
        FileNotFoundError: If there is no such file, and it is required.
        ValueError: If no path is given or one is given twice, a file is damaged, or its weights are those of another
            network.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(nn.Conv3d(1, 2, 1).state_dict(), f"{folder}/model.pt")
        ...     network = load_networks(nn.Conv3d(1, 2, 1), f"{folder}/model.pt")
        >>> type(network).__name__
        'Conv3d'
    """
    paths = [Path(ckpt_path)] if isinstance(ckpt_path, str | os.PathLike) else [Path(path) for path in ckpt_path]
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"ckpt_path must name one checkpoint or several different ones, got {ckpt_path!r}.")
    missing = [path for path in paths if not path.is_file()]
    if missing and not required:
        logger.warning(
            "There is no %s, so the network has no trained weights until they are loaded into it.", missing[0]
        )
        return network
    states = list(_states(network, paths))
    network.load_state_dict(states[-1])
    loaded: Any = CheckpointEnsemble(network, states) if len(states) > 1 else network
    loaded.checkpoints = [{"file": str(path.absolute()), "sha256": sha256_of(path)} for path in paths]
    return loaded


def _states(network: nn.Module, paths: Sequence[Path]) -> Iterator[StateDict]:
    """Yield the weights of each network in files, by the names of a network's tensors."""
    for path in paths:
        content = load_checkpoint(path)
        members = member_states(content)
        states = [fitting_weights(network, state, path) for state in members or [content]]
        check_weights_hash(path, content if members else states[0])
        yield from states


def checkpoint_record(network: nn.Module) -> list[dict[str, str]]:
    """Return ``file`` and ``sha256`` of the checkpoints that :func:`load_networks` loaded into a network, if any.

    Example:
        >>> checkpoint_record(nn.Conv3d(1, 2, 1))
        []
    """
    return list(getattr(network, "checkpoints", []))
