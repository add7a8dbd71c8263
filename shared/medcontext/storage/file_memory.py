"""Facts about files, remembered for as long as the files do not change.

They are believed, so they are kept in a folder of the user's own, never beside data that may come from elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from medcontext.storage.files import open_unlinked
from medcontext.storage.parts import parts_of

__all__ = ["FileMemory", "cache_folder", "sha256_of"]


def cache_folder() -> Path:
    """Return the user's own folder for what can be made again.

    It is ``cache`` in ``$MEDCONTEXT_HOME``, else ``medcontext`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    home, caches = (os.environ.get(name) for name in ("MEDCONTEXT_HOME", "XDG_CACHE_HOME"))
    folder = Path(home) / "cache" if home else Path(caches or "~/.cache") / "medcontext"
    return folder.expanduser().absolute()


class FileMemory:
    """Facts about files, each valid as long as the file keeps its size and its times of modification and change.

    The second of these times is the disk's own, which no program can set back.

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
    def of_dataset(cls, datalist: str | os.PathLike[str]) -> FileMemory:
        """Open the user's memory of a dataset, which belongs to the folder that holds its ``dataset.json``."""
        folder = Path(datalist).absolute().parent
        digest = hashlib.sha256(str(folder).encode(errors="surrogateescape")).hexdigest()[:12]
        return cls(cache_folder() / f"{digest}.jsonl")

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
            with open_unlinked(self.path, "a") as stream:
                stream.write(line + "\n")
        except OSError:
            return  # on a read-only or full disk the fact is read again later

    def _key(self, file: str | os.PathLike[str]) -> str:
        return os.path.abspath(file)

    def _read(self) -> None:
        if self.path.is_symlink() or not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                self._facts[entry["file"], entry["fact"]] = (entry["state"], entry["value"])
            except (ValueError, KeyError, TypeError):
                continue  # the line that a killed process was writing


def sha256_of(file: str | os.PathLike[str], memory: FileMemory | None = None) -> str:
    """Return the SHA-256 as hex digits of a file and the other half of its volume, see :func:`parts_of`.

    They are read only if the memory does not know it.
    """
    known = memory.recall(file, "sha256") if memory else None
    if known is not None:
        return str(known)
    digest = hashlib.sha256()
    for part in parts_of(file):
        with part.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    if memory:
        memory.remember(file, "sha256", digest.hexdigest())
    return digest.hexdigest()


def _state(file: str | os.PathLike[str]) -> list[int]:
    states = [part.stat() for part in parts_of(file)]
    return [number for state in states for number in (state.st_size, state.st_mtime_ns, state.st_ctime_ns)]
