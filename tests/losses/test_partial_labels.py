from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceFocalLoss

from medcontext.losses import PartialLabelLoss, merge_unannotated, partial_loss

SPLEEN, LIVER = [2], [1]
SETS = [[1, 2], LIVER, SPLEEN]  # -1 ignored, -2 perhaps liver, -3 perhaps spleen
LOSSES: list[Callable[..., torch.Tensor]] = [
    DiceCELoss(softmax=True, to_onehot_y=True, squared_pred=True, smooth_nr=0, smooth_dr=1e-6),
    DiceCELoss(softmax=True, to_onehot_y=True, include_background=False),
    DiceFocalLoss(softmax=True, to_onehot_y=True),
]


@pytest.fixture
def logits() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 6, 6, 6, requires_grad=True)


@pytest.fixture
def label() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 3, (2, 1, 6, 6, 6)).float()


def test_nothing_changes_where_everything_is_annotated(logits: torch.Tensor, label: torch.Tensor) -> None:
    for plain in LOSSES:
        assert partial_loss(plain, []) is plain
        value, expected = (loss(logits, label) for loss in (partial_loss(plain, SETS), plain))
        assert value == expected
        assert torch.equal(*(torch.autograd.grad(one, logits)[0] for one in (value, expected)))


@pytest.mark.parametrize("plain", LOSSES)
def test_ignored_voxels_are_not_there(
    plain: Callable[..., torch.Tensor], logits: torch.Tensor, label: torch.Tensor
) -> None:
    label[..., 4:] = -1
    value = partial_loss(plain, SETS)(logits, label)
    torch.testing.assert_close(value, plain(logits[..., :4], label[..., :4]))
    (gradient,) = torch.autograd.grad(value, logits)
    assert not gradient[..., 4:].any()
    assert gradient[..., :4].any(1).all()


def test_a_crop_of_ignored_voxels_is_left_out(logits: torch.Tensor, label: torch.Tensor) -> None:
    label[1] = -1
    loss = partial_loss(LOSSES[0], SETS)
    torch.testing.assert_close(loss(logits, label), LOSSES[0](logits[:1], label[:1]))
    label[0] = -1
    nothing = loss(logits, label)
    nothing.backward()  # other processes expect gradients
    assert nothing == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_each_crop_may_lack_another_structure(logits: torch.Tensor, label: torch.Tensor) -> None:
    background, cross_entropy = label == 0, DiceCELoss(softmax=True, to_onehot_y=True, lambda_dice=0)
    label[0][background[0]], label[1][background[1]] = -3, -2
    probabilities = logits.softmax(1)
    likelihood = probabilities.gather(1, label.clamp_min(0).long())
    for crop, organ in ((0, 2), (1, 1)):
        merged = probabilities[crop, [0, organ]].sum(0, keepdim=True)
        likelihood[crop] = torch.where(background[crop], merged, likelihood[crop])
    torch.testing.assert_close(partial_loss(cross_entropy, SETS)(logits, label), -likelihood.log().mean())


@pytest.mark.parametrize("plain", LOSSES[:2])
def test_the_background_may_show_what_is_not_annotated(plain: Callable[..., torch.Tensor]) -> None:
    certain = 20 * torch.eye(3)[:, [0, 1, 2]].reshape(1, 3, 3, 1, 1)
    label = torch.tensor([-3.0, 1.0, -3.0]).reshape(1, 1, 3, 1, 1)
    loss = partial_loss(plain, SETS)
    moved = certain.clone()
    moved[:, :, 2] = certain[:, :, 0]  # background instead of spleen
    torch.testing.assert_close(loss(certain, label), loss(moved, label))
    moved[:, :, 2] = certain[:, :, 1]  # liver, which is annotated
    assert loss(moved, label) > loss(certain, label) + 0.1


def test_merged_probabilities(logits: torch.Tensor) -> None:
    candidates = torch.zeros(logits.shape, dtype=torch.bool)
    candidates[:, 2, :3] = True
    merged, before = merge_unannotated(logits.half(), candidates).softmax(1), logits.half().float().softmax(1)
    torch.testing.assert_close(merged[:, 0, :3], before[:, [0, 2], :3].sum(1))
    assert not merged[:, 2, :3].any()
    torch.testing.assert_close(merged[:, :, 3:], before[:, :, 3:])


def test_deep_supervision(logits: torch.Tensor, label: torch.Tensor) -> None:
    label[..., 2:] = -1
    label[:, :, 0][label[:, :, 0] == 0] = -3
    low = torch.randn(2, 3, 3, 3, 3)
    plain = DeepSupervisionLoss(LOSSES[0], weights=[0.7, 0.3])
    single = PartialLabelLoss(LOSSES[0], SETS)
    expected = 0.7 * single(logits, label) + 0.3 * single(low, label[:, :, 1::2, 1::2, 1::2])
    torch.testing.assert_close(partial_loss(plain, SETS)([logits, low], label), expected)
    assert plain.loss is LOSSES[0]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 20.0]))
def test_merging_moves_probability_and_loses_none(seed: int, scale: float) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 3, 3, generator=random) * scale
    candidates = torch.rand(2, 4, 3, 3, generator=random) < 0.4
    before, after = logits.softmax(1), merge_unannotated(logits, candidates).softmax(1)
    moved = candidates.clone()
    moved[:, 0] = False
    torch.testing.assert_close(after.sum(1), torch.ones(2, 3, 3))
    torch.testing.assert_close(after[:, 0], before[:, 0] + (before * moved).sum(1))
    assert not (after[moved] > 1e-6).any()
    kept = ~moved
    kept[:, 0] = False
    torch.testing.assert_close(after[kept], before[kept])
