"""What git knows of a folder."""

from __future__ import annotations

import os
import subprocess

__all__ = ["ask_git"]


def ask_git(folder: str | os.PathLike[str], *words: str) -> str:
    """Return what git answers in a folder; nothing without git, outside of a repository, or where it fails.

    Args:
        folder: where to ask.
        words: of the command, such as ``"rev-parse", "HEAD"``.
    """
    try:
        result = subprocess.run(
            ["git", "-C", os.fspath(folder), *words], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()
