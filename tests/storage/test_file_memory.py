from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from medcontext.storage import file_memory
from medcontext.storage.file_memory import FileMemory, cache_folder, sha256_of


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


def test_a_changed_file_with_its_old_size_and_time_is_read_again(file: Path) -> None:
    memory = FileMemory(file.parent / "memory")
    memory.remember(file, "values", [1])
    stamp = file.stat().st_mtime_ns
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(stamp, stamp))
    assert memory.recall(file, "values") is None


def test_half_a_line_is_forgotten(file: Path) -> None:
    path = file.parent / "memory"
    FileMemory(path).remember(file, "a", 1)
    FileMemory(path).remember(file, "b", 2)
    path.write_bytes(path.read_bytes()[:-9])
    memory = FileMemory(path)
    assert (memory.recall(file, "a"), memory.recall(file, "b")) == (1, None)


@pytest.mark.parametrize(
    ("home", "caches", "folder"),
    [
        ("/lab", "/caches", "/lab/cache"),
        (None, "/caches", "/caches/medcontext"),
        (None, None, "/users/me/.cache/medcontext"),
        ("~/lab", None, "/users/me/lab/cache"),
    ],
)
def test_the_cache_is_the_users_own(
    monkeypatch: pytest.MonkeyPatch, home: str | None, caches: str | None, folder: str
) -> None:
    monkeypatch.setenv("HOME", "/users/me")
    for name, value in (("MEDCONTEXT_HOME", home), ("XDG_CACHE_HOME", caches)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path(folder)


def test_what_lies_beside_a_dataset_is_neither_read_nor_changed(file: Path) -> None:
    beside = file.parent / ".medcontext_files.jsonl"
    state = file_memory._state(file)
    lie = {"file": "a.nii", "fact": "values", "state": state, "value": ["wrong"]}
    beside.write_text(json.dumps({**lie, "file": str(file)}) + "\n" + json.dumps(lie) + "\n")
    before = beside.read_text()
    memory = FileMemory.of_dataset(file.parent / "dataset.json")
    assert memory.recall(file, "values") is None
    memory.remember(file, "values", [1])
    assert FileMemory.of_dataset(file.parent / "dataset.json").recall(file, "values") == [1]
    assert FileMemory.of_dataset(file.parent / "other" / "dataset.json").recall(file, "values") is None
    assert beside.read_text() == before
    assert len(list(file.parent.iterdir())) == 2


def test_a_link_is_neither_believed_nor_written_through(file: Path) -> None:
    target, link = file.parent / "target", file.parent / "memory"
    FileMemory(target).remember(file, "values", ["wrong"])
    before = target.read_text()
    link.symlink_to(target)
    memory = FileMemory(link)
    assert memory.recall(file, "values") is None
    memory.remember(file, "values", [1])
    assert memory.recall(file, "values") == [1]
    assert target.read_text() == before


def test_facts_are_kept_for_the_process_where_nothing_can_be_written(file: Path) -> None:
    (file.parent / "occupied").touch()
    memory = FileMemory(file.parent / "occupied" / "memory")
    memory.remember(file, "values", [1])
    assert memory.recall(file, "values") == [1]


def test_hashes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = hashlib.sha256(b"content").hexdigest()
    memory = FileMemory(file.parent / "memory")
    assert sha256_of(file, memory) == sha256_of(file) == expected
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert sha256_of(file, FileMemory(memory.path)) == expected
