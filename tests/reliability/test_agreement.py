from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medcontext.networks.model_file import weights_hash
from medcontext.reliability import Agreement, label_dice
from thresholds import SETTINGS, threshold, write_models

LABELS = {"block": 1}


def scan() -> Tensor:
    """Brightness that rises along the first axis, from 0 to 1, in steps of a tenth."""
    return torch.linspace(0, 1, 11).view(1, 1, 11, 1, 1).expand(1, 1, 11, 8, 8).clone()


def predict(image: Tensor, network: nn.Module) -> Tensor:
    logits: Tensor = network(image)
    return logits


def test_label_dice_counts_regions_and_leaves_out_what_neither_has() -> None:
    first, second = torch.tensor([1, 1, 2, 0]), torch.tensor([1, 2, 2, 3])
    dice = label_dice(first, second, {"one": 1, "all": [1, 2], "three": 3, "four": 4})
    torch.testing.assert_close(dice, torch.tensor([2 / 3, 1.0, 0.0, float("nan")]), equal_nan=True)


def test_both_networks_and_the_scan_with_dropped_organs_are_compared(tmp_path: Path) -> None:
    folder = write_models(tmp_path / "models", [], student=0.45, teacher=0.65)
    agreement = Agreement(threshold(0.45), folder / "model.pt")
    image, state = scan(), torch.get_rng_state()
    found = agreement(image, predict(image, agreement.network), LABELS, predict)
    assert agreement.features == ("moving_average", "dropped_organs")
    assert found.shape == (1, 2)
    assert found[0, 0] == pytest.approx(2 * 4 / (6 + 4))  # 0.5 to 1.0 are six slices, 0.7 to 1.0 are four
    assert 0 < found[0, 1] < 1
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    torch.testing.assert_close(agreement(image, predict(image, agreement.network), LABELS, predict), found)


@pytest.mark.parametrize("weights", ["student", "teacher"])
def test_the_other_network_is_the_one_that_the_model_is_not(tmp_path: Path, weights: str) -> None:
    folder = write_models(tmp_path / "models", [])
    states = {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in ("student", "teacher")}
    torch.save(states[weights], folder / "model.pt")
    (folder / "model.json").write_text(json.dumps({"weights": weights, "settings": SETTINGS}))
    network = threshold(0)
    network.load_state_dict(states[weights])
    other = "teacher" if weights == "student" else "student"
    assert Agreement(network, folder / "model.pt").weights == {
        "model.pt": weights_hash(states[weights]),
        f"{other}.pt": weights_hash(states[other]),
    }


def test_without_the_other_network_dropped_organs_alone_are_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_models(tmp_path / "models", [])
    (folder / "teacher.pt").unlink()
    with caplog.at_level(logging.WARNING):
        agreement = Agreement(threshold(0.5), folder / "model.pt")
    assert agreement.features == ("dropped_organs",)
    assert "teacher.pt" in caplog.text
    image = scan()
    assert agreement(image, predict(image, agreement.network), LABELS, predict).shape == (1, 1)


def test_a_label_that_is_not_found_has_no_agreement(tmp_path: Path) -> None:
    folder = write_models(tmp_path / "models", [], student=2, teacher=2)
    agreement = Agreement(threshold(2), folder / "model.pt")
    image = scan()
    assert agreement(image, predict(image, agreement.network), LABELS, predict).isnan().all()
