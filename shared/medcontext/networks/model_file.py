"""``model.json``: what the weights beside it are, and the settings that they need."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from pydoc import locate
from typing import Any, TypeAlias

import monai.networks.nets
import monai.transforms
import torch
from monai.transforms import Compose, MapTransform
from torch import Tensor, nn

from medcontext.checks import check_above_zero, check_integer, check_integers
from medcontext.labels import component_ids, label_ids
from medcontext.storage.json_files import read_json

__all__ = [
    "MODEL_FILE",
    "MODEL_INFO_FILE",
    "STUDENT_FILE",
    "TEACHER_FILE",
    "build_component",
    "check_component",
    "check_weights_hash",
    "read_components",
    "read_model_file",
    "read_settings",
    "weights_hash",
]

File: TypeAlias = str | PathLike[str]

MODEL_FILE, STUDENT_FILE, TEACHER_FILE, MODEL_INFO_FILE = "model.pt", "student.pt", "teacher.pt", "model.json"

_REMEDY = "take the file that training wrote, or move it away and give the settings yourself"
_CONFIGURATION = re.compile(r"^[$@%]|[@%]#|^_")
_PLAIN_TEXT = re.compile(r"[\w .,+-]*")
# what a definition may name: classes without side effects
_KINDS: dict[str, tuple[Any, tuple[type, ...], tuple[str, ...]]] = {
    "network_def": (monai.networks.nets, (nn.Module,), ("monai.networks.", "medcontext.networks", "torch.nn.")),
    "intensity": (
        monai.transforms,
        (MapTransform, Compose),
        ("monai.transforms.intensity.", "monai.transforms.compose", "medcontext.transforms"),
    ),
}


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of weights, in whatever format a file keeps them.

    Example:
        >>> weights_hash({"bias": torch.zeros(2)}) == weights_hash({"bias": torch.zeros(2)})
        True
        >>> weights_hash({"bias": torch.zeros(2)}) == weights_hash({"bias": torch.zeros(1, 2)})
        False
    """
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_model_file(ckpt_path: File) -> dict[str, Any]:
    """Return the content of the ``model.json`` that describes a checkpoint, empty if none does.

    Args:
        ckpt_path: the checkpoint. ``model.json`` in its folder describes ``model.pt``, ``student.pt`` and
            ``teacher.pt``.

    Raises:
        ValueError: If the file is not a JSON object.
    """
    file = Path(ckpt_path).with_name(MODEL_INFO_FILE)
    if Path(ckpt_path).name not in (MODEL_FILE, STUDENT_FILE, TEACHER_FILE) or not file.is_file():
        return {}
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({error}); {_REMEDY}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, not the description of weights; {_REMEDY}.")
    return content


def check_weights_hash(ckpt_path: File, state: Mapping[str, Tensor]) -> None:
    """Check that a checkpoint holds the weights that ``model.json`` beside it describes, if it does.

    Raises:
        ValueError: If it holds others.
    """
    content, name = read_model_file(ckpt_path), Path(ckpt_path).name
    known = [hashes[name] for key in ("sha256", "sha256_before") if name in (hashes := content.get(key) or {})]
    if known and weights_hash(state) not in known:
        raise ValueError(
            f"The weights in {ckpt_path} are not those that {MODEL_INFO_FILE} beside it describes (their SHA-256 "
            "differs): the file is damaged or was replaced. Take a copy of it, or give weights of another origin a "
            "folder of their own."
        )


def read_settings(ckpt_path: File | Sequence[File]) -> dict[str, Any]:
    """Return the settings that weights need, as ``model.json`` beside them tells, by configuration key.

    They are values: nothing in the file becomes an expression, a reference or a path. The definitions ``network_def``
    and ``intensity`` are returned as they are; :func:`check_component` says whether they may be built.

    Args:
        ckpt_path: a checkpoint, or those of an ensemble.

    Returns:
        The settings; empty if there is no such file, or it is of an earlier version and holds none.

    Raises:
        ValueError: If a value is impossible, or the checkpoints of an ensemble need different settings.

    Example:
        >>> read_settings("nowhere/model.pt")
        {}
    """
    paths = [ckpt_path] if isinstance(ckpt_path, str | PathLike) else list(ckpt_path)
    found = [_settings_of(Path(path)) for path in paths]
    for path, settings in zip(paths, found, strict=True):
        for key in settings.keys() & found[0].keys():
            if settings[key] != found[0][key]:
                raise ValueError(
                    f"{paths[0]} and {path} were trained with different {key} and cannot be averaged; give weights "
                    "that were trained with the same settings."
                )
    return found[0] if found else {}


