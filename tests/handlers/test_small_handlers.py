from __future__ import annotations

import pytest
import torch
from monai.data import Dataset
from monai.transforms import RandGaussianNoise

from medcontext.handlers import EpochSeed, NonFiniteLossError, ProgressBar, StopOnNonFiniteLoss
from tiny import TinyNet, batches, trainer


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    loader = list(batches())
    loader[2]["masked_image"][0, 0, 0, 0, 0] = float("nan")
    network = TinyNet()
    engine = trainer(network, loader=loader, train_handlers=[StopOnNonFiniteLoss()])
    with pytest.raises(
        NonFiniteLossError, match=r"train_loss, train_loss_context.* not finite at step 3; .*learning_rate"
    ):
        engine.run()
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_gradients_that_are_not_finite_stop_before_the_step() -> None:
    network = TinyNet()
    network.embed.weight.register_hook(lambda gradient: gradient * float("nan"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match="Gradients not finite at step 1"):
        trainer(network, train_handlers=[StopOnNonFiniteLoss()]).run()
    torch.testing.assert_close(dict(network.state_dict()), before)


def test_the_bar_shows_all_steps_losses_and_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(epochs=3, train_handlers=[ProgressBar(interval=0)]).run()
    shown = capsys.readouterr().err
    assert "12/12" in shown
    assert "epoch=3/3" in shown
    assert "loss_context=" in shown
    assert "loss_consistency=" in shown


def draw(epoch: int, seed: int = 0, rank: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    dataset = Dataset([torch.zeros(1, 4, 4)], RandGaussianNoise(prob=1.0))
    engine = trainer()
    engine.state.epoch, engine.state.rank = epoch, rank
    EpochSeed(seed, dataset)(engine)
    return torch.rand(2), torch.as_tensor(dataset[0])


def test_seeds_depend_on_epoch_seed_and_rank_alone() -> None:
    for first, again in zip(draw(3), draw(3), strict=True):
        torch.testing.assert_close(first, again, rtol=0, atol=0)
    for other in (draw(4), draw(3, seed=1), draw(3, rank=1)):
        assert not torch.equal(draw(3)[0], other[0])
        assert not torch.equal(draw(3)[1], other[1])


def test_negative_seed() -> None:
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        EpochSeed(-1, [])
