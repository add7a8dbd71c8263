from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medcontext.storage import file_memory, locks
from medcontext.storage.locks import lock, locked, release

HOLD = """
import pathlib, sys
from medcontext.storage import file_memory, locks
file_memory.cache_folder = lambda: pathlib.Path(sys.argv[1])
locks.lock(pathlib.Path(sys.argv[2]), "taken")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """What training runs of other tests in this process hold until it ends is not looked at."""
    monkeypatch.setattr(locks, "_held", {})


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has reserved the folder ``run``."""
    words = [sys.executable, "-c", HOLD, str(file_memory.cache_folder()), str(tmp_path / "run")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_is_for_one_process_until_it_ends(other: subprocess.Popen[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for name in ("run", "link", "a/../run"):
        with pytest.raises(ValueError, match="^taken$"):
            lock(tmp_path / name, "taken")
    lock(tmp_path / "run2", "taken")
    release(tmp_path / "run2")
    other.kill()
    other.wait()
    with locked(tmp_path / "run", "taken"):
        assert (tmp_path / "run").resolve() in locks._held
    assert locks._held == {}
    assert list((tmp_path / "run").iterdir()) == []


def test_a_process_may_reserve_a_folder_again(tmp_path: Path) -> None:
    for _ in range(2):
        lock(tmp_path, "taken")
    for _ in range(2):
        release(tmp_path)
    assert locks._held == {}


def test_without_a_cache_nothing_is_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(file_memory, "cache_folder", lambda: tmp_path / "file")
    lock(tmp_path, "taken")
    assert locks._held == {}
