"""Reading and writing checkpoints, and loading their weights into networks."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medcontext.faults import disk_remedy
from medcontext.networks.model_file import MODEL_INFO_FILE, check_weights_hash
from medcontext.networks.state_dicts import StateDict, best_state, check_finite, misfit, refuse_ensemble
from medcontext.storage.files import whole_file, write_file
from medcontext.storage.json_files import json_text

__all__ = [
    "CheckpointWriteError",
    "fitting_weights",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
    "write_model_file",
]


class CheckpointWriteError(OSError):
    """A checkpoint could not be written, such as on a full disk.

    Args:
        path: the file.
        error: what prevented it.
    """

    def __init__(self, path: str | os.PathLike[str], error: BaseException) -> None:
        remedy = disk_remedy(error) or "check the disk"
        super().__init__(f"Could not write {path} ({_disk_error(error)}); {remedy}, then resume.")


def _disk_error(error: BaseException) -> BaseException:
    """Return the disk's error, which PyTorch replaces by one of its own."""
    context = error.__context__
    return context if isinstance(context, OSError) and not isinstance(error, OSError) else error


def save_checkpoint(content: Any, path: str | os.PathLike[str], previous: Path | None = None) -> None:
    """Write a checkpoint with ``torch.save`` such that ``path`` is complete at any moment.

    Args:
        content: tensors and plain values.
        path: file to write.
        previous: name under which an earlier file is kept, see :func:`~medcontext.storage.files.whole_file`.

    Raises:
        CheckpointWriteError: If the file cannot be written; an earlier one is kept.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(nn.Conv3d(1, 2, 1).state_dict(), f"{folder}/model.pt")
        ...     sorted(load_checkpoint(f"{folder}/model.pt"))
        ['bias', 'weight']
    """
    try:
        with whole_file(Path(path), previous) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        raise CheckpointWriteError(path, error) from error


def write_model_file(ckpt_path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write the ``model.json`` that describes a checkpoint, in place of an earlier one.

    Raises:
        CheckpointWriteError: If the file cannot be written; an earlier one is kept.
    """
    path = Path(ckpt_path).with_name(MODEL_INFO_FILE)
    try:
        write_file(path, json_text(content).encode())
    except OSError as error:
        raise CheckpointWriteError(path, error) from error


def load_checkpoint(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values whose checksums match; code in the file is never run.

    Files that end in ``.safetensors`` are read too.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If it is in the format of safetensors, and the package is missing.
        ValueError: If the file is damaged or not a readable checkpoint, or holds code.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint({"epoch": 3}, f"{folder}/last.pt")
        ...     load_checkpoint(f"{folder}/last.pt")
        {'epoch': 3}
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}; give the run's models folder as --ckpt_dir.")
    if _has_wrong_checksum(Path(path)):
        raise ValueError(f"{path} is damaged: its checksum does not match its content; use another file.")
    try:
        content: dict[str, Any] = (
            _safetensors()(path, device=str(device))
            if Path(path).suffix == ".safetensors"
            else torch.load(path, map_location=device, weights_only=True)
        )
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"{path} {_reading_problem(error)}") from error
    return content


def _has_wrong_checksum(path: Path) -> bool:
    """Return whether a tensor differs from its checksum, which PyTorch writes into its archives but never compares."""
    if not zipfile.is_zipfile(path):  # of an old version of PyTorch, or no checkpoint
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except Exception:  # a damaged archive raises many kinds
        return True


def _safetensors() -> Callable[..., dict[str, Any]]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError("Reading .safetensors needs a package: pip install safetensors") from error
    return load_file


def _reading_problem(error: Exception) -> str:
    """Say what is wrong with a file that PyTorch's restricted reader refused."""
    name = re.search(r"GLOBAL (\S+)", str(error))
    if name is not None or "TorchScript" in str(error):
        code = f"refers to {name[1]}" if name is not None else "is a TorchScript archive"
        return (
            f"{code}: it holds code, which is not run. If you trust its source, load it there and save the weights "
            "alone: torch.save(network.state_dict(), 'weights.pt')."
        )
    return f"is damaged or not a checkpoint ({type(error).__name__}); use another file."


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Load all weights in a file into a network.

    The file may wrap them in an entry (``state_dict``, ``model``, ...) and their names in one prefix (``net.``,
    ``module.``, ...), as trainers do, and may be in the format of safetensors.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If it is in the format of safetensors, and the package is missing.
        ValueError: If the file is damaged, is not the one that ``model.json`` beside it describes, or its weights are
            not finite or those of another network.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint({"weight": torch.full((2, 1, 1, 1, 1), 3.0)}, f"{folder}/model.pt")
        ...     network = load_weights(nn.Conv3d(1, 2, 1, bias=False), f"{folder}/model.pt")
        >>> network.weight.mean().item()
        3.0
    """
    weights = fitting_weights(network, load_checkpoint(path), path)
    check_weights_hash(path, weights)
    network.load_state_dict(weights)
    return network


def fitting_weights(network: nn.Module, content: Mapping[str, Any], path: str | os.PathLike[str]) -> StateDict:
    """Return the weights in the content of a checkpoint by the names of a network's tensors.

    Args:
        network: the network.
        content: content of the checkpoint, from :func:`load_checkpoint`.
        path: its file, for messages.

    Raises:
        ValueError: If it holds an ensemble, or weights that are not finite or those of another network.
    """
    refuse_ensemble(content, path)
    own = network.state_dict()
    weights, entries = best_state(content, own)
    if not weights:
        raise ValueError(f"{path} does not hold the weights of a network by name; give a model.pt or teacher.pt.")
    reason = misfit(own, weights)
    if reason:
        raise ValueError(f"The weights in {path} are not those of this {type(network).__name__}: {reason}.")
    if len(entries) > 1:
        raise ValueError(
            f"{path} holds {len(entries)} networks, {' and '.join(entries)}; give the model.pt or teacher.pt beside "
            "it, or write one to a file by `python -m medcontext convert_weights --entry`."
        )
    check_finite(weights, path)
    return weights
