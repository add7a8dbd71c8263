"""Published checkpoints in our networks: one mapping of key names per network, one loader for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from medcontext.networks.wrapping import plain_network

__all__ = ["OfficialEntry", "OfficialReport", "load_official_state_dict", "register_official"]

OfficialEntry: TypeAlias = Callable[[Any, str, Tensor], tuple[str, Tensor] | None]
"""From (network, published name, its tensor) to our name and the tensor in our layout, or ``None`` for no place."""

_ENTRIES: dict[type[nn.Module], OfficialEntry] = {}
_VERIFIED_LEAF = "relative_position_index"  # decided by the constructor: compared, never overwritten


@dataclass(frozen=True)
class OfficialReport:
    """What became of every tensor of a published checkpoint.

    Attributes:
        loaded: published name → the name of ours that it filled; where several published names share one tensor of
            ours, the last one's value stays.
        verified: published index tables, found equal to those of the network.
        unused: published names without a place in the network.
        missing: our names for which the checkpoint held nothing; they keep their values.
    """

    loaded: Mapping[str, str] = field(default_factory=dict)
    verified: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded, {len(self.verified)} index tables verified"]
        for title, names in (("without a place in the network", self.unused), ("left as they were", self.missing)):
            if names:
                lines.append(f"{len(names)} {title}: {', '.join(names)}")
        return "\n".join(lines)


def register_official(network_class: type[nn.Module]) -> Callable[[OfficialEntry], OfficialEntry]:
    """Decorate the function that says where a published tensor belongs in networks of a class."""

    def register(entry: OfficialEntry) -> OfficialEntry:
        _ENTRIES[network_class] = entry
        return entry

    return register


def _entry_of(network: nn.Module) -> OfficialEntry:
    for network_class in type(network).__mro__:
        if network_class in _ENTRIES:
            return _ENTRIES[network_class]
    known = ", ".join(sorted(network_class.__name__ for network_class in _ENTRIES))
    raise ValueError(f"No published names are known for {type(network).__name__}; they are for {known}.")


def _refuse(problems: list[str], network: nn.Module) -> None:
    if problems:
        raise ValueError(
            f"The checkpoint and this {type(network).__name__} differ in {len(problems)} tensors: "
            f"{'; '.join(problems[:3])}. Build the network with the arguments that the checkpoint was trained with."
        )


def _differing(pairs: Iterable[tuple[str, Tensor, str, Tensor]]) -> list[str]:
    problems = []
    for name, tensor, target, own in pairs:
        if tensor.shape != own.shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, {target} {tuple(own.shape)}")
        elif name.endswith(_VERIFIED_LEAF) and not torch.equal(tensor.to(own), own):
            problems.append(f"{name} holds another index than {target} (see `relative_position`)")
    return problems


def load_official_state_dict(
    network: nn.Module, state_dict: Mapping[str, Tensor], *, strict: bool = True
) -> OfficialReport:
    """Fill a network with the weights of a published checkpoint.

    Nothing is written unless everything fits. Published tensors that the network has no place for (such as the heads
    of deep supervision in a network without it) are reported, not refused.

    Args:
        network: the network, or a wrapper around it (token masking, DDP, ``torch.compile``).
        state_dict: the checkpoint's tensors by their published names, with or without the prefix ``module.``.
        strict: refuse a checkpoint that leaves any tensor of the network as it was.

    Returns:
        What became of every tensor, ours and theirs.

    Raises:
        ValueError: When the network's published names are not known; a shape or an index table differs; or, if
            ``strict``, a tensor of the network has no counterpart.
    """
    network = plain_network(network)
    entry, own = _entry_of(network), network.state_dict()
    pairs: list[tuple[str, Tensor, str, Tensor]] = []
    unused: list[str] = []
    for name, published in state_dict.items():
        place = entry(network, name.removeprefix("module."), published)  # the prefix of data-parallel training
        if place is None or place[0] not in own:
            unused.append(name)
        else:
            pairs.append((name, place[1], place[0], own[place[0]]))
    _refuse(_differing(pairs), network)
    filled = {target for _, _, target, _ in pairs}
    missing = tuple(name for name in own if name not in filled and not name.endswith(_VERIFIED_LEAF))
    if strict:
        _refuse([f"it holds nothing for {name}" for name in missing], network)
    weights = [pair for pair in pairs if not pair[0].endswith(_VERIFIED_LEAF)]
    with torch.no_grad():
        for _, tensor, _, own_tensor in weights:
            own_tensor.copy_(tensor)
    verified = tuple(name for name, *_ in pairs if name.endswith(_VERIFIED_LEAF))
    return OfficialReport({name: target for name, _, target, _ in weights}, verified, tuple(unused), missing)
