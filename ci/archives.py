"""Archives whose bytes depend on nothing but what is in them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

EARLIEST = 315532800  # 1980-01-01, before which a zip knows no time


def write_zip(path: Path, files: Mapping[str, bytes], epoch: int) -> Path:
    """Write files by name, sorted, all of one time and readable by all.

    They are stored as they are: what compression makes of them depends on the library and its version.
    """
    moment = time.gmtime(max(epoch, EARLIEST))[:6]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(name, moment)
            member.create_system, member.external_attr = 3, 0o100644 << 16
            archive.writestr(member, files[name])
    return path


def read_zip(path: Path) -> dict[str, bytes]:
    """All files of an archive by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def digest(content: bytes, kind: str = "sha256") -> str:
    """A hash in hexadecimal digits."""
    return hashlib.new(kind, content, usedforsecurity=False).hexdigest()


def checksums(files: Mapping[str, bytes]) -> bytes:
    """What ``sha256sum --check`` reads."""
    return "".join(f"{digest(files[name])}  {name}\n" for name in sorted(files)).encode()


def build_wheel(root: Path, folder: Path, epoch: int) -> Path:
    """Build the package's wheel in a copy of its sources, which leftovers of earlier builds cannot reach.

    Args:
        root: the repository.
        folder: where to put the wheel.
        epoch: time of its files, in seconds since 1970.

    Raises:
        RuntimeError: When it cannot be built, with what pip said.
    """
    with tempfile.TemporaryDirectory() as work:
        sources, made = Path(work, "sources"), Path(work, "made")
        sources.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(root / name, sources)
        junk = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
        shutil.copytree(root / "shared", sources / "shared", ignore=junk)
        words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
        result = subprocess.run(
            [*words, "--wheel-dir", made, sources],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(max(epoch, EARLIEST))},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"The wheel could not be built: {result.stdout[-2000:]}{result.stderr[-2000:]}")
        (wheel,) = made.glob("*.whl")
        return write_zip(folder / wheel.name, read_zip(wheel), epoch)
