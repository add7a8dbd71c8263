"""Ways to spoil a bundle, each a function of the folder that the files lie in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], object]


def change_json(file: str, change: Callable[[dict], object]) -> Damage:
    """Change the content of a JSON file in place."""

    def apply(root: Path) -> None:
        content = json.loads((root / file).read_text())
        change(content)
        (root / file).write_text(json.dumps(content, indent=4) + "\n")

    return apply


def edit(file: str, old: str, new: str) -> Damage:
    """Replace the first of some words, which must be there."""

    def apply(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new, 1))

    return apply


def write(file: str, content: str) -> Damage:
    """Write a file."""

    def apply(root: Path) -> None:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(content)

    return apply


def remove(file: str) -> Damage:
    """Remove a file."""
    return lambda root: (root / file).unlink()
