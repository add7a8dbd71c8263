"""MONAI's workflow of a configuration."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from monai.bundle import ConfigWorkflow

from medcontext.bundle.config_files import check_files

__all__ = ["current_workflow", "open_workflow"]


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

    MONAI does not pass it to expressions, so the stack is searched for it. This is the only place that does so: the
    configurations' key ``workflow`` calls it, and other keys refer to that one.
    """
    frame = sys._getframe(1)
    while frame is not None:
        for name in ("self", "workflow"):
            owner = frame.f_locals.get(name)
            if isinstance(owner, ConfigWorkflow):
                return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None
