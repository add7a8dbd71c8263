"""Steps of one pass over whole, masked and unlabelled crops."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.losses import DiceCELoss
from torch import nn

from medcontext.engines import MedContextTrainer
from medcontext.keys import MedContextKeys
from medcontext.losses import ConsistencyLoss, MedContextLoss, PseudoLabelLoss, pseudo_label_loss
from medcontext.networks import TokenMasking, make_teacher
from tiny import TinyNet, mixed_batches, objective, trainer

MODES = ["baseline", "patch_dropout", "masking_only", "medcontext", "pseudo_labels", "medcontext_unlabeled"]


class Zeroing:
    """In place of organ dropout: drops the first voxels along an axis, and remembers what it was given."""

    def __init__(self) -> None:
        self.labels: list[torch.Tensor] = []

    def __call__(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.labels.append(label)
        mask = torch.zeros_like(label, dtype=torch.float32)
        mask[:, :, :2] = 1
        return image * (1 - mask), mask


def watched(network: nn.Module) -> list[torch.Tensor]:
    """The images that a network is given from now on."""
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    return seen


def weighted(**weights: float) -> MedContextLoss:
    segmentation = DiceCELoss(to_onehot_y=True, softmax=True)
    return MedContextLoss(segmentation, ConsistencyLoss("relative"), PseudoLabelLoss(0.35), **weights)


def doubled(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}


def gradients(engine: MedContextTrainer) -> dict[str, torch.Tensor]:
    """Gradients as they are when the optimizer steps on the only batch."""
    found: dict[str, torch.Tensor] = {}
    engine.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED,
        lambda: found.update({n: p.grad.clone() for n, p in engine.student.named_parameters() if p.grad is not None}),
    )
    engine.run()
    return found


@pytest.mark.parametrize("strength", [1.0, 0.25])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_gradients_are_those_of_the_equation(deep_supervision: bool, strength: float) -> None:
    """One whole and two masked crops, each once, against the sum written out."""
    torch.manual_seed(0)
    student = TinyNet(deep_supervision).double()
    teacher = copy.deepcopy(student).eval()
    with torch.no_grad():
        teacher.embed.weight.mul_(1.1)
    batch = doubled(mixed_batches(1, 3)[0])
    pred = student(batch["masked_image"])
    loss = objective(deep_supervision)
    whole, masked = ([out[i] for out in pred] if deep_supervision else pred[i] for i in (slice(1), slice(1, 3)))
    with torch.no_grad():
        t = teacher(batch["image"][1:])
    full = masked[0] if deep_supervision else masked
    difference = ((t - full).square().flatten(1).sum(1) / t.square().flatten(1).sum(1)).mean()
    total = loss.segmentation(whole, batch["label"][:1]) / 3
    total = total + 2 / 3 * (0.7 * loss.segmentation(masked, batch["label"][1:]) + strength * 0.3 * difference)
    total.backward()
    expected = {name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None}

    network = copy.deepcopy(student)
    engine = trainer(network, loader=[batch], teacher=teacher, loss_function=loss, decollate=False)
    engine.context_strength = strength
    torch.testing.assert_close(gradients(engine), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(engine.state.output["loss"].double(), total.detach())
    assert engine.state.output["pred"].shape == (3, 3, 4, 4, 4)
    assert engine.state.output["masked_fraction"] == batch["context_mask"].mean()


@pytest.mark.parametrize("mode", ["pseudo_labels", "medcontext_unlabeled"])
def test_gradients_with_unlabelled_crops(mode: str) -> None:
    torch.manual_seed(0)
    student = TinyNet().double()
    batch = doubled(mixed_batches(1)[0])
    strong = batch["unlabeled_strong"].clone()
    if mode == "medcontext_unlabeled":
        strong[:, :, :2] = 0
    loss = weighted(context_weight=0.7, consistency_weight=0.0, unlabeled_weight=0.4)
    pred, label = student(batch["masked_image"]), batch["label"]
    with torch.no_grad():
        pseudo = student(batch["unlabeled_image"])
    total = (loss.segmentation(pred[:1], label[:1]) + 0.7 * loss.segmentation(pred[1:], label[1:])) / 2
    term, share = pseudo_label_loss(pseudo, student(strong), 0.35)
    assert 0 < share < 1
    (total + 0.5 * 0.4 * term).backward()
    expected = {name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None}

    network = copy.deepcopy(student)
    engine = trainer(
        network, loader=[batch], mode=mode, loss_function=loss, organ_dropout=Zeroing(), decollate=False, epochs=1
    )
    engine.unlabeled_strength = 0.5
    torch.testing.assert_close(gradients(engine), expected, rtol=1e-10, atol=1e-12)
    output = engine.state.output
    torch.testing.assert_close(output["loss_unlabeled"], term.detach())
    torch.testing.assert_close(output["confident_fraction"], share)
    torch.testing.assert_close(output["loss"].double(), (total + 0.2 * term).detach())
    assert output["pred"].shape == (2, 3, 4, 4, 4)  # of the labelled crops


@pytest.mark.parametrize("mode", MODES)
def test_what_each_network_sees(mode: str) -> None:
    network, (batch,) = TinyNet(), mixed_batches(1)
    teacher, dropout = make_teacher(network), Zeroing()
    student_saw, teacher_saw = watched(network), watched(teacher)
    loss = weighted(consistency_weight=0.5)
    engine = trainer(
        network, loader=[batch], teacher=teacher, mode=mode, loss_function=loss, organ_dropout=dropout, decollate=False
    )
    engine.run()
    strong = batch["unlabeled_strong"].clone()
    if mode == "medcontext_unlabeled":
        strong[:, :, :2] = 0
    labelled = batch["image"] if mode == "baseline" else batch["masked_image"]
    unlabelled = mode in MODES[4:]
    (seen,) = student_saw  # a single pass
    torch.testing.assert_close(seen, torch.cat([labelled, strong]) if unlabelled else labelled)
    # the teacher sees what is masked whole, and unlabelled crops less augmented
    expected = [batch["image"][1:]] if mode in MODES[3:] else []
    expected += [batch["unlabeled_image"]] if unlabelled else []
    assert len(teacher_saw) == len(expected)
    for found, image in zip(teacher_saw, expected, strict=True):
        torch.testing.assert_close(found, image)
    labels = [teacher(batch["unlabeled_image"]).argmax(1, keepdim=True)] if mode == "medcontext_unlabeled" else []
    assert len(dropout.labels) == len(labels)
    for found, label in zip(dropout.labels, labels, strict=True):
        torch.testing.assert_close(found, label)
    terms = {"loss_supervised"} | ({"loss_context"} if mode != "baseline" else set())
    terms |= {"loss_consistency"} if mode in MODES[3:] else set()
    terms |= {"loss_unlabeled"} if unlabelled else set()
    assert {name for name in engine.state.output if name.startswith("loss_")} == terms
    assert ("masked_fraction" in engine.state.output) == (mode != "baseline")
    assert ("confident_fraction" in engine.state.output) == unlabelled


@pytest.mark.parametrize(
    ("weights", "strengths", "passes", "calls"),
    [
        ({"consistency_weight": 0.0}, (1, 1), "single", 0),
        ({"consistency_weight": 0.5}, (0, 1), "single", 0),
        ({"consistency_weight": 0.5}, (0.1, 1), "single", 4),
        ({"consistency_weight": 0.0}, (1, 1), "separate", 0),
        ({"consistency_weight": 0.0}, (1, 1), "batched", 0),
        ({"consistency_weight": 0.5}, (0, 1), "batched", 0),
        ({"consistency_weight": 0.5}, (1, 1), "separate", 4),
    ],
)
def test_a_term_without_weight_costs_no_pass_of_the_teacher(
    weights: dict[str, float], strengths: tuple[float, float], passes: str, calls: int
) -> None:
    network = TinyNet()
    teacher = make_teacher(network)
    seen = watched(teacher)
    engine = trainer(network, loader=mixed_batches(), teacher=teacher, passes=passes, loss_function=weighted(**weights))
    engine.context_strength, engine.unlabeled_strength = strengths
    engine.run()
    assert len(seen) == calls
    assert ("loss_consistency" in engine.state.output[0]) == bool(calls)


def test_no_teacher_is_asked_about_whole_crops_alone() -> None:
    network, (batch,) = TinyNet(), mixed_batches(1, 1)
    seen = watched(teacher := make_teacher(network))
    engine = trainer(network, loader=[batch], teacher=teacher, loss_function=weighted(consistency_weight=0.5))
    engine.run()
    assert seen == []
    assert engine.state.output[0]["loss"] == engine.state.output[0]["loss_supervised"]


@pytest.mark.parametrize(("weight", "strength"), [(1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("mode", ["pseudo_labels", "medcontext_unlabeled"])
def test_unlabelled_crops_that_count_for_nothing_are_left_out(mode: str, weight: float, strength: float) -> None:
    network, (batch,) = TinyNet(), mixed_batches(1)
    teacher = make_teacher(network)
    student_saw, teacher_saw = watched(network), watched(teacher)
    loss = weighted(consistency_weight=0.0, unlabeled_weight=weight)
    engine = trainer(network, loader=[batch], teacher=teacher, mode=mode, loss_function=loss, organ_dropout=Zeroing())
    engine.unlabeled_strength = strength
    engine.run()
    assert ([len(image) for image in student_saw], teacher_saw) == ([2], [])
    assert "loss_unlabeled" not in engine.state.output[0]
    assert "confident_fraction" not in engine.state.output[0]


def test_the_teacher_learns_nothing_from_gradients_and_keeps_evaluating() -> None:
    network = TinyNet()
    teacher = make_teacher(network)
    before = copy.deepcopy(dict(teacher.state_dict()))
    trainer(
        network,
        loader=mixed_batches(),
        teacher=teacher,
        mode="medcontext_unlabeled",
        organ_dropout=Zeroing(),
        loss_function=weighted(consistency_weight=0.5),
    ).run()
    torch.testing.assert_close(dict(teacher.state_dict()), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.training


def test_tokens_are_masked_where_a_crop_is() -> None:
    masking = TokenMasking(TinyNet(), "embed", (1, 4, 4, 4))
    (batch,) = mixed_batches(1)
    teacher = make_teacher(masking)
    seen = watched(masking.network)
    engine = trainer(masking, loader=[batch], teacher=teacher, mode="pseudo_labels", loss_function=weighted())
    engine.run()
    torch.testing.assert_close(seen[0], torch.cat([batch["image"], batch["unlabeled_strong"]]))
    assert masking.mask_token.abs().sum() > 0


@pytest.mark.parametrize("passes", ["single", "separate", "batched"])
def test_events_fire_when_their_names_say(passes: str) -> None:
    network = TinyNet()
    engine = trainer(network, loader=mixed_batches(1), passes=passes, decollate=False, loss_function=weighted())
    seen, order = watched(network), []
    student_passes = 2 if passes == "separate" else 1

    def has_gradients() -> bool:
        return any(parameter.grad is not None for parameter in network.parameters())

    def forwarded(engine: MedContextTrainer) -> None:
        order.append("forward")
        assert len(seen) == student_passes
        assert "loss" not in engine.state.output
        assert has_gradients() == (passes == "separate")  # of the whole crops, which are back-propagated first

    def lost(engine: MedContextTrainer) -> None:
        order.append("loss")
        assert engine.state.output.keys() >= {"pred", "loss", "loss_supervised", "loss_context"}
        assert has_gradients() == (passes == "separate")
        total = engine.state.output["loss_supervised"] + engine.state.output["loss_context"]
        share = 0.5 if passes == "single" else 1
        torch.testing.assert_close(engine.state.output["loss"], share * total)

    def stepped(engine: MedContextTrainer) -> None:
        order.append("model")
        assert not torch.equal(before["embed.weight"], network.embed.weight)

    def backwarded(engine: MedContextTrainer) -> None:
        order.append("backward")
        assert has_gradients()
        torch.testing.assert_close(before["embed.weight"], network.embed.weight)

    before = {name: value.clone() for name, value in network.state_dict().items()}
    events = ("FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED")
    for event, handler in zip(events, (forwarded, lost, backwarded, stepped), strict=True):
        engine.add_event_handler(IterationEvents[event], handler)
    engine.loss_function.consistency_weight = 0.0
    engine.run()
    assert order == ["forward", "loss", "backward", "model"]


def test_bfloat16_with_unlabelled_crops_on_the_cpu() -> None:
    kinds: Counter[Any] = Counter()
    network = TinyNet()
    teacher = make_teacher(network)
    network.register_forward_hook(lambda module, args, output: kinds.update([output.dtype]))
    engine = trainer(
        network,
        teacher=teacher,
        epochs=2,
        loader=mixed_batches(),
        mode="medcontext_unlabeled",
        organ_dropout=Zeroing(),
        loss_function=weighted(consistency_weight=0.5),
        amp=True,
        amp_kwargs={"dtype": torch.bfloat16},
    )
    losses: list[float] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output[0]["loss"])))
    engine.run()
    assert kinds == {torch.bfloat16: 8}
    assert torch.tensor(losses).isfinite().all()
    assert 0 < engine.state.output[0][MedContextKeys.LOSS_UNLABELED] < float("inf")
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_batches_without_unlabelled_crops() -> None:
    """A user's own loader may bring some or none."""
    plain = [{k: v for k, v in batch.items() if not k.startswith("unlabeled")} for batch in mixed_batches(2)]
    engine = trainer(
        loader=[mixed_batches(1)[0], *plain], mode="pseudo_labels", loss_function=weighted(), decollate=False
    )
    found: list[bool] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: found.append("loss_unlabeled" in e.state.output))
    engine.run()
    assert found == [True, False, False]
