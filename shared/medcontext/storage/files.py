"""Files that are whole at any moment, and JSON that every reader takes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

__all__ = ["json_text", "require_space", "whole_file", "write_file"]


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write, so that whoever reads it sees the old content or the new, never half of it.

    It takes its name when the block ends, and is on the disk then, not in a cache alone. If the block fails, nothing is
    left of it. Its folder is made.
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
    """Write a file in one piece, see :func:`whole_file`."""
    with whole_file(path) as stream:
        stream.write(content)
    return path


def require_space(folder: Path, needed: int, remedy: str = "make room") -> None:
    """Raise OSError, with what to do about it, when a folder's disk has fewer bytes left than are needed."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{folder} needs {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB free; {remedy}.")


def json_text(content: Mapping[str, Any]) -> str:
    """Return JSON as this package writes it: NaN and infinity as null, NumPy's numbers as plain, the rest as text."""
    return json.dumps(_plain(content), indent=4, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
