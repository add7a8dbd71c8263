"""Facts about files, remembered for as long as the files do not change."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["FileMemory", "sha256_of"]

MEMORY_FILE = ".medcontext_files.jsonl"


class FileMemory:
    """Facts about files, each valid as long as the file keeps its size and modification time.

    Every fact is one appended line, so a process killed at any moment loses no more than the line it was writing, and
    several processes may write. Where nothing can be written, facts are kept for this process only.

    Args:
        path: file to keep the facts in.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._facts: dict[tuple[str, str], tuple[list[int], Any]] = {}
        self._read()

    @classmethod
    def beside(cls, datalist: str | os.PathLike[str]) -> FileMemory:
        """Open the memory of a dataset: beside its ``dataset.json`` or, where that is read-only, in the user's home."""
        folder = Path(datalist).absolute().parent
        if os.access(folder, os.W_OK):
            return cls(folder / MEMORY_FILE)
        home = Path(os.environ.get("MEDCONTEXT_HOME") or Path.home() / ".cache" / "medcontext")
        return cls(home / f".{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}{MEMORY_FILE}")

    def recall(self, file: str | os.PathLike[str], fact: str) -> Any:
        """Return the fact, or ``None`` if it is not known or the file has changed since."""
        state, value = self._facts.get((self._key(file), fact), (None, None))
        return value if state is not None and state == _state(file) else None

    def remember(self, file: str | os.PathLike[str], fact: str, value: Any) -> None:
        """Keep a fact, a JSON value, about the file in its current state."""
        key, state = self._key(file), _state(file)
        self._facts[key, fact] = (state, value)
        line = json.dumps({"file": key, "fact": fact, "state": state, "value": value})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError:
            return  # on a read-only or full disk the fact is read again later

    def _key(self, file: str | os.PathLike[str]) -> str:
        return Path(os.path.relpath(file, self.path.parent)).as_posix()

    def _read(self) -> None:
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                self._facts[entry["file"], entry["fact"]] = (entry["state"], entry["value"])
            except (ValueError, KeyError, TypeError):
                continue  # the line that a killed process was writing


def sha256_of(file: str | os.PathLike[str], memory: FileMemory | None = None) -> str:
    """Return the SHA-256 of a file as hex digits, reading the file only if the memory does not know it."""
    known = memory.recall(file, "sha256") if memory else None
    if known is not None:
        return str(known)
    with Path(file).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if memory:
        memory.remember(file, "sha256", digest)
    return digest


def _state(file: str | os.PathLike[str]) -> list[int]:
    status = Path(file).stat()
    return [status.st_size, status.st_mtime_ns]
