from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from medcontext.losses import PseudoLabelLoss, pseudo_label_loss


def logits(*voxels: tuple[float, ...]) -> torch.Tensor:
    """Logits (1, C, voxels, 1, 1) whose softmax gives the probabilities of each voxel."""
    return torch.tensor(voxels).log().T[None, :, :, None, None]


def test_by_hand() -> None:
    teacher = logits((0.9, 0.1), (0.2, 0.8), (0.45, 0.55), (0.3, 0.7))
    student = logits((0.5, 0.5), (0.5, 0.5), (0.25, 0.75), (0.75, 0.25))
    # at 0.7 the third voxel does not count; the others are labelled 0, 1 and 1
    entropy = (math.log(2) + math.log(2) + math.log(4)) / 4
    overlap, sizes = 0.5 + 0.25, (0.5 + 0.5 + 0.25) + 2
    loss, share = pseudo_label_loss(teacher, student, 0.7)
    assert loss.item() == pytest.approx(entropy + 1 - 2 * overlap / sizes)
    assert share.item() == 0.75


def test_thresholds_per_class() -> None:
    teacher = logits((0.9, 0.1), (0.2, 0.8), (0.45, 0.55), (0.3, 0.7))
    student = logits((0.5, 0.5), (0.5, 0.5), (0.25, 0.75), (0.75, 0.25))
    # background counts from 0.95, so the first voxel does not; foreground from 0.5
    loss, share = PseudoLabelLoss([0.95, 0.5])(teacher, student)
    entropy = (math.log(2) + math.log(4 / 3) + math.log(4)) / 4
    overlap, sizes = 0.5 + 0.75 + 0.25, (0.5 + 0.75 + 0.25) + 3
    assert loss.item() == pytest.approx(entropy + 1 - 2 * overlap / sizes)
    assert share.item() == 0.75


@pytest.mark.parametrize("confidence", [0.0, 0.4, [0.5, 0.3, 0.45, 0.6]])
@pytest.mark.parametrize("spatial", [(4, 3, 5), (6, 5)])
def test_against_a_literal_computation(confidence: Any, spatial: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    teacher, student = 2 * torch.randn(2, 4, *spatial), torch.randn(2, 4, *spatial)
    t, q = (x.double().softmax(1).movedim(1, -1).reshape(-1, 4) for x in (teacher, student))
    entropy, counted = 0.0, 0
    overlap, sizes, seen = [0.0] * 4, [0.0] * 4, [False] * 4
    for truth, guess in zip(t.tolist(), q.tolist(), strict=True):
        label = max(range(4), key=lambda c: truth[c])
        if truth[label] < (confidence[label] if isinstance(confidence, list) else confidence):
            continue
        counted += 1
        entropy -= math.log(guess[label])
        overlap[label] += guess[label]
        seen[label] = True
        for c in range(4):
            sizes[c] += guess[c] + (c == label)
    dice = [1 - 2 * overlap[c] / sizes[c] for c in (1, 2, 3) if seen[c]]
    loss, share = pseudo_label_loss(teacher, student, confidence)
    assert loss.item() == pytest.approx(entropy / len(t) + sum(dice) / len(dice), rel=1e-5)
    assert share.item() == pytest.approx(counted / len(t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_where_nothing_is_certain_nothing_is_learned(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    teacher, student = (torch.randn(2, 3, 4, 4, 4, dtype=dtype, requires_grad=True) for _ in range(2))
    loss, share = pseudo_label_loss(teacher, student, 1.0)
    loss.backward()
    assert (loss.item(), share.item()) == (0, 0)
    assert loss.dtype is torch.float32
    assert not student.grad.any()
    assert student.grad.isfinite().all()
    assert teacher.grad is None


def test_background_alone_has_no_dice() -> None:
    loss, share = pseudo_label_loss(logits((0.9, 0.1), (0.8, 0.2)), logits((0.5, 0.5), (0.25, 0.75)))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert share.item() == 1


def test_agreement_costs_next_to_nothing() -> None:
    certain = logits((1.0, 1e-9), (1e-9, 1.0), (1e-9, 1.0))
    loss, _ = pseudo_label_loss(certain, certain, 0.99)
    assert loss.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("confidence", [-0.1, 1.5, float("nan"), [0.5, 1.1]])
def test_thresholds_are_probabilities(confidence: Any) -> None:
    with pytest.raises(ValueError, match=r"confidence must lie in \[0, 1\], got .*: give a probability"):
        PseudoLabelLoss(confidence)


@pytest.mark.parametrize("confidence", [True, "0.5", ["high"], [0.5, True]])
def test_thresholds_are_numbers(confidence: Any) -> None:
    with pytest.raises(TypeError, match="confidence must be a number or a list of numbers"):
        PseudoLabelLoss(confidence)


def test_a_threshold_for_each_class_or_one_for_all() -> None:
    loss = PseudoLabelLoss([0.5, 0.9])
    with pytest.raises(ValueError, match="confidence has 2 thresholds for 3 classes, background included"):
        loss(torch.zeros(1, 3, 2, 2, 2), torch.zeros(1, 3, 2, 2, 2))
