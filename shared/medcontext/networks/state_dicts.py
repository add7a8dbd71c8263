"""Finding the weights of a network in a checkpoint, whatever they are wrapped in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = [
    "StateDict",
    "best_prefix",
    "best_state",
    "check_finite",
    "ensemble_state",
    "member_states",
    "misfit",
    "refuse_ensemble",
    "state_dicts",
]

StateDict: TypeAlias = dict[str, Tensor]

_MEMBER = re.compile(r"members\.(\d+)\.(.+)")


def state_dicts(content: Any) -> dict[str, StateDict]:
    """Return the sets of weights in a checkpoint by their entry.

    A file holds tensors by their names, possibly among numbers, under the entry ``""``; or dictionaries of these, under
    any entry (``state_dict``, ``model``, ``network_weights``, ...).

    Example:
        >>> list(state_dicts({"state_dict": {"weight": torch.ones(1)}, "epoch": 3}))
        ['state_dict']
        >>> state_dicts({"weight": torch.ones(1), "epoch": 3})
        {'': {'weight': tensor([1.])}}
    """
    if not isinstance(content, Mapping):
        return {}
    inner = {str(entry): dict(value) for entry, value in content.items() if _is_state_dict(value)}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return inner or ({"": tensors} if tensors else {})


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items())
    )


def best_prefix(names: Mapping[str, Any], fitting: Callable[[str], int]) -> str:
    """Return the prefix that all names share, such as ``model.net.``, without which most of them fit.

    Args:
        names: names of tensors.
        fitting: returns how many names fit without a prefix.
    """
    return max(_prefixes(list(names)), key=fitting)  # the shortest of equals


def _prefixes(names: list[str]) -> Iterator[str]:
    """Yield the prefixes of whole words that all names have, from the empty one."""
    prefix = ""
    yield prefix
    while "." in names[0][len(prefix) :]:
        prefix += names[0][len(prefix) :].partition(".")[0] + "."
        if not all(name.startswith(prefix) for name in names):
            return
        yield prefix


def best_state(content: Any, own: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
    """Return the weights in a checkpoint that fit a network best, by the network's names.

    Args:
        content: the checkpoint.
        own: the network's tensors.

    Returns:
        The weights, and the entries that fit as well as they do, theirs included; nothing if there are no weights.
    """
    states = {entry: _without_prefix(state, own) for entry, state in state_dicts(content).items()}
    if not states:
        return {}, []
    scores = {entry: _score(state, own) for entry, state in states.items()}
    best = max(scores.values())
    entries = [entry for entry, score in scores.items() if score == best]
    return states[entries[0]], entries


def _without_prefix(state: StateDict, own: Mapping[str, Tensor]) -> StateDict:
    prefix = best_prefix(state, lambda start: sum(name.removeprefix(start) in own for name in state))
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _score(state: StateDict, own: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return how many tensors fit by name and shape, and how many do not, negated."""
    fitting = sum(name in own and own[name].shape == value.shape for name, value in state.items())
    return fitting, fitting - len(state)


def ensemble_state(states: Sequence[Mapping[str, Tensor]]) -> StateDict:
    """Return the weights of all members of an ensemble, by the names that :func:`member_states` reads.

    Example:
        >>> ensemble_state([{"bias": torch.ones(1)}, {"bias": torch.zeros(1)}])
        {'members.0.bias': tensor([1.]), 'members.1.bias': tensor([0.])}
    """
    return {f"members.{index}.{name}": value for index, state in enumerate(states) for name, value in state.items()}


def member_states(content: Any) -> list[StateDict]:
    """Return the weights of each member of an ensemble, none if a checkpoint holds no ensemble.

    Args:
        content: the checkpoint.
    """
    states: dict[int, StateDict] = {}
    for name, value in content.items() if isinstance(content, Mapping) else []:
        match = _MEMBER.fullmatch(str(name))
        if match is None:
            return []
        states.setdefault(int(match[1]), {})[match[2]] = value
    return [states[index] for index in sorted(states)]


def refuse_ensemble(content: Any, path: object) -> None:
    """Refuse a checkpoint of several networks where the weights of one are needed.

    Raises:
        ValueError: If it holds an ensemble.
    """
    if members := member_states(content):
        raise ValueError(
            f"{path} holds an ensemble of {len(members)} networks, which evaluation and prediction take; give the "
            "model.pt of one of its training runs."
        )


def check_finite(weights: Mapping[str, Tensor], path: object) -> None:
    """Check that no weight is NaN or infinite.

    Raises:
        ValueError: If one is.
    """
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(
            f"{path} holds weights that are NaN or infinite, in {len(broken)} of {len(weights)} tensors, such as "
            f"{broken[0]}; its training diverged, take an earlier checkpoint."
        )


def misfit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Return in words why weights are not those of a network, and what to do; nothing if they are.

    Args:
        own: the network's tensors.
        weights: the checkpoint's.
    """
    shared = [name for name in own if name in weights]
    if not shared:
        return (
            f"none of their {len(weights)} tensors, such as {min(weights)}, has a name of this network; they are of "
            "another network, or of a published checkpoint, which `python -m medcontext convert_weights` converts"
        )
    missing, others = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or others:
        parts = [f"they lack {len(missing)} tensors, such as {missing[0]}"] if missing else []
        parts += [f"they hold {len(others)} others, such as {others[0]}"] if others else []
        return f"{' and '.join(parts)}; give the network_def that they were trained with"
    reshaped = {name: (tuple(weights[name].shape), tuple(own[name].shape)) for name in shared}
    reshaped = {name: shapes for name, shapes in reshaped.items() if shapes[0] != shapes[1]}
    return _other_shapes(reshaped) if reshaped else ""


def _other_shapes(reshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> str:
    sizes = {
        (theirs, own) for shapes in reshaped.values() for theirs, own in zip(*shapes, strict=False) if theirs != own
    }
    same_axes = all(len(theirs) == len(own) for theirs, own in reshaped.values())
    if len(sizes) == 1 and same_axes and len(reshaped) < 10:
        ((theirs, here),) = sizes
        is_head = any(len(own) == 1 for _, own in reshaped.values())
        kind, key = ("out_channels", "labels") if is_head else ("in_channels", "in_channels")
        return f"they were trained with {kind} {theirs}, not {here}; give the {key} that they were trained with"
    name = min(reshaped)
    return (
        f"{len(reshaped)} tensors have other sizes, such as {name} {reshaped[name][0]} instead of {reshaped[name][1]}; "
        "give the network_def, roi_size and overlays that they were trained with"
    )
