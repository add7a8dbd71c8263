"""Locks of folders and files that one process at a time may write.

The system releases them when a process ends, however it does. They lie in the user's cache, so that they leave nothing
beside the data, and hold between machines that share it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from medcontext.storage import file_memory

__all__ = ["locked", "lock", "release"]

_held: dict[Path, FileLock] = {}


def lock(path: Path, refusal: str, wait: float = 0.0) -> None:
    """Reserve a folder or a file for this process, until it is released or the process ends.

    Nothing is reserved where the user's cache cannot be written.

    Args:
        path: the folder or the file; it need not exist.
        refusal: message of the error.
        wait: seconds to wait for another process.

    Raises:
        ValueError: If another process has reserved it.
    """
    path = path.resolve()
    if path in _held:
        return
    digest = hashlib.sha256(str(path).encode(errors="surrogateescape")).hexdigest()[:16]
    file = file_memory.cache_folder() / "locks" / f"{digest}.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        taken = FileLock(file)
        taken.acquire(timeout=wait)
    except Timeout:
        raise ValueError(refusal) from None
    except (OSError, NotImplementedError):
        return
    _held[path] = taken


def release(path: Path) -> None:
    """Release what this process has reserved, if it has."""
    taken = _held.pop(path.resolve(), None)
    if taken is not None:
        taken.release()


@contextlib.contextmanager
def locked(path: Path, refusal: str, wait: float = 0.0) -> Iterator[None]:
    """Reserve a folder or a file for a block, see :func:`lock`."""
    lock(path, refusal, wait)
    try:
        yield
    finally:
        release(path)
