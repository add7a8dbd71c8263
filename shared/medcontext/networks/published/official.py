"""Published checkpoints in our networks: one mapping of key names per network, one loader for all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from medcontext.networks.wrappers import find_token_masking, plain_network

__all__ = ["MASK_TOKEN", "OfficialEntry", "OfficialReport", "load_official_state_dict", "register_official"]

OfficialEntry: TypeAlias = Callable[[Any, str, Tensor], tuple[str, Tensor] | None]
"""From (network, published name, its tensor) to our name and the tensor in our layout, or ``None`` for no place."""

MASK_TOKEN = "mask_token"  # of token masking: part of the wrapper, not of the network
_VERIFIED_LEAF = "relative_position_index"  # decided by the constructor: compared, never overwritten
# of DDP, torch.compile, TokenMasking, and what the authors' training scripts strip
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|network|backbone)\.)+")


@dataclass(frozen=True)
class OfficialReport:
    """What became of every tensor of a published checkpoint.

    Attributes:
        loaded: published name → the name of ours that it filled; where several published names share one tensor of
            ours, the last one's value stays.
        verified: published index tables, found equal to those of the network.
        unused: published names without a place in the network.
        missing: our names for which the checkpoint held nothing; they keep their values.
        optional: the same for what no checkpoint needs to hold: parameters that the network never uses, and the mask
            token of token masking.
    """

    loaded: Mapping[str, str] = field(default_factory=dict)
    verified: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded, {len(self.verified)} index tables verified"]
        for title, names in (
            ("without a place in the network", self.unused),
            ("left as they were", self.missing),
            ("not in the checkpoint and not needed", self.optional),
        ):
            if names:
                lines.append(f"{len(names)} {title}: {_by_pattern(names)}")
        return "\n".join(lines)


def _by_pattern(names: Iterable[str]) -> str:
    """Names in one line, those that differ in an index only as ``blocks.*.weight (12)``."""
    patterns = Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in patterns.items())


@dataclass(frozen=True)
class _Official:
    entry: OfficialEntry
    arguments: tuple[tuple[str, str, int], ...]
    never_used: re.Pattern[str] | None


_OFFICIAL: dict[type[nn.Module], _Official] = {}


def register_official(
    network_class: type[nn.Module], *, arguments: Iterable[tuple[str, str, int]] = (), never_used: str | None = None
) -> Callable[[OfficialEntry], OfficialEntry]:
    """Decorate the function that says where a published tensor belongs in networks of a class.

    Args:
        network_class: the class; subclasses are included.
        arguments: (constructor argument, our tensor, axis) for sizes that show in shapes, so that a checkpoint of
            other arguments can be told which ones.
        never_used: regular expression of our names that a checkpoint may lack because ``forward`` never uses them.
    """
    pattern = None if never_used is None else re.compile(never_used)

    def register(entry: OfficialEntry) -> OfficialEntry:
        _OFFICIAL[network_class] = _Official(entry, tuple(arguments), pattern)
        return entry

    return register


def _official_of(network: nn.Module) -> _Official:
    for network_class in type(network).__mro__:
        if network_class in _OFFICIAL:
            return _OFFICIAL[network_class]
    known = ", ".join(sorted(network_class.__name__ for network_class in _OFFICIAL))
    raise ValueError(f"No published names are known for {type(network).__name__}; they are for {known}.")


def _place(network: nn.Module, entry: OfficialEntry, name: str, published: Tensor) -> tuple[str, Tensor] | None:
    key = _WRAPPERS.sub("", name)
    if key.rpartition(".")[2] != MASK_TOKEN:
        return entry(network, key, published)
    flat = sum(size > 1 for size in published.shape) < 2  # one token, whatever axes it is kept with
    return MASK_TOKEN, published.reshape(-1) if flat else published


_Pair: TypeAlias = tuple[str, Tensor, str, Tensor]  # published name, its tensor in our layout, our name, our tensor


def _differing(pairs: Iterable[_Pair]) -> list[str]:
    problems = []
    for name, tensor, target, own in pairs:
        if tensor.shape != own.shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, {target} {tuple(own.shape)}")
        elif name.endswith(_VERIFIED_LEAF) and not torch.equal(tensor.to(own), own):
            problems.append(f"{name} holds another index than {target} (see window_size and `relative_position`)")
    return problems


def _differing_arguments(arguments: Iterable[tuple[str, str, int]], pairs: Iterable[_Pair]) -> str:
    shapes = {target: (tensor.shape, own.shape) for _, tensor, target, own in pairs}
    found = []
    for argument, target, axis in arguments:
        theirs, own = shapes.get(target, (torch.Size(), torch.Size()))
        if len(theirs) == len(own) > axis and theirs[axis] != own[axis]:
            found.append(f"{argument} {theirs[axis]} (here {own[axis]})")
    return f" It was trained with {', '.join(found)}." if found else ""


def _refuse(problems: list[str], network: nn.Module, hint: str) -> None:
    if problems:
        raise ValueError(
            f"The checkpoint and this {type(network).__name__} differ in {len(problems)} tensors: "
            f"{'; '.join(problems[:3])}.{hint} Build the network with the arguments that the checkpoint was "
            "trained with."
        )


def load_official_state_dict(
    network: nn.Module, state_dict: Mapping[str, Tensor], *, strict: bool = True
) -> OfficialReport:
    """Fill a network with the weights of a published checkpoint.

    Nothing is written unless everything fits. Published tensors that the network has no place for (such as the heads
    of deep supervision in a network without it) are reported, not refused. A published mask token fills that of a
    :class:`~medcontext.networks.TokenMasking` around the network; without one it has no place.

    Args:
        network: the network, or a wrapper around it (token masking, DDP, ``torch.compile``).
        state_dict: the checkpoint's tensors by their published names, with or without the prefixes of such wrappers.
        strict: refuse a checkpoint that leaves any tensor of the network as it was, those aside that it never uses.

    Returns:
        What became of every tensor, ours and theirs.

    Raises:
        ValueError: If the network's published names are not known; none of the tensors has a place; a shape or an
            index table differs; or, if ``strict``, a tensor of the network has no counterpart.
    """
    masking, network = find_token_masking(network), plain_network(network)
    official, own = _official_of(network), dict(network.state_dict())
    if masking is not None:
        own[MASK_TOKEN] = masking.mask_token
    pairs, unused = _pair(network, official.entry, own, state_dict)
    _refuse(_differing(pairs), network, _differing_arguments(official.arguments, pairs))
    missing, optional = _unfilled(own, pairs, official.never_used)
    if strict:
        strangers = f" It holds {len(unused)} without a place, such as {unused[0]}." if unused else ""
        hint = f"{strangers} With strict=False they keep their values."
        _refuse([f"it holds nothing for {name}" for name in missing], network, hint)
    weights = [pair for pair in pairs if not pair[0].endswith(_VERIFIED_LEAF)]
    with torch.no_grad():
        for _, tensor, _, own_tensor in weights:
            own_tensor.copy_(tensor)
    verified = tuple(name for name, *_ in pairs if name.endswith(_VERIFIED_LEAF))
    loaded = {name: target for name, _, target, _ in weights}
    return OfficialReport(loaded, verified, unused, missing, optional)


def _pair(
    network: nn.Module, entry: OfficialEntry, own: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]
) -> tuple[list[_Pair], tuple[str, ...]]:
    """The published tensors beside those of ours that they belong to, and the names of those without a place.

    Raises:
        ValueError: If none has a place.
    """
    pairs: list[_Pair] = []
    unused: list[str] = []
    for name, published in state_dict.items():
        place = _place(network, entry, name, published)
        if place is None or place[0] not in own:
            unused.append(name)
        else:
            pairs.append((name, place[1], place[0], own[place[0]]))
    if unused and not pairs:
        raise ValueError(
            f"None of the checkpoint's {len(unused)} tensors, such as {unused[0]}, has a place in "
            f"{type(network).__name__}; it is of another network."
        )
    return pairs, tuple(unused)


def _unfilled(
    own: Iterable[str], pairs: Iterable[_Pair], never_used: re.Pattern[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Our names that the checkpoint holds nothing for: those that it should, and those that it need not."""
    filled = {target for _, _, target, _ in pairs}
    names = [name for name in own if name not in filled and not name.endswith(_VERIFIED_LEAF)]
    optional = [
        name for name in names if name == MASK_TOKEN or (never_used is not None and never_used.search(name) is not None)
    ]
    return tuple(name for name in names if name not in optional), tuple(optional)
