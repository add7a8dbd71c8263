from __future__ import annotations

import errno
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
