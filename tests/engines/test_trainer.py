from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from monai.engines.utils import IterationEvents
from torch import nn

from medcontext.engines import MedContextEvents
from medcontext.handlers import TeacherUpdate
from medcontext.networks import TokenMasking
from tiny import TinyNet, batches, objective, trainer

TWO_PASSES = ["separate", "batched"]


def gradients_of_one_step(deep_supervision: bool, **kwargs: Any) -> dict[str, torch.Tensor]:
    """Gradients as they are when the optimizer steps on the first batch."""
    network = TinyNet(deep_supervision).double()
    found: dict[str, torch.Tensor] = {}
    engine = trainer(network, loader=_double(batches(1)), **kwargs)
    engine.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED,
        lambda: found.update({n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}),
    )
    engine.run()
    return found


def _double(loader: DataLoader) -> list[dict[str, torch.Tensor]]:
    return [{k: v.double() if v.is_floating_point() else v for k, v in batch.items()} for batch in loader]


def summed_loss_gradients(deep_supervision: bool) -> dict[str, torch.Tensor]:
    """The equation written out, without the trainer or the loss class."""
    student = TinyNet(deep_supervision).double()
    teacher = copy.deepcopy(student).eval()
    batch = _double(batches(1))[0]
    segmentation = objective(deep_supervision).segmentation
    p, p_masked = student(batch["image"]), student(batch["masked_image"])
    with torch.no_grad():
        t = teacher(batch["image"])
    full = p_masked[0] if deep_supervision else p_masked
    difference = (t - full).square().flatten(1).sum(1) / t.square().flatten(1).sum(1)
    loss = segmentation(p, batch["label"]) + 0.7 * segmentation(p_masked, batch["label"]) + 0.3 * difference.mean()
    loss.backward()
    return {name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("passes", TWO_PASSES)
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_both_ways_give_the_gradients_of_the_summed_loss(passes: str, deep_supervision: bool) -> None:
    torch.manual_seed(0)
    expected = summed_loss_gradients(deep_supervision)
    torch.manual_seed(0)
    got = gradients_of_one_step(
        passes=passes, deep_supervision=deep_supervision, loss_function=objective(deep_supervision)
    )
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("passes", TWO_PASSES)
def test_outputs_of_a_step(passes: str) -> None:
    engine = trainer(decollate=False, passes=passes)
    engine.run()
    output = engine.state.output
    total = output["loss_supervised"] + 0.7 * output["loss_context"] + 0.3 * output["loss_consistency"]
    torch.testing.assert_close(output["loss"], total)
    assert output["pred"].shape == output["masked_pred"].shape == output["teacher_pred"].shape == (2, 3, 4, 4, 4)
    assert not any(value.requires_grad for value in output.values())
    assert output["masked_fraction"] == engine.state.batch["context_mask"].mean()


def test_outputs_survive_decollation() -> None:
    engine = trainer()
    engine.run()
    assert len(engine.state.output) == 2
    assert engine.state.output[0]["loss"] == engine.state.output[1]["loss"]


@pytest.mark.parametrize("passes", ["single", *TWO_PASSES])
@pytest.mark.parametrize(
    ("mode", "key", "weight"),
    [("baseline", "image", 1.0), ("masking_only", "masked_image", 0.7), ("patch_dropout", "masked_image", 0.7)],
)
def test_controls_are_plain_training(mode: str, key: str, weight: float, passes: str) -> None:
    engine = trainer(mode=mode, passes=passes)
    engine.run()
    torch.manual_seed(0)
    network = TinyNet()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for batch in batches():
        optimizer.zero_grad()
        (weight * objective().segmentation(network(batch[key]), batch["label"])).backward()
        optimizer.step()
    torch.testing.assert_close(dict(engine.network.state_dict()), dict(network.state_dict()))


def test_accumulating_equals_one_large_batch() -> None:
    large = trainer(loader=batches(1, 4), mode="baseline")
    large.run()
    small = trainer(loader=_in_halves(), mode="baseline", accumulation_steps=2)
    small.run()
    torch.testing.assert_close(dict(small.network.state_dict()), dict(large.network.state_dict()))


def _in_halves() -> list[dict[str, torch.Tensor]]:
    """The large batch in two, with a loss that averages over samples."""
    whole = next(iter(batches(1, 4)))
    return [{key: value[i : i + 2] for key, value in whole.items()} for i in (0, 2)]


def test_accumulation_steps_at_the_end_of_an_epoch_too() -> None:
    engine = trainer(epochs=2, accumulation_steps=3)  # windows of 3 and 1 steps
    steps = []
    engine.add_event_handler(MedContextEvents.OPTIMIZER_STEPPED, lambda e: steps.append(e.optimizer_step_index()))
    engine.run()
    assert steps == [0, 1, 2, 3]
    assert engine.total_optimizer_steps() == 4


def test_gradient_clipping() -> None:
    network = TinyNet()
    engine = trainer(network, max_grad_norm=1e-3, loader=batches(1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    engine.run()
    moved = torch.cat([(network.state_dict()[name] - before[name]).flatten() for name in before])
    assert moved.norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_the_teacher_follows_every_optimizer_step() -> None:
    network = TinyNet()
    engine = trainer(network, epochs=3, train_handlers=[TeacherUpdate(momentum=0.9, warmup=0.25)])
    seen = []
    engine.add_event_handler(MedContextEvents.OPTIMIZER_STEPPED, lambda e: seen.append(e.state.teacher_momentum))
    engine.run()
    assert seen[:3] == pytest.approx([0, 0.3, 0.6])
    assert seen[3] == pytest.approx(0.9)
    assert len(seen) == 12
    student, teacher = network.state_dict(), engine.teacher.state_dict()
    assert any(not torch.equal(student[name], teacher[name]) for name in student)


def test_token_masking_sees_the_whole_image_with_tokens_replaced() -> None:
    masking = TokenMasking(TinyNet(), "embed", (1, 4, 4, 4))
    engine = trainer(masking, decollate=False, loader=batches(1), passes="separate")
    images = []
    masking.network.register_forward_pre_hook(lambda module, args: images.append(args[0]))
    engine.run()
    assert len(images) == 2
    torch.testing.assert_close(images[0], images[1])
    assert masking.mask_token.abs().sum() > 0


@pytest.mark.parametrize("passes", ["single", *TWO_PASSES])
def test_bfloat16_autocast_on_the_cpu(passes: str) -> None:
    engine = trainer(amp=True, amp_kwargs={"dtype": torch.bfloat16}, passes=passes, decollate=False)
    engine.run()
    assert engine.state.output["pred"].dtype is torch.bfloat16
    assert engine.state.output["loss"].isfinite()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("disk")])
def test_handlers_learn_of_an_aborted_run(error: BaseException) -> None:
    engine = trainer()
    seen = []

    def fail() -> None:
        raise error

    engine.add_event_handler(IterationEvents.MODEL_COMPLETED, fail)
    engine.add_event_handler(MedContextEvents.RUN_ABORTED, lambda e: seen.append(e.state.exception))
    with pytest.raises(type(error)):
        engine.run()
    assert seen == [error]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "self_supervised"}, ValueError, "mode must be one of .*'baseline'.* got 'self_supervised'"),
        ({"passes": "twice"}, ValueError, "passes must be one of .*'separate'.* got 'twice'"),
        (
            {"mode": "pseudo_labels", "passes": "batched"},
            ValueError,
            "mode 'pseudo_labels' has a single pass, got passes 'batched'; use 'single'",
        ),
        ({"mode": "pseudo_labels", "teacher": None}, ValueError, "mode 'pseudo_labels' needs a teacher"),
        ({"mode": "medcontext_unlabeled"}, ValueError, "mode 'medcontext_unlabeled' needs organ_dropout"),
        ({"max_grad_norm": 0}, ValueError, "max_grad_norm must be above 0, got 0"),
        ({"loss_function": nn.MSELoss()}, TypeError, "must be a MedContextLoss, got MSELoss"),
        ({"accumulation_steps": 0}, ValueError, "accumulation_steps"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        trainer(**arguments)
