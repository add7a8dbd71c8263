from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from medcontext.networks import (
    CheckpointEnsemble,
    MeanEnsemble,
    checkpoint_record,
    load_networks,
    load_pretrained,
    load_weights,
)
from medcontext.networks.model_file import weights_hash
from medcontext.networks.state_dicts import ensemble_state


class Constant(nn.Module):
    """The same logits everywhere."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits[None, :, None, None, None] + torch.zeros_like(image[:, :1])


def saved(folder: Path, **probabilities: list[float]) -> list[Path]:
    """Checkpoints of networks that give each class the same probability everywhere."""
    for name, values in probabilities.items():
        torch.save({"logits": torch.tensor(values).log().clamp_min(-1000)}, folder / f"{name}.pt")
    return [folder / f"{name}.pt" for name in probabilities]


def test_a_program_that_loads_weights_itself_gets_the_network_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = Constant(0, 1)
    assert load_networks(network, str(tmp_path / "a.pt"), required=False) is network
    assert f"There is no {tmp_path / 'a.pt'}, so the network has no trained weights" in caplog.text
    with pytest.raises(FileNotFoundError, match="a.pt"):
        load_networks(network, str(tmp_path / "a.pt"))


def test_one_checkpoint_is_the_network_itself(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, a=[0.25, 0.75])
    network = Constant(0, 0)
    assert load_networks(network, str(path)) is network
    assert load_networks(network, [path]) is network
    torch.testing.assert_close(network.logits.exp(), torch.tensor([0.25, 0.75]))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint_record(network) == [{"file": str(path), "sha256": digest}]
    assert checkpoint_record(Constant(0, 0)) == []


def test_several_checkpoints_give_the_mean_probability(tmp_path: Path) -> None:
    paths = saved(tmp_path, a=[0.2, 0.7, 0.1], b=[0.4, 0.1, 0.5], c=[0.9, 0.1, 0.0])
    ensemble = load_networks(Constant(0, 0, 0), paths)
    assert isinstance(ensemble, CheckpointEnsemble)
    for _ in range(2):  # members take turns again
        output = ensemble(torch.zeros(2, 1, 3, 4, 5))
        assert output.shape == (2, 3, 3, 4, 5)
        torch.testing.assert_close(output.softmax(1)[1, :, 2, 3, 4], torch.tensor([0.5, 0.3, 0.2]))
    assert [Path(entry["file"]).name for entry in checkpoint_record(ensemble)] == ["a.pt", "b.pt", "c.pt"]


def test_a_class_that_no_member_gives_any_probability(tmp_path: Path) -> None:
    ensemble = load_networks(Constant(0, 0), saved(tmp_path, a=[1.0, 0.0], b=[1.0, 0.0]))
    output = ensemble(torch.zeros(1, 1, 2, 2, 2))
    assert output.isfinite().all()
    torch.testing.assert_close(output.softmax(1)[0, :, 0, 0, 0], torch.tensor([1.0, 0.0]))


def test_members_keep_their_weights_when_the_network_is_trained_on(tmp_path: Path) -> None:
    network = Constant(0, 0)
    ensemble = load_networks(network, saved(tmp_path, a=[0.2, 0.8], b=[0.6, 0.4]))
    with torch.no_grad():
        network.logits.fill_(7)
    torch.testing.assert_close(ensemble(torch.zeros(1, 1, 1, 1, 1)).softmax(1).flatten(), torch.tensor([0.4, 0.6]))


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([], ValueError, r"ckpt_path must name one checkpoint or several different ones, got \[\]"),
        (["a.pt", "./a.pt"], ValueError, "ckpt_path must name one checkpoint or several different ones"),
        (["a.pt", "none.pt"], FileNotFoundError, "There is no checkpoint none.pt"),
        (["a.pt", "other.pt"], ValueError, "The weights in other.pt are not those of this Constant"),
    ],
)
def test_checkpoints_that_cannot_be_an_ensemble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, a=[0.5, 0.5], other=[0.2, 0.2, 0.6])
    with pytest.raises(error, match=message):
        load_networks(Constant(0, 0), names)


def test_an_ensemble_without_members() -> None:
    with pytest.raises(ValueError, match="states must hold the weights of at least one member"):
        CheckpointEnsemble(Constant(0, 0), [])


def ensemble_file(folder: Path, *probabilities: list[float]) -> Path:
    """One file with networks that give each class the same probability everywhere, and what describes it."""
    state = ensemble_state([{"logits": torch.tensor(values).log()} for values in probabilities])
    torch.save(state, folder / "model.pt")
    (folder / "model.json").write_text(json.dumps({"sha256": {"model.pt": weights_hash(state)}}))
    return folder / "model.pt"


def test_a_file_may_hold_an_ensemble(tmp_path: Path) -> None:
    path = ensemble_file(tmp_path, [0.2, 0.8], [0.4, 0.6])
    ensemble, image = load_networks(Constant(0, 0), path), torch.zeros(2, 1, 3, 4, 5)
    assert isinstance(ensemble, CheckpointEnsemble)
    torch.testing.assert_close(ensemble(image).softmax(1)[1, :, 2, 3, 4], torch.tensor([0.3, 0.7]))
    assert [Path(entry["file"]) for entry in checkpoint_record(ensemble)] == [path]
    (more,) = saved(tmp_path, more=[0.9, 0.1])
    torch.testing.assert_close(load_networks(Constant(0, 0), [path, more])(image).softmax(1)[0, 0, 0, 0, 0].item(), 0.5)

    exported = MeanEnsemble(Constant(0, 0), path)
    exported.load_state_dict(torch.load(path))  # as MONAI's exports do
    torch.testing.assert_close(torch.jit.script(exported)(image), ensemble(image))


def test_an_ensemble_is_no_single_network(tmp_path: Path) -> None:
    path = ensemble_file(tmp_path, [0.2, 0.8], [0.4, 0.6])
    for load in (load_weights, load_pretrained):
        with pytest.raises(ValueError, match="model.pt holds an ensemble of 2 networks, .*; give the model.pt"):
            load(Constant(0, 0), path)
    (single,) = saved(tmp_path, single=[0.5, 0.5])
    with pytest.raises(ValueError, match="single.pt holds one network, not an ensemble; export it as network_def"):
        MeanEnsemble(Constant(0, 0), single)


def test_an_ensemble_of_other_weights_than_described(tmp_path: Path) -> None:
    path = ensemble_file(tmp_path, [0.2, 0.8], [0.4, 0.6])
    torch.save({**torch.load(path), "members.1.logits": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="are not those that model.json beside it describes"):
        load_networks(Constant(0, 0), path)
    torch.save({**torch.load(path), "members.1.logits": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="are not those of this Constant"):
        load_networks(Constant(0, 0), path)
