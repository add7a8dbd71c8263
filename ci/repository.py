"""This repository, and what git knows of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# all that has a say in the bytes of a packed bundle, beside its own folder
SHARED = ("shared", "ci", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")


def git(folder: Path, *words: str) -> str:
    """What git answers in a folder; empty when it cannot."""
    words = ("git", "-C", str(folder), *words)
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
