"""Volumes of two files: a header, and the voxels that it names."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["parts_of"]

_NAMED = {
    ".mhd": re.compile(rb"^ElementDataFile\s*=\s*([^\r\n]+)", re.MULTILINE),
    ".nhdr": re.compile(rb"^data ?file:\s*([^\r\n]+)", re.MULTILINE),
}
_PAIRED = {".hdr": ".img", ".img": ".hdr"}
_HEADER_BYTES = 65536


def parts_of(file: str | os.PathLike[str]) -> list[Path]:
    """Return a file and, if it is half of a volume, the other half; a file of voxels that does not exist is left out.

    Args:
        file: any file; Analyze's or NIfTI's ``.hdr`` and ``.img`` belong together, MetaImage's ``.mhd`` and NRRD's
            ``.nhdr`` name their voxels.
    """
    path = Path(file)
    kind = path.suffix.lower()
    other = path.with_suffix(_PAIRED[kind]) if kind in _PAIRED else _named_in(path, kind)
    return [path, other] if other is not None and other.is_file() else [path]


def _named_in(path: Path, kind: str) -> Path | None:
    """Return the file that a header names, ``None`` if it names none, or several by a list or pattern."""
    if kind not in _NAMED or not path.is_file():
        return None
    with path.open("rb") as stream:
        found = _NAMED[kind].search(stream.read(_HEADER_BYTES))
    return path.parent / os.fsdecode(found[1].strip()) if found else None
