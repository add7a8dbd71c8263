"""Known faults of the network, the disk and other programs, put into words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["explained"]


@contextlib.contextmanager
def explained(explain: Callable[[Exception], Exception | None]) -> Iterator[None]:
    """Raise what ``explain`` makes of an error in its place, chained to it.

    Args:
        explain: returns an error with one sentence that says what happened and what to do, or ``None`` to let an error
            pass that it does not know.

    Example:
        >>> def no_file(error):
        ...     return ValueError(f"{error.filename} is missing; prepare the dataset.") if error.filename else None
        >>> with explained(no_file):
        ...     open("nowhere.nii.gz")
        Traceback (most recent call last):
        ...
        ValueError: nowhere.nii.gz is missing; prepare the dataset.
    """
    try:
        yield
    except Exception as error:
        better = explain(error)
        if better is None:
            raise
        raise better from error
