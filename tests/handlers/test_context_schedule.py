from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ignite.engine import Engine, Events
from monai.transforms import Identityd

from medcontext.handlers import ContextSchedule
from medcontext.transforms import RandOrganDropoutd, RandPatchDropoutd
from tiny import mixed_batches, trainer


def scheduled(epochs: int, start: int = 0, **shares: float) -> tuple[list[float], list[float], list[float]]:
    """Strength of the masks by epoch, and the strengths of consistency and unlabelled term by step, two an epoch."""
    masks = RandOrganDropoutd("image", "label")
    handler = ContextSchedule([masks, Identityd("image")], **shares)
    engine = trainer(epochs=epochs, loader=mixed_batches(2), train_handlers=[handler])
    engine.state.epoch, engine.state.iteration = start, start * 2
    by_epoch, consistency, unlabelled = [], [], []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: by_epoch.append(masks.strength))
    engine.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda e: (consistency.append(e.context_strength), unlabelled.append(e.unlabeled_strength)),
    )
    engine.run()
    return by_epoch, consistency, unlabelled


def test_by_default_everything_is_at_full_strength_from_the_start() -> None:
    assert scheduled(2) == ([1, 1], [1] * 4, [1] * 4)


def test_ramp_and_end_and_burn_in_by_hand() -> None:
    masks, consistency, unlabelled = scheduled(5, context_ramp=0.4, context_end=0.8, burn_in=0.2)
    assert masks == pytest.approx([0, 0.5, 1, 1, 0])
    assert consistency == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 0, 0])
    # nothing before two of ten steps, then a ramp of four, to the end
    assert unlabelled == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_unlabelled_scans_join_at_once_without_a_ramp() -> None:
    assert scheduled(4, burn_in=0.5)[2] == [0] * 4 + [1] * 4


def test_it_depends_on_the_progress_alone() -> None:
    shares = {"context_ramp": 0.5, "context_end": 0.75, "burn_in": 0.25}
    masks, consistency, unlabelled = scheduled(8, **shares)
    resumed = scheduled(8, start=3, **shares)
    assert resumed == (masks[3:], consistency[6:], unlabelled[6:])


@pytest.mark.parametrize("transform", [RandOrganDropoutd("image", "label"), RandPatchDropoutd("image")])
def test_strength_reaches_the_array_transform(transform: Any) -> None:
    handler = ContextSchedule([transform], context_ramp=0.5)
    handler.start_epoch(SimpleNamespace(state=SimpleNamespace(epoch=2, max_epochs=8)))
    assert transform.dropout.strength == transform.strength == 0.25


@pytest.mark.parametrize("name", ["context_ramp", "context_end", "burn_in"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_shares_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be a share of the training run within \[0, 1\], got {value}"):
        ContextSchedule(**{name: value})


def test_other_engines() -> None:
    with pytest.raises(TypeError, match="ContextSchedule needs a MedContextTrainer, got Engine"):
        ContextSchedule().attach(Engine(lambda engine, batch: None))
