"""Where this repository lies, and what belongs to its bundles."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# all that has a say in the bytes of a packed bundle, beside its own folder
SHARED = ("shared", "ci", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
