"""Values of the configuration as their keys need them, whatever the command line made of them.

``--save_overlay false`` and ``--cache_dir null`` are texts, and ``--run_name 42`` is a number, when they reach the
configuration. They are taken for what they mean, or refused in one sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from fire.parser import DefaultParseValue

from medcontext.literals import as_literal

__all__ = ["settle_values", "settled"]

TRUTHS = {
    *(
        "amp",
        "estimate_quality",
        "intensity_check",
        "log_case_names",
        "log_model",
        "resume",
        "settings_check",
        "system_metrics",
    ),
    *("save_dicom_seg", "save_overlay", "save_probabilities", "save_summary"),
}
NAMES = {"dataset", "run_name"}
"""Texts that are names of folders."""
TEXTS = NAMES | {
    *("bundle_root", "ckpt_dir", "ckpt_path", "datalist", "dataset_dir", "evaluation_dir", "experiment_name", "home"),
    *("orientation", "output_dir", "predictions_dir"),
    *("cache_dir", "install_dir", "pretrained", "registered_model_name", "tracking_uri", "unlabeled"),
    "unlabeled_dir",
}
SEVERAL = {"ckpt_path", "dataset_dir", "unlabeled_dir"}
"""Texts of which there may be several."""
NULLABLE = {
    *("cache_dir", "install_dir", "pretrained", "registered_model_name", "tracking_uri", "unlabeled"),
    *("unlabeled_dir", "fold", "largest_components", "max_grad_norm", "token_masking", "train_cases"),
}
MAPPINGS = {
    *("augmentation", "consistency", "labels", "lr_scheduler", "network_def", "optimizer", "organ_dropout"),
    *("reported", "segmentation_loss"),
}
AXES = ("LR", "PA", "IS")
WORDS = {"true": True, "false": False, "null": None, "none": None}


def settle_values(parser: Any) -> None:
    """Replace values in a configuration by what they mean, and refuse those of a kind that no part of a bundle takes.

    Expressions and references are left as they are.

    Args:
        parser: MONAI's parser of the configuration, of which nothing is built yet.

    Raises:
        ValueError: If a value is of the wrong kind; the message names its key.
    """
    config = parser.get()
    for key in sorted((TRUTHS | TEXTS | NULLABLE | MAPPINGS) & config.keys()):
        given = config[key]
        if isinstance(given, str) and given.startswith(("$", "@", "%")):
            continue
        value = settled(key, given)
        if value is not given:
            parser[key] = value
    if "orientation" in config:
        _check_orientation(parser.get_parsed_content("orientation"))
    if "device" in config:
        _check_device(parser.get_parsed_content("device"))


def settled(key: str, given: Any) -> Any:
    """Return a value of the kind that a key takes.

    Raises:
        ValueError: If it is of another kind.
    """
    if given is None or (key in NULLABLE and str(given).lower() in ("null", "none")):
        return None if key in NULLABLE else _refuse(key, "have a value", given)
    if key in TRUTHS:
        found = WORDS.get(str(given).lower())
        return found if isinstance(found, bool) else _refuse(key, "be true or false", given)
    if key in MAPPINGS:
        return given if isinstance(given, Mapping) else _refuse(key, "map names to values, such as {'a': 1}", given)
    return _settled_text(key, given) if key in TEXTS else given


def _settled_text(key: str, given: Any) -> Any:
    """Return a text, or several, such that MONAI leaves them as they are."""
    several = isinstance(given, list | tuple) and key in SEVERAL
    texts = [_checked_text(key, text) for text in (given if several else [given])]
    if key != "tracking_uri" and any("#" in text or "::" in text for text in texts):
        texts = [_as_written(text) for text in texts]
        return as_literal(texts if several else texts[0])
    return given if several else texts[0]


def _as_written(text: str) -> str:
    """Return a text with the ``#`` for which MONAI writes ``::``, unless the command line has the latter itself."""
    return text if any(text in word for word in sys.argv) else text.replace("::", "#")


def _checked_text(key: str, given: Any) -> str:
    text = given if isinstance(given, str) else _typed(key, given)
    if text is None and isinstance(given, int) and not isinstance(given, bool):
        text = str(given)
    if text is None:
        return _refuse(key, f"be text (on a command line in two pairs of quotes, --{key} \"'1e3'\")", given)
    if not text.strip():
        return _refuse(key, "not be empty", given)
    if key in NAMES and (set(text) & set("/\\\0") or text.strip() in (".", "..")):
        return _refuse(key, "be the name of a folder, without / or \\", given)
    return text


def _typed(key: str, value: Any) -> str | None:
    """Return the word on the command line that Fire made a value of, ``None`` if the value is from elsewhere.

    Fire takes ``2026_01_01`` for the number 20260101 and ``1e3`` for 1000.0.
    """
    for word, following in pairwise([*sys.argv[1:], ""]):
        name, sign, text = word.partition("=")
        text = text if sign else following
        is_key = name.startswith("-") and name.lstrip("-").replace("-", "_") == key
        if is_key and repr(value) == repr(DefaultParseValue(text)):
            return text
    return None


def _check_orientation(orientation: Any) -> None:
    codes = list(orientation) if isinstance(orientation, str) else []
    if sorted(next((axis for axis in AXES if code in axis), code) for code in codes) != sorted(AXES):
        _refuse("orientation", "name each axis once, L or R, A or P, S or I, such as RAS or LPS", orientation)


def _check_device(device: Any) -> None:
    try:
        torch.device(device)
    except (RuntimeError, TypeError):
        _refuse("device", "be a device of PyTorch, such as cpu or cuda:0", device)


def _refuse(key: str, rule: str, given: Any) -> Any:
    raise ValueError(f"{key} must {rule}, got {given!r}.")
