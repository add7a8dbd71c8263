"""MONAI's workflow of a configuration."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import ID_SEP_KEY
from monai.utils import ensure_tuple

from medcontext.bundle.config_files import check_files

__all__ = ["bundle_configs", "current_workflow", "equals_parsed", "given_keys", "open_workflow"]

ENTRIES = ("train", "evaluate", "inference")


def open_workflow(config_file: str | Sequence[str], **overrides: Any) -> ConfigWorkflow:
    """Return an initialised training workflow, of which nothing is built yet.

    MONAI's warnings about overlays in other folders, a missing log file, and configurations being code are suppressed,
    since the user has chosen the files.

    Args:
        config_file: ``train.json`` of a bundle, with overlays.
        overrides: values of configuration keys.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file cannot be read.
    """
    files = [config_file] if isinstance(config_file, str) else list(config_file)
    check_files(files)
    logger = logging.getLogger("monai.bundle.workflows")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            workflow = ConfigWorkflow(files, logging_file=False, workflow_type="train", **overrides)
    finally:
        logger.setLevel(level)
    workflow.initialize()
    return workflow


def current_workflow() -> ConfigWorkflow | None:
    """Return the workflow that evaluates the calling expression, ``None`` if there is none.

    MONAI does not pass it to expressions, so the stack is searched for it: the configurations' key ``workflow`` calls
    this function, and other keys refer to that one.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        for name in ("self", "workflow"):
            owner = frame.f_locals.get(name)
            if isinstance(owner, ConfigWorkflow):
                return owner
        frame = frame.f_back
    return None


def given_keys(workflow: ConfigWorkflow) -> dict[str, str]:
    """Return the top-level keys that the user gave, each with where, such as `` (--spacing)`` or `` (mine.json)``.

    These are the keys of the command line and of overlays, as far as MONAI's ``run`` is what runs the workflow, and all
    whose value is not that of the bundle's ``train.json`` or ``inference.json``. A key that an expression of the
    bundle derives from a given one, such as ``labels`` from ``organs``, is given too.
    """
    config = workflow.parser.get()
    own = bundle_configs(workflow.config_root_path).get("train" if "train" in config else "inference", {})
    given = {key: "" for key in config if key in own and not equals_parsed(own[key], config[key])} | _called(workflow)
    if "organs" in given and "labels" not in given and "@organs" in str(config.get("labels")):
        given["labels"] = given["organs"]
    return given


def _called(workflow: ConfigWorkflow) -> dict[str, str]:
    """Return the keys that MONAI's ``run`` was called with; it keeps neither files nor arguments, so the stack does."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        values = frame.f_locals
        if values.get("workflow") is workflow and isinstance(values.get("override"), Mapping):
            files = [Path(file) for file in ensure_tuple(values.get("config_file") or ())]
            overlays = {file: ConfigParser.load_config_file(file) for file in files if file.stem not in ENTRIES}
            keys = {re.split("#|::", key)[0]: f" ({file.name})" for file, config in overlays.items() for key in config}
            words = {re.split("#|::", key)[0] for key in values["override"]}
            return keys | {key: f" (--{key})" for key in words}
        frame = frame.f_back
    return {}


def bundle_configs(folder: str | os.PathLike[str]) -> dict[str, Mapping[str, Any]]:
    """Return the configurations in a folder, JSON or YAML, by their names without ending.

    Metadata, and files of other content that a user keeps beside them, are left out.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix not in (".json", ".yaml", ".yml") or path.name == "metadata.json":
            continue
        with contextlib.suppress(Exception):
            content = ConfigParser.load_config_file(path)
            found |= {path.stem: content} if isinstance(content, Mapping) else {}
    return found


def equals_parsed(written: Any, parsed: Any) -> bool:
    """Return whether values are equal apart from separators, which MONAI replaces (``@a#b`` becomes ``@a::b``)."""
    texts = (json.dumps(value, default=str).replace(ID_SEP_KEY, "#") for value in (written, parsed))
    return next(texts) == next(texts)
