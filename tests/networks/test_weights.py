from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from medcontext.networks import CheckpointWriteError, load_checkpoint, save_checkpoint


class Unsaveable:
    def __reduce__(self) -> Any:
        raise OSError("No space left on device")


def test_a_failed_save_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointWriteError, match="Could not write the checkpoint .*No space left"):
        save_checkpoint({"weight": Unsaveable()}, path)
    torch.testing.assert_close(load_checkpoint(path)["weight"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_a_disk_without_room_for_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(CheckpointWriteError, match="No space left on device"):
            save_checkpoint({}, tmp_path / "model.pt")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointWriteError, match="Could not write the checkpoint .*file/models/model.pt"):
        save_checkpoint({}, tmp_path / "file" / "models" / "model.pt")


def attempt(path: Path) -> tuple[str | None, dict[str, Any]]:
    """What reading says, and what is read."""
    try:
        return None, load_checkpoint(path)
    except ValueError as error:
        return str(error), {}


def test_one_flipped_bit_is_noticed_wherever_it_changes_what_is_read(tmp_path: Path) -> None:
    path, weights = tmp_path / "model.pt", {"weight": torch.arange(600.0), "bias": torch.arange(6)}
    save_checkpoint(weights, path)
    whole, noticed = path.read_bytes(), 0
    for position in range(0, 8 * len(whole), 101):  # 384 of them
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        problem, content = attempt(path)
        noticed += problem is not None
        if problem is not None:
            assert re.search("model.pt (is|refers).*use another file|holds code", problem)
        else:  # a date, for example
            assert list(content) == list(weights)
            assert all(torch.equal(content[name], weights[name]) for name in weights)
    assert noticed > 200
    path.write_bytes(whole.replace(weights["weight"].numpy().tobytes(), weights["weight"].add(1).numpy().tobytes()))
    with pytest.raises(ValueError, match="model.pt is damaged: its checksum does not match its content; use another"):
        load_checkpoint(path)


def test_files_of_old_versions_without_checksums_are_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert load_checkpoint(tmp_path / "old.pt")["weight"].tolist() == [1, 1]