def read_components(ckpt_path: File | Sequence[File]) -> list[str]:
    """Return the labels of which only the largest component is kept, as ``model.json`` beside weights tells.

    Args:
        ckpt_path: a checkpoint, or several, of which each must have chosen a label.

    Raises:
        ValueError: If the file names something else than labels of the weights.

    Example:
        >>> read_components("nowhere/model.pt")
        []
    """
    paths = [ckpt_path] if isinstance(ckpt_path, str | PathLike) else list(ckpt_path)
    found = [_components_of(Path(path)) for path in paths]
    return [name for name in found[0] if all(name in names for names in found)] if found else []


def _components_of(path: Path) -> list[str]:
    choice, labels = read_model_file(path).get("postprocessing") or {}, _settings_of(path).get("labels", {})
    names = choice.get("largest_components", []) if isinstance(choice, dict) else choice
    try:
        component_ids(labels, names) if names else []
    except ValueError as error:
        raise ValueError(
            f"{path.with_name(MODEL_INFO_FILE)} has an impossible postprocessing: {str(error).rstrip('.')}; {_REMEDY}."
        ) from error
    return list(names)


def _settings_of(path: Path) -> dict[str, Any]:
    settings, file = read_model_file(path).get("settings") or {}, path.with_name(MODEL_INFO_FILE)
    try:
        for key, check in _SETTINGS.items():
            if key in settings:
                check(key, settings[key])
        for text in _texts({key: value for key, value in settings.items() if key not in _KINDS}):
            if _CONFIGURATION.search(text):
                raise ValueError(f"{text!r} would be read as configuration")
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{file} holds impossible settings: {str(error).rstrip('.')}; {_REMEDY}.") from error
    return {key: settings[key] for key in _SETTINGS if key in settings}


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a nested value, keys included."""
    if isinstance(value, str):
        yield value
    for item in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _texts(item)


def check_component(key: str, definition: Any) -> None:
    """Check that ``network_def`` or ``intensity`` of a ``model.json`` only names classes that have no side effects.

    Raises:
        ValueError: If it holds anything but such classes and plain values.
    """
    if isinstance(definition, Mapping):
        for name, value in definition.items():
            if name == "_target_":
                _check_target(key, value)
            elif name.startswith("_"):
                raise ValueError(f"model.json has {name} in {key}, which is not taken from a file beside weights.")
            else:
                check_component(key, value)
    elif isinstance(definition, list):
        for value in definition:
            check_component(key, value)
    elif isinstance(definition, str) and not _PLAIN_TEXT.fullmatch(definition):
        raise ValueError(
            f"model.json has {definition!r} in {key}, which is not taken from a file beside weights; give {key} as in "
            "training."
        )


def _check_target(key: str, target: Any) -> None:
    module, bases, prefixes = _KINDS[key]
    found = getattr(module, str(target), None)
    if found is None and str(target).startswith(prefixes):
        found = locate(str(target))
    if not (isinstance(found, type) and issubclass(found, bases) and found.__module__.startswith(prefixes)):
        raise ValueError(
            f"model.json names {target!r} in {key}, which is not built from a file beside weights because it is not "
            f"one of MONAI's or medcontext's; give {key} as in training."
        )


def build_component(key: str, definition: Mapping[str, Any]) -> Any:
    """Return the object that ``network_def`` or ``intensity`` of a ``model.json`` defines.

    Raises:
        ValueError: As :func:`check_component`.
    """
    from monai.bundle import ConfigParser

    check_component(key, definition)
    return ConfigParser({key: definition}).get_parsed_content(key)


def _check_list(name: str, value: Any, check: Callable[[str, Any], Any]) -> None:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} must be a list, got {value!r}")
    for item in value:
        check(name, item)


def _check_orientation(name: str, value: Any) -> None:
    if not re.fullmatch(r"[RLAPSI]{2,3}", str(value)):
        raise ValueError(f"{name} must be letters such as 'RAS', got {value!r}")


def _check_sides(name: str, value: Any) -> None:
    if not isinstance(value, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in value):
        raise ValueError(f"{name} must be pairs of names, got {value!r}")


def _check_axes(name: str, value: Any) -> None:
    if not isinstance(value, list) or any(axis not in (0, 1, 2) for axis in value):
        raise ValueError(f"{name} must be a list of axes, got {value!r}")


def _check_definition(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a definition, got {value!r}")


_SETTINGS: dict[str, Callable[[str, Any], Any]] = {
    "network_def": _check_definition,
    "in_channels": partial(check_integer, minimum=1, remedy="give a whole number"),
    "out_channels": partial(check_integer, minimum=2, remedy="give a whole number"),
    "labels": lambda _, value: label_ids(value),
    "reported": lambda _, value: label_ids(value),
    "sided_labels": _check_sides,
    "orientation": _check_orientation,
    "spacing": partial(_check_list, check=partial(check_above_zero, remedy="give mm")),
    "intensity": _check_definition,
    "roi_size": partial(check_integers, minimum=1),
    "mirrored_axes": _check_axes,
}
"""Settings that weights need, by configuration key, and the check of each."""
