from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medcontext.handlers import FinalModel, InstalledModel, ModelCheckpoint
from medcontext.networks import CheckpointWriteError, load_weights, make_teacher
from tiny import TinyNet, trainer


def train(run: Path, target: Path, *, with_teacher: bool) -> TinyNet:
    """One epoch, after which the weights are installed."""
    network = TinyNet()
    teacher = make_teacher(network) if with_teacher else None
    engine = trainer(network)
    FinalModel(ModelCheckpoint(str(run), network, teacher)).attach(engine)
    InstalledModel(str(run), str(target)).attach(engine)
    engine.run()
    return network


def test_installed_weights_replace_the_earlier_ones_and_their_description(tmp_path: Path) -> None:
    target = tmp_path / "bundle" / "models"
    train(tmp_path / "first", target, with_teacher=True)
    before = json.loads((target / "model.json").read_text())["sha256"]
    assert sorted(path.name for path in target.iterdir()) == ["model.json", "model.pt", "student.pt", "teacher.pt"]
    network = train(tmp_path / "second", target, with_teacher=False)
    assert sorted(path.name for path in target.iterdir()) == ["model.json", "model.pt"]
    loaded = load_weights(TinyNet(), target / "model.pt")
    assert torch.equal(loaded.embed.weight, network.embed.weight)
    # a crash between the two files may leave the weights before
    assert json.loads((target / "model.json").read_text())["sha256_before"] == before


def test_a_folder_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointWriteError, match="Could not write .*file/models/model.json"):
        train(tmp_path / "run", tmp_path / "file" / "models", with_teacher=True)
