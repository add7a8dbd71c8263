from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from medcontext.networks import load_pretrained


class Network(nn.Module):
    def __init__(self, classes: int, body: str) -> None:
        super().__init__()
        self.add_module(body, nn.Conv3d(1, 4, 1))
        self.head = nn.Conv3d(4, classes, 1)


def saved(path: Path, source: nn.Module) -> Path:
    torch.save(source.state_dict(), path)
    return path


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("medcontext")]


def test_what_fits_is_taken_and_the_rest_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = Network(3, "body"), Network(5, "body")
    head = target.head.weight.clone()
    with caplog.at_level(logging.INFO, "medcontext"):
        assert load_pretrained(target, saved(tmp_path / "model.pt", source)) is target
    torch.testing.assert_close(target.body.weight, source.body.weight)
    torch.testing.assert_close(target.head.weight, head)
    assert told(caplog) == [
        f"2 of 4 tensors loaded from {tmp_path / 'model.pt'}",
        "2 of another shape, left random: head.bias (3,) → (5,), head.weight (3, 4, 1, 1, 1) → (5, 4, 1, 1, 1)",
    ]


def test_names_on_one_side_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "medcontext"):
        load_pretrained(Network(3, "trunk"), saved(tmp_path / "model.pt", Network(3, "body")))
    assert told(caplog)[1:] == [
        "2 not in the file, left random: trunk.bias, trunk.weight",
        "2 not in the network, ignored: body.bias, body.weight",
    ]


def test_a_state_of_training_will_do(tmp_path: Path) -> None:
    source, target = Network(3, "body"), Network(3, "body")
    torch.save({"network": source.state_dict(), "trainer": {"iteration": 3}}, tmp_path / "last.pt")
    load_pretrained(target, tmp_path / "last.pt")
    torch.testing.assert_close(dict(target.state_dict()), dict(source.state_dict()))


def test_nothing_to_start_from(tmp_path: Path) -> None:
    target = Network(3, "body")
    before = {key: value.clone() for key, value in target.state_dict().items()}
    assert load_pretrained(target, None) is target
    other = saved(tmp_path / "other.pt", nn.Linear(2, 2))
    with pytest.raises(ValueError, match="Nothing in .*other.pt matches this Network; convert .* convert_weights"):
        load_pretrained(target, other)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="list.pt does not hold the weights of one network by name; give a model.pt"):
        load_pretrained(target, tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError, match="There is no checkpoint .*absent.pt"):
        load_pretrained(target, tmp_path / "absent.pt")
    torch.testing.assert_close(dict(target.state_dict()), before)
