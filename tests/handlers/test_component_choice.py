from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted
from torch import nn

from medcontext.handlers import ComponentChoice, ModelCheckpoint
from medcontext.networks import CheckpointWriteError
from tiny import trainer

LABELS = {"organ": 1}


class Echo(nn.Module):
    """Logits that are the image, turned round by a weight below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-1.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([-image, image], dim=1) * self.weight


def validated(folder: Path, network: nn.Module, island: bool = True) -> tuple[ModelCheckpoint, ComponentChoice]:
    """A saved network that sees an organ and an island beside it, which is none."""
    label = torch.zeros(2, 1, 6, 6, 6)
    label[:, :, :3] = 1
    image = label * 2 - 1
    image[:, :, 5, 5, 5] = 1 if island else -1
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": image, "label": label}],
        network=network,
        postprocessing=AsDiscreted(keys="pred", argmax=True, to_onehot=2),
    )
    checkpoint = ModelCheckpoint(str(folder), Echo(), settings={"labels": LABELS})
    nn.init.ones_(checkpoint.network.weight)
    return checkpoint, ComponentChoice(checkpoint, evaluator, LABELS, LABELS)


@pytest.mark.parametrize("island", [True, False])
def test_the_saved_weights_choose(tmp_path: Path, island: bool) -> None:
    network = Echo()  # of which the last state is useless
    checkpoint, choice = validated(tmp_path, network, island)
    engine = trainer(Echo())
    engine.network = network
    engine.state.rank, engine.state.epoch = 0, 3
    checkpoint.save(engine, "student", {})
    choice.attach(engine)
    engine.fire_event(Events.COMPLETED)
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["postprocessing"]["largest_components"] == (["organ"] if island else [])
    assert content["postprocessing"]["cases"] == 2
    assert content["postprocessing"]["dice"]["organ"]["largest"] == 1.0
    assert content["epoch"] == 3
    table = pd.read_csv(tmp_path / "components.csv")
    assert table["predicted"].tolist() == [108 + island] * 2
    assert table["predicted_largest"].tolist() == table["reference"].tolist() == [108, 108]
    assert choice.evaluator.network is network
    assert network.weight == -1


def test_a_full_disk_ends_training_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, choice = validated(tmp_path, Echo())
    engine = trainer(Echo())
    engine.state.rank, engine.state.epoch = 0, 1
    checkpoint.save(engine, "student", {})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medcontext.handlers.component_choice.write_file", full)
    with pytest.raises(CheckpointWriteError, match=r"Could not write .*components\.csv .*, then resume"):
        choice(engine)
    assert "postprocessing" not in json.loads((tmp_path / "model.json").read_text())
