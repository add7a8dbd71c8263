from __future__ import annotations

import pytest
import torch
from ignite.engine import Events

from medcontext.handlers import NonFiniteLossError, ProgressBar, StopOnNonFiniteLoss, step_values
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


def test_scalars_are_read_once_a_step() -> None:
    engine = trainer(train_handlers=[StopOnNonFiniteLoss()])
    read: list[float] = []

    @engine.on(Events.ITERATION_COMPLETED)
    def change_the_output() -> None:
        before = engine.state.output[0]["loss"]
        engine.state.output[0]["loss"] = 0.0
        read.append(step_values(engine)["train_loss"] - before)

    engine.run()
    assert read == [0.0] * 4


def test_the_bar_shows_all_steps_losses_and_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(epochs=3, train_handlers=[ProgressBar(interval=0)]).run()
    shown = capsys.readouterr().err
    assert "12/12" in shown
    assert "epoch=3/3" in shown
    assert "loss_context=" in shown
    assert "loss_consistency=" in shown
