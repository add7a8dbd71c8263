"""Which MLflow a run is logged to, or read from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["resolve_tracking_uri", "without_tracking_variable"]

_VARIABLE = "MLFLOW_TRACKING_URI"


def resolve_tracking_uri(given: str | None = None, *, default: str | None = None) -> str | None:
    """Return the address of MLflow: the one given, else ``$MLFLOW_TRACKING_URI``, else the default.

    Args:
        given: what the user asked for, such as ``sqlite:///mlruns.db`` or ``http://127.0.0.1:5000``.
        default: where neither argument nor environment names one.
    """
    return given or os.environ.get(_VARIABLE) or default


@contextlib.contextmanager
def without_tracking_variable() -> Iterator[None]:
    """Hide ``$MLFLOW_TRACKING_URI`` from MONAI's handler, which prefers it to an address that it is given."""
    hidden = os.environ.pop(_VARIABLE, None)
    try:
        yield
    finally:
        if hidden is not None:
            os.environ[_VARIABLE] = hidden
