"""Files that are complete at any moment."""

from __future__ import annotations

import contextlib
import gzip
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

import psutil

__all__ = [
    "open_unlinked",
    "read_to_the_end",
    "remove_unfinished",
    "require_space",
    "whole_file",
    "write_file",
]

BLOCK, DAY = 1 << 20, 86_400.0
_HOST = re.sub(r"\W", "_", platform.node())
_TEMPORARY = re.compile(r"\..+\.(?:(?P<host>\w*)-)?(?P<pid>\d+)\.tmp")


@contextlib.contextmanager
def whole_file(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing such that readers see either the old content or the new, never half of it.

    The file gets its name at the end of the block, when it and its folder's entry are on the disk and not only in a
    cache. If the block fails, nothing of it remains; if the process is killed, :func:`remove_unfinished` removes the
    rest. Its folder is created.

    Args:
        path: file to write.
        previous: name in the same folder under which the old file is kept; for an instant, there is then only this one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders, and some network disks do not sync them
        entries = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entries)
        finally:
            os.close(entries)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left in a folder of files that they were writing.

    Files of this machine's living processes are kept, as are files of other machines that are less than a day old.
    """
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or path.is_symlink():
            continue
        with contextlib.suppress(OSError):  # removed by another process, or not ours to remove
            pid = int(match["pid"])
            dead = match["host"] == _HOST and (pid == os.getpid() or not psutil.pid_exists(pid))
            if dead or time.time() - path.stat().st_mtime > DAY:
                path.unlink()


def write_file(path: Path, content: bytes) -> Path:
    """Write a file atomically, see :func:`whole_file`."""
    with whole_file(path) as stream:
        stream.write(content)
    return path


def open_unlinked(path: Path, mode: str) -> IO[str]:
    """Open a text file for writing or appending unless it is a link, which may lead into another folder.

    Raises:
        OSError: If it is a link, or cannot be opened.
    """
    if path.is_symlink():
        raise OSError(f"{path} is a link, which is not followed; remove it.")
    no_link = getattr(os, "O_NOFOLLOW", 0)  # it may become one in between
    return open(path, mode, encoding="utf-8", opener=lambda name, flags: os.open(name, flags | no_link, 0o666))


def read_to_the_end(path: str | os.PathLike[str]) -> None:
    """Read all of a file that gzip compressed, so that its checksum is compared, which readers of images stop before.

    Raises:
        EOFError: If it is cut off.
        OSError: If its content does not match its checksum.
        zlib.error: If it is damaged.
    """
    if os.fspath(path).endswith(".gz"):
        with gzip.open(path) as stream:
            while stream.read(BLOCK):
                pass


def require_space(folder: Path, needed: int, remedy: str = "make room") -> None:
    """Check that a folder's disk has enough bytes left.

    Raises:
        OSError: If it has not; the message ends with the remedy.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{folder} needs {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB free; {remedy}.")
