"""The MONAI workflow that runs a configuration."""

from __future__ import annotations

import sys

from monai.bundle import ConfigWorkflow

__all__ = ["current_workflow"]


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
