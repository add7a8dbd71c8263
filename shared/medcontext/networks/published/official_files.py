"""Reading the tensors of published checkpoint files, whatever surrounds them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medcontext.networks.state_dicts import StateDict, check_finite, state_dicts
from medcontext.networks.weights import load_checkpoint

__all__ = ["load_official_checkpoint"]


class _LoggedNumber:
    """Placeholder for the NumPy numbers and types that nnU-Net logs beside the weights, whose values are not needed.

    Reading the real ones would let the file call NumPy.
    """

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


# PyTorch takes pairs of a callable and its name in the file
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_LoggedNumber, "numpy.dtype"),
    (_LoggedNumber, "numpy.core.multiarray.scalar"),
    (_LoggedNumber, "numpy._core.multiarray.scalar"),
]


def load_official_checkpoint(path: str | os.PathLike[str], *, entry: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of one network from a published checkpoint; code in the file is never run.

    The file holds the tensors by their names, or a dictionary with such a dictionary among its entries, under any name
    (``state_dict``, ``network_weights``, ...). nnU-Net's files are read too; the NumPy numbers that they log are
    dropped.

    Args:
        path: the file.
        entry: which of several networks in the file to read, such as ``"teacher_state_dict"``.

    Returns:
        The tensors by their published names, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a readable checkpoint, holds code or no weights, or those of several networks and
            ``entry`` does not say which, or weights that are not finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    with torch.serialization.safe_globals(_HARMLESS):
        content: Any = load_checkpoint(path)
    if not isinstance(content, Mapping) or not content:
        kind = "is empty" if isinstance(content, Mapping) else f"holds a {type(content).__name__}"
        raise ValueError(f"{path} {kind}; it should hold the weights of a network.")
    weights = _choose_entry(content, path, entry)
    check_finite(weights, path)
    return weights


def _choose_entry(content: Mapping[Any, Any], path: str | os.PathLike[str], entry: str | None) -> StateDict:
    """Return the only network in a file, or the one that is asked for."""
    networks = state_dicts(content)
    if not networks:
        names = [str(name) for name in content]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        raise ValueError(f"{path} holds no weights of a network; its entries are {', '.join(names[:8])}{more}.")
    if entry is not None and "" in networks:
        raise ValueError(f"{path} holds the tensors of one network and no entries; leave out entry {entry!r}.")
    if entry is None and len(networks) > 1:
        raise ValueError(f"{path} holds {len(networks)} networks; choose one by entry: {' or '.join(networks)}.")
    chosen = next(iter(networks)) if entry is None else entry
    if chosen not in networks:
        raise ValueError(f"{path} has no weights under entry {entry!r}, only under {' and '.join(networks)}.")
    return networks[chosen]
