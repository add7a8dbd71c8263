"""Address of the MLflow store that runs are logged to and read from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["resolve_tracking_uri", "without_tracking_variable"]

_VARIABLE = "MLFLOW_TRACKING_URI"


def resolve_tracking_uri(given: str | None = None, *, default: str | None = None) -> str | None:
    """Return the address of MLflow: the one given, else ``$MLFLOW_TRACKING_URI``, else the default.

    Args:
        given: address from the user, such as ``sqlite:///mlruns.db`` or ``http://127.0.0.1:5000``.
        default: address if neither argument nor environment gives one.

    Example:
        >>> with without_tracking_variable():
        ...     resolve_tracking_uri(None, default="sqlite:///mlruns.db")
        'sqlite:///mlruns.db'
        >>> resolve_tracking_uri("http://127.0.0.1:5000", default="sqlite:///mlruns.db")
        'http://127.0.0.1:5000'
    """
    return given or os.environ.get(_VARIABLE) or default


@contextlib.contextmanager
def without_tracking_variable() -> Iterator[None]:
    """Hide ``$MLFLOW_TRACKING_URI`` from MONAI's handler, which prefers the variable to its argument."""
    hidden = os.environ.pop(_VARIABLE, None)
    try:
        yield
    finally:
        if hidden is not None:
            os.environ[_VARIABLE] = hidden
