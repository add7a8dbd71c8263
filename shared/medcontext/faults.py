"""Known faults of the network, the disk and other programs, put into words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator

__all__ = ["disk_remedy", "explained"]


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


_REMEDIES = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free some of your quota on that disk",
    errno.EROFS: "that disk is mounted read-only: choose another folder",
    errno.EACCES: "give yourself the right to write there, or choose another folder",
    errno.EPERM: "give yourself the right to write there, or choose another folder",
    errno.ESTALE: "the network disk has lost the folder: mount it again",
    errno.ENOTCONN: "the network disk is not connected: mount it again",
    errno.EIO: "the disk fails: check it, or choose another",
    errno.EMFILE: "this process has too many open files: raise `ulimit -n`, or lower num_workers",
}


def disk_remedy(error: BaseException | None) -> str | None:
    """Return what to do about an error of the disk, ``None`` for any other.

    PyTorch raises another error while it handles that of the disk, which is then in the context.

    Example:
        >>> disk_remedy(PermissionError(13, "Permission denied"))
        'give yourself the right to write there, or choose another folder'
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REMEDIES:
            return _REMEDIES[error.errno]
        error = error.__cause__ or error.__context__
    return None
