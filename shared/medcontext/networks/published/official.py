"""Published checkpoints in our networks: one map of names per network, one loader for all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from medcontext.networks.state_dicts import best_prefix
from medcontext.networks.wrappers import find_token_masking, plain_network

__all__ = ["MASK_TOKEN", "OfficialEntry", "OfficialReport", "load_official_state_dict", "register_official"]

OfficialEntry: TypeAlias = Callable[[Any, str, Tensor], tuple[str, Tensor] | None]
"""From (network, published name, its tensor) to our name and the tensor in our layout, or ``None`` if we have none."""

MASK_TOKEN = "mask_token"  # of token masking: part of the wrapper, not of the network
_INDEX_TABLE = "relative_position_index"  # set by the constructor: compared, never overwritten
# of DDP, torch.compile, TokenMasking, and those that the authors' training scripts strip
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|network|backbone)\.)+")


@dataclass(frozen=True)
class OfficialReport:
    """Report on every tensor of a published checkpoint.

    Attributes:
        loaded: our name by the published one; where several published names share one tensor of ours, the last value
            is kept.
        verified: published index tables that equal those of the network.
        unused: published names that the network does not have.
        missing: our names that the checkpoint does not have; they keep their values.
        optional: the same for tensors that no checkpoint needs to have: parameters that the network never uses, and the
            mask token of token masking.
    """

    loaded: Mapping[str, str] = field(default_factory=dict)
    verified: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded, {len(self.verified)} index tables verified"]
        for title, names in (
            ("not in the network, ignored", self.unused),
            ("not in the checkpoint, not filled", self.missing),
            ("not in the checkpoint and not needed", self.optional),
        ):
            if names:
                lines.append(f"{len(names)} {title}: {_joined_by_pattern(names)}")
        return "\n".join(lines)


def _joined_by_pattern(names: Iterable[str]) -> str:
    """Join the names to one line, those that differ in an index only as ``blocks.*.weight (12)``."""
    patterns = Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in patterns.items())


@dataclass(frozen=True)
class _Registration:
    """How published checkpoints of a class of networks are read, see :func:`register_official`."""

    entry: OfficialEntry
    arguments: tuple[tuple[str, str, int], ...]
    never_used: re.Pattern[str] | None


_REGISTERED: dict[type[nn.Module], _Registration] = {}


def register_official(
    network_class: type[nn.Module], *, arguments: Iterable[tuple[str, str, int]] = (), never_used: str | None = None
) -> Callable[[OfficialEntry], OfficialEntry]:
    """Decorate the function that maps published tensors to networks of a class.

    Args:
        network_class: the class; subclasses are included.
        arguments: (constructor argument, our tensor, axis) for sizes that show in shapes, so that the error for a
            checkpoint of other arguments can name them.
        never_used: regular expression of our names that a checkpoint may lack because ``forward`` never uses them.
    """
    pattern = None if never_used is None else re.compile(never_used)

    def register(entry: OfficialEntry) -> OfficialEntry:
        _REGISTERED[network_class] = _Registration(entry, tuple(arguments), pattern)
        return entry

    return register


def _registration_of(network: nn.Module) -> _Registration:
    for network_class in type(network).__mro__:
        if network_class in _REGISTERED:
            return _REGISTERED[network_class]
    known = ", ".join(sorted(network_class.__name__ for network_class in _REGISTERED))
    raise ValueError(f"No published checkpoints are known for {type(network).__name__}, only for {known}.")


def _translated(network: nn.Module, entry: OfficialEntry, name: str, published: Tensor) -> tuple[str, Tensor] | None:
    key = _WRAPPERS.sub("", name)
    if key.rpartition(".")[2] != MASK_TOKEN:
        return entry(network, key, published)
    flat = sum(size > 1 for size in published.shape) < 2  # one token, with whatever axes of length 1
    return MASK_TOKEN, published.reshape(-1) if flat else published


_Pair: TypeAlias = tuple[str, Tensor, str, Tensor]  # published name, its tensor in our layout, our name, our tensor


def _differing_tensors(pairs: Iterable[_Pair]) -> list[str]:
    problems = []
    for name, tensor, target, own in pairs:
        if tensor.shape != own.shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, {target} {tuple(own.shape)}")
        elif name.endswith(_INDEX_TABLE) and not torch.equal(tensor.to(own), own):
            problems.append(f"{name} holds another index than {target} (see window_size and `relative_position`)")
    return problems


def _differing_arguments(arguments: Iterable[tuple[str, str, int]], pairs: Iterable[_Pair]) -> str:
    shapes = {target: (tensor.shape, own.shape) for _, tensor, target, own in pairs}
    differing = []
    for argument, target, axis in arguments:
        theirs, own = shapes.get(target, (torch.Size(), torch.Size()))
        if len(theirs) == len(own) > axis and theirs[axis] != own[axis]:
            differing.append(f"{argument} {theirs[axis]} (here {own[axis]})")
    return f" It was trained with {', '.join(differing)}." if differing else ""


def _refuse_problems(problems: list[str], network: nn.Module, hint: str) -> None:
    if problems:
        raise ValueError(
            f"The checkpoint and this {type(network).__name__} differ in {len(problems)} tensors: "
            f"{'; '.join(problems[:3])}.{hint} Build the network with the arguments that the checkpoint was "
            "trained with."
        )


def load_official_state_dict(
    network: nn.Module, state_dict: Mapping[str, Tensor], *, strict: bool = True
) -> OfficialReport:
    """Load the weights of a published checkpoint into a network.

    The network is left as it was unless everything matches. Published tensors that it does not have (such as the heads
    of deep supervision in a network without it) are reported, not refused. A published mask token is loaded into a
    :class:`~medcontext.networks.TokenMasking` around the network, and ignored where there is none.

    Args:
        network: the network, or a wrapper around it (token masking, DDP, ``torch.compile``).
        state_dict: the checkpoint's tensors by their published names, with or without the prefixes of such wrappers.
        strict: refuse a checkpoint that does not fill every tensor of the network, except those that it never uses.

    Returns:
        A report on every tensor, ours and theirs.

    Raises:
        ValueError: If no published checkpoints are known for the network; if none of the tensors, or with ``strict``
            not every tensor, has a counterpart; or if a shape or an index table differs.
    """
    masking, network = find_token_masking(network), plain_network(network)
    registration, own = _registration_of(network), dict(network.state_dict())
    if masking is not None:
        own[MASK_TOKEN] = masking.mask_token
    pairs, unused = _pair_tensors(network, registration.entry, own, state_dict)
    _refuse_problems(_differing_tensors(pairs), network, _differing_arguments(registration.arguments, pairs))
    missing, optional = _unfilled(own, pairs, registration.never_used)
    if strict:
        ignored = f" It holds {len(unused)} that the network lacks, such as {unused[0]}." if unused else ""
        hint = f"{ignored} With strict=False they keep their values."
        _refuse_problems([f"it holds nothing for {name}" for name in missing], network, hint)
    weights = [pair for pair in pairs if not pair[0].endswith(_INDEX_TABLE)]
    with torch.no_grad():
        for _, tensor, _, own_tensor in weights:
            own_tensor.copy_(tensor)
    verified = tuple(name for name, *_ in pairs if name.endswith(_INDEX_TABLE))
    loaded = {name: target for name, _, target, _ in weights}
    return OfficialReport(loaded, verified, unused, missing, optional)


def _pair_tensors(
    network: nn.Module, entry: OfficialEntry, own: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]
) -> tuple[list[_Pair], tuple[str, ...]]:
    """Pair the published tensors with ours, and return the names of those without a counterpart too.

    Raises:
        ValueError: If none has a counterpart.
    """

    def paired(prefix: str) -> list[_Pair]:
        found = [
            (name, _translated(network, entry, name.removeprefix(prefix), state_dict[name])) for name in state_dict
        ]
        return [(name, pair[1], pair[0], own[pair[0]]) for name, pair in found if pair is not None and pair[0] in own]

    prefix = best_prefix(state_dict, lambda start: len(paired(start))) if state_dict else ""
    pairs = paired(prefix)
    taken = {name for name, *_ in pairs}
    unused = [name for name in state_dict if name not in taken]
    if unused and not pairs:
        raise ValueError(
            f"None of the checkpoint's {len(unused)} tensors, such as {unused[0]}, is one of "
            f"{type(network).__name__}; the checkpoint is of another network."
        )
    return pairs, tuple(unused)


def _unfilled(
    own: Iterable[str], pairs: Iterable[_Pair], never_used: re.Pattern[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return our names that the checkpoint lacks: those that it should have, and those that it need not have."""
    filled = {target for _, _, target, _ in pairs}
    names = [name for name in own if name not in filled and not name.endswith(_INDEX_TABLE)]
    optional = [
        name for name in names if name == MASK_TOKEN or (never_used is not None and never_used.search(name) is not None)
    ]
    return tuple(name for name in names if name not in optional), tuple(optional)
