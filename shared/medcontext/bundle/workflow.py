"""The MONAI workflow on whose behalf an expression of a configuration is evaluated."""

from __future__ import annotations

import sys

from monai.bundle import ConfigWorkflow

__all__ = ["current_workflow", "required_workflow"]


def current_workflow() -> ConfigWorkflow | None:
    """The MONAI workflow on whose behalf the calling expression is evaluated; MONAI passes expressions no handle."""
    frame = sys._getframe(1)
    while frame is not None:
        for name in ("self", "workflow"):
            owner = frame.f_locals.get(name)
            if isinstance(owner, ConfigWorkflow):
                return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None


def required_workflow() -> ConfigWorkflow:
    """As :func:`current_workflow`, which there must be.

    Raises:
        RuntimeError: If no workflow is running.
    """
    workflow = current_workflow()
    if workflow is None:
        raise RuntimeError("This belongs into a bundle's configuration, run by `python -m monai.bundle run`.")
    return workflow
