from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from medcontext.networks import CheckpointEnsemble, checkpoint_record, load_networks


class Constant(nn.Module):
    """The same logits everywhere."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits[None, :, None, None, None].expand(len(image), -1, *image.shape[2:])


def saved(folder: Path, **probabilities: list[float]) -> list[Path]:
    """Checkpoints of networks that give each class the same probability everywhere."""
    for name, values in probabilities.items():
        torch.save({"logits": torch.tensor(values).log().clamp_min(-1000)}, folder / f"{name}.pt")
    return [folder / f"{name}.pt" for name in probabilities]


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
