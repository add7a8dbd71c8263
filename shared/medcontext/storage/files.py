"""Files that are complete at any moment, and JSON that every reader accepts."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

__all__ = ["json_text", "open_unlinked", "require_space", "whole_file", "write_file"]


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing such that readers see either the old content or the new, never half of it.

    The file gets its name at the end of the block, when it is on the disk and not only in a cache. If the block fails,
    nothing of it remains. Its folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def require_space(folder: Path, needed: int, remedy: str = "make room") -> None:
    """Check that a folder's disk has enough bytes left.

    Raises:
        OSError: If it has not; the message ends with the remedy.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{folder} needs {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB free; {remedy}.")


def json_text(content: Mapping[str, Any]) -> str:
    """Return JSON with NaN and infinity as null, NumPy's numbers as plain ones, and other objects as text."""
    return json.dumps(_json_value(content), indent=4, allow_nan=False, ensure_ascii=False) + "\n"


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
