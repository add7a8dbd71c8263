"""What ends in a sentence, what in a traceback, and where that is kept."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.utils import instantiate
from torch.utils.data import DataLoader, Dataset

from medcontext.bundle.errors import STOPS, TRACEBACK_FILE, known_faults, one_sentence
from platforms import posix_only

NETWORKS = """
class Sums:
    def __init__(self, out_channels):
        self.channels = out_channels + "1"

class Asserts:
    def __init__(self, out_channels):
        assert out_channels > 99

class Unpacks:
    def __init__(self, out_channels):
        a, b = [out_channels]

class Imports:
    def __init__(self, out_channels):
        import nowhere_to_be_found
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("MEDCONTEXT_DEBUG", raising=False)
    yield "my_networks"
    sys.modules.pop("my_networks", None)


def build(path: str, folder: Path, **arguments: Any) -> None:
    with one_sentence("network_def", folder=folder):
        instantiate(path, "default", **arguments)


@pytest.mark.parametrize(
    ("name", "error"), [("Sums", TypeError), ("Asserts", AssertionError), ("Imports", ModuleNotFoundError)]
)
def test_a_bug_in_a_component_keeps_its_traceback(
    networks: str, tmp_path: Path, name: str, error: type[Exception]
) -> None:
    with pytest.raises(RuntimeError) as raised:
        build(f"{networks}.{name}", tmp_path / "run", out_channels=3)
    assert isinstance(raised.value.__cause__, error)
    kept = (tmp_path / "run" / TRACEBACK_FILE).read_text()
    assert "my_networks.py" in kept
    assert error.__name__ in kept


def test_an_error_that_may_be_either_says_how_to_see_where_it_arose(
    networks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "run" / TRACEBACK_FILE
    with pytest.raises(SystemExit) as raised:
        build(f"{networks}.Unpacks", tmp_path / "run", out_channels=3)
    assert str(raised.value) == (
        "medcontext: network_def: not enough values to unpack (expected 2, got 1) "
        f"(MEDCONTEXT_DEBUG=1 shows the traceback, as does {kept})"
    )
    assert "a, b = [out_channels]" in kept.read_text()
    monkeypatch.setenv("MEDCONTEXT_DEBUG", "1")
    with pytest.raises(RuntimeError, match="Failed to instantiate"):
        build(f"{networks}.Unpacks", tmp_path / "run", out_channels=3)


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("Sums", {"out_chanels": 3}, "got an unexpected keyword argument 'out_chanels'"),
        ("Sums", {}, "missing 1 required positional argument: 'out_channels'"),
        ("medcontext.transforms.RandOrganDropout", {"cell_size": "8"}, "cell_size must be"),
        (
            "medcontext.transforms.RandOrganDropoutd",
            {"keys": "image", "label_key": "label", "cell_sizes": 8},
            "has no argument 'cell_sizes'. Did you mean 'cell_size'",
        ),
        ("monai.networks.nets.BasicUNet", {"features": [1, 2]}, "Sequence must have length 6, got 2"),
    ],
)
def test_arguments_that_do_not_fit_are_a_sentence_and_leave_nothing(
    networks: str, tmp_path: Path, path: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=f"^medcontext: network_def: .*{message}") as raised:
        build(path if "." in path else f"{networks}.{path}", tmp_path / "run", **arguments)
    assert "MEDCONTEXT_DEBUG" not in str(raised.value)
    assert not (tmp_path / "run").exists()


class Endless(Dataset):
    """A case that takes as long to load as a test may wait."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        time.sleep(60)
        return index


@posix_only
def test_a_loader_that_is_killed() -> None:
    loading = iter(DataLoader(Endless(), num_workers=1))
    os.kill(loading._workers[0].pid, signal.SIGKILL)
    message = r"^medcontext: A loader's process (was killed \(Killed\)|ended unexpectedly), most likely because memory"
    with pytest.raises(SystemExit, match=message), one_sentence(kinds=STOPS), known_faults():
        next(loading)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "No space left on device.*free space on that disk.$"),
        (errno.EROFS, "Read-only file system.*that disk is mounted read-only: choose another folder.$"),
        (errno.EACCES, "Permission denied.*give yourself the right to write there, or choose another folder"),
    ],
)
def test_faults_of_the_disk(tmp_path: Path, code: int, remedy: str) -> None:
    fault = OSError(code, os.strerror(code), str(tmp_path / "events"))
    wrapped = RuntimeError("Failed to instantiate")
    wrapped.__cause__ = fault
    for error in (fault, wrapped):
        with pytest.raises(SystemExit, match=f"^medcontext: .*{remedy}"), one_sentence(kinds=STOPS), known_faults():
            raise error


def test_other_errors_keep_their_traceback() -> None:
    for error in (FileNotFoundError(errno.ENOENT, "No such file"), RuntimeError("a bug")):
        with pytest.raises(type(error)), one_sentence(kinds=STOPS), known_faults():
            raise error


def test_what_cannot_be_kept_hides_nothing(networks: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"not enough values .* \(MEDCONTEXT_DEBUG=1 shows the traceback\)$"):
        build(f"{networks}.Unpacks", tmp_path / "file", out_channels=3)
