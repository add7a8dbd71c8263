"""The origin of an evaluation's numbers, and the folder that keeps them apart from those of other data."""

from __future__ import annotations

import logging
import os
import platform
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import monai
import torch

import medcontext
from medcontext.storage.addresses import without_password
from medcontext.storage.file_memory import sha256_of
from medcontext.storage.git import ask_git
from medcontext.storage.json_files import read_json

__all__ = [
    "checkpoint_sha256",
    "circumstances",
    "device_name",
    "evaluation_dir",
    "selected_weights",
    "training_settings",
]

logger = logging.getLogger(__name__)

_SETTINGS = ("dataset", "mode", "seed", "train_fraction", "train_cases", "fold", "max_epochs")


def circumstances() -> dict[str, Any]:
    """Return command, versions and date of this process, which make a report reproducible.

    The versions include that of CUDA, if PyTorch was built with it, and the git commit of the package, if it runs from
    its repository.
    """
    versions = {
        "medcontext": medcontext.__version__,
        "commit": _commit(),
        "monai": monai.__version__,
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "python": platform.python_version(),
    }
    words = [Path(sys.executable).name, *map(without_password, sys.orig_argv[1:])]
    return {
        "command": " ".join(map(_shell_quoted, words)),
        "versions": {name: version for name, version in versions.items() if version},
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def device_name(device: torch.device | str) -> str:
    """Return the full name of a device, such as ``cuda:0 (NVIDIA H100 80GB HBM3)``."""
    model = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else platform.machine()
    return f"{device} ({model})"


def checkpoint_sha256(path: str | os.PathLike[str]) -> str | None:
    """Return the SHA-256 of a checkpoint as hex digits, or ``None`` if there is no such file."""
    return sha256_of(path) if Path(path).is_file() else None


def training_settings(ckpt_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the main settings of a checkpoint's training run, as far as the configuration in its folder has them.

    Args:
        ckpt_dir: folder of the checkpoint; the configuration is ``train_config.json`` in the folder above.

    Returns:
        Dataset, mode, seed, share or number of the cases, fold and epochs, if they were given as plain values.
    """
    config = _json_object(Path(ckpt_dir).resolve().parent / "train_config.json")
    given = {name: config.get(name) for name in _SETTINGS}
    return {
        name: value
        for name, value in given.items()
        if isinstance(value, str | int | float) and not str(value).startswith(("$", "@", "%"))
    }


def selected_weights(ckpt_path: str | os.PathLike[str]) -> str | None:
    """Say which weights a ``model.pt`` holds, the student's or the teacher's, and of which epoch.

    Args:
        ckpt_path: the checkpoint; its origin is described in ``model.json`` beside it.

    Returns:
        For example ``moving average of the weights, epoch 40 (validation Dice 0.812, of the network itself 0.805)`` or
        ``ensemble of 5 networks``, or ``None`` for other checkpoints and if nothing is known.
    """
    path = Path(ckpt_path)
    info = _json_object(path.with_name("model.json")) if path.name == "model.pt" else {}
    if info.get("members"):
        return f"ensemble of {len(info['members'])} networks"
    if info.get("weights") not in ("student", "teacher"):
        return None
    kinds = {"student": "the network itself", "teacher": "moving average of the weights"}
    names = {"student": "the network itself", "teacher": "the moving average"}
    chosen, other = info["weights"], "student" if info["weights"] == "teacher" else "teacher"
    dice = {"student": info.get("val_mean_dice"), "teacher": info.get("val_mean_dice_ema")}
    text = f"{kinds[chosen]}, epoch {info.get('epoch', 'unknown')}"
    if dice[chosen] is None:
        return f"{text}, its last state"
    beside = "" if dice[other] is None else f", of {names[other]} {dice[other]:.3f}"
    return f"{text} (validation Dice {dice[chosen]:.3f}{beside})"


def evaluation_dir(
    output_dir: str | os.PathLike[str], ckpt_path: str | os.PathLike[str], dataset: str, data_hash: str
) -> str:
    """Choose the folder of an evaluation such that it replaces no evaluation of other weights or data.

    Args:
        output_dir: folder of the run.
        ckpt_path: the weights that are evaluated.
        dataset: name of the dataset that is evaluated.
        data_hash: hash of its test cases, see :func:`medcontext.data.data_hash`.

    Returns:
        ``<output_dir>/evaluation``, followed by the name of the weights if there is a ``model.pt`` beside them, by
        ``_<dataset>`` if they were trained on another one, see :func:`training_settings`, and by ``_<data_hash>`` if
        that folder already holds the evaluation of other cases.
    """
    weights, parts = Path(ckpt_path), ["evaluation"]
    if weights.name != "model.pt" and weights.with_name("model.pt").is_file():
        parts.append(weights.stem)
    if training_settings(weights.parent).get("dataset", dataset) != dataset:
        parts.append(dataset)
    name = "_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts)
    info = _json_object(Path(output_dir) / name / "summary.json").get("info")
    known = info.get("data_hash", data_hash) if isinstance(info, dict) else data_hash
    return f"{output_dir}/{name}" if known == data_hash else f"{output_dir}/{name}_{data_hash}"


def _json_object(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, empty if there is none or it is damaged."""
    try:
        content = read_json(path, finite=False)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s could not be read (%s).", path, error)
        return {}
    return content if isinstance(content, dict) else {}


def _commit() -> str | None:
    """Return the git commit that the package runs from, or ``None`` outside its repository or without git."""
    root = Path(medcontext.__file__).resolve().parents[2]
    commit = ask_git(root, "rev-parse", "--short=12", "HEAD") if (root / ".git").exists() else ""
    changed = commit and ask_git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with changes" if changed else commit or None


def _shell_quoted(word: str) -> str:
    """Quote a word for a shell; lists of files contain single quotes, which read better inside double ones."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)
