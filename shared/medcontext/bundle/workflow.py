"""The MONAI workflow that runs a configuration."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from monai.bundle import ConfigWorkflow

__all__ = ["current_workflow", "open_workflow"]


def open_workflow(config_file: str | Sequence[str], **overrides: Any) -> ConfigWorkflow:
    """Return an initialised training workflow, of which nothing is built yet.

    MONAI's warnings of overlays in other folders, of a missing log file, and that a configuration is code, which
    whoever names one knows, are left out.

    Args:
        config_file: ``train.json`` of a bundle, and overlays.
        overrides: values of configuration keys.
    """
    files = config_file if isinstance(config_file, str) else list(config_file)
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
    """Return the workflow on whose behalf the calling expression is evaluated, ``None`` where there is none.

    MONAI hands expressions no such thing, so that the stack is searched for it. This is the one place that does: the
    configurations' key ``workflow`` calls it, and hands the result to whatever needs it.
    """
    frame = sys._getframe(1)
    while frame is not None:
        for name in ("self", "workflow"):
            owner = frame.f_locals.get(name)
            if isinstance(owner, ConfigWorkflow):
                return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None
