from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from medcontext.storage import file_memory
from medcontext.storage.file_memory import FileMemory, sha256_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "a.nii"
    path.parent.mkdir()
    path.write_bytes(b"content")
    return path


def test_facts_outlive_the_process_and_end_with_the_file(file: Path) -> None:
    path = file.parent / "memory"
    FileMemory(path).remember(file, "values", [0, 1])
    memory = FileMemory(path)
    assert memory.recall(file, "values") == [0, 1]
    assert memory.recall(file, "other") is None
    memory.remember(file, "values", [2])
    assert FileMemory(path).recall(file, "values") == [2]
    stamp = file.stat().st_mtime_ns
    os.utime(file, ns=(stamp, stamp + 1))
    assert FileMemory(path).recall(file, "values") is None


def test_facts_move_with_the_folder(file: Path, tmp_path: Path) -> None:
    FileMemory(file.parent / "memory").remember(file, "values", [1])
    file.parent.rename(tmp_path / "moved")
    assert FileMemory(tmp_path / "moved" / "memory").recall(tmp_path / "moved" / "a.nii", "values") == [1]


def test_half_a_line_is_forgotten(file: Path) -> None:
    path = file.parent / "memory"
    FileMemory(path).remember(file, "a", 1)
    FileMemory(path).remember(file, "b", 2)
    path.write_bytes(path.read_bytes()[:-9])
    memory = FileMemory(path)
    assert (memory.recall(file, "a"), memory.recall(file, "b")) == (1, None)


def test_read_only_folders(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FileMemory.beside(file.parent / "dataset.json").path.parent == file.parent
    monkeypatch.setattr(file_memory.os, "access", lambda *_: False)
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path / "home"))
    FileMemory.beside(file.parent / "dataset.json").remember(file, "values", [1])
    assert len(list(file.parent.iterdir())) == 1
    assert FileMemory.beside(file.parent / "dataset.json").recall(file, "values") == [1]
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path / "file"))
    memory = FileMemory.beside(file.parent / "dataset.json")
    memory.remember(file, "values", [1])
    assert memory.recall(file, "values") == [1]


def test_hashes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = hashlib.sha256(b"content").hexdigest()
    memory = FileMemory(file.parent / "memory")
    assert sha256_of(file, memory) == sha256_of(file) == expected
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert sha256_of(file, FileMemory(memory.path)) == expected
