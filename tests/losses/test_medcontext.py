from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss

from medcontext.losses import ConsistencyLoss, MedContextLoss, full_resolution


def segmentation(pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """A loss that can be worked out by hand: the mean of prediction minus label."""
    return (full_resolution(pred) - label).abs().mean()


def volume(value: float) -> torch.Tensor:
    return torch.full((1, 1, 2, 2, 2), float(value))


def test_terms_by_name_and_their_sum() -> None:
    loss = MedContextLoss(segmentation, ConsistencyLoss("relative"), context_weight=2, consistency_weight=0.25)
    terms = loss(volume(3), volume(1), volume(4), volume(2), torch.ones(1, 1, 2, 2, 2))
    assert {name: term.item() for name, term in terms.items()} == {
        "loss": 2 + 2 * 3 + 0.25 * 1,
        "loss_supervised": 2,
        "loss_context": 3,
        "loss_consistency": 1,
    }


def test_without_a_teacher_there_is_no_consistency() -> None:
    terms = MedContextLoss(segmentation)(volume(1), volume(1), volume(2))
    assert "loss_consistency" not in terms
    assert terms["loss"].item() == 1


def test_deep_supervision_compares_full_resolution_only() -> None:
    pyramid = [volume(2), torch.full((1, 1, 1, 1, 1), 100.0)]
    loss = MedContextLoss(segmentation, ConsistencyLoss("relative"))
    assert loss(pyramid, volume(2), pyramid, pyramid)["loss_consistency"].item() == 0


def test_real_segmentation_loss_gives_finite_terms() -> None:
    loss = MedContextLoss(DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, smooth_nr=0, smooth_dr=1e-6))
    logits, label = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 1, 4, 4, 4))
    assert all(term.isfinite() for term in loss(logits, label, logits, logits).values())


@pytest.mark.parametrize("name", ["context_weight", "consistency_weight", "unlabeled_weight"])
@pytest.mark.parametrize("weight", [-0.1, float("nan")])
def test_weights_below_zero(name: str, weight: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 0 or more"):
        MedContextLoss(segmentation, **{name: weight})


def crops(*values: float) -> torch.Tensor:
    """A batch of crops, each of one value."""
    return torch.cat([volume(value) for value in values])


def test_whole_and_masked_crops_weigh_as_much_as_their_share_of_the_batch() -> None:
    loss = MedContextLoss(segmentation, ConsistencyLoss("relative"), context_weight=2, consistency_weight=0.25)
    pred, label, mask = crops(2, 3, 5, 9), crops(1, 1, 1, 1), crops(0, 1, 0, 0)
    # of the teacher only the masked crop is asked: ||2 - 3||² / ||2||² = 1 / 4
    terms = loss.mixed(pred, label, [False, True, False, False], crops(2), mask, strength=0.5)
    assert {name: term.item() for name, term in terms.items()} == {
        "loss": 3 / 4 * (1 + 4 + 8) / 3 + 1 / 4 * (2 * 2 + 0.5 * 0.25 * 0.25),
        "loss_supervised": pytest.approx((1 + 4 + 8) / 3),
        "loss_context": 2,
        "loss_consistency": 0.25,
    }


@pytest.mark.parametrize(
    ("masked", "names"),
    [
        ([True, True, True], {"loss", "loss_context"}),
        ([False, False, False], {"loss", "loss_supervised"}),
        ([False, True, False], {"loss", "loss_supervised", "loss_context"}),
    ],
)
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_without_teacher_and_with_weight_one_a_mixed_batch_is_a_plain_one(
    masked: list[bool], names: set[str], deep_supervision: bool
) -> None:
    torch.manual_seed(0)
    loss = MedContextLoss(mean_loss)
    full, low = torch.randn(3, 2, 4, 4, 4), torch.randn(3, 2, 2, 2, 2)
    pred = [full, low] if deep_supervision else full
    label = torch.randint(0, 2, (3, 1, 4, 4, 4))
    terms = loss.mixed(pred, label, masked)
    assert terms.keys() == names
    torch.testing.assert_close(terms["loss"], mean_loss(pred, label))


def mean_loss(pred: torch.Tensor | list[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
    """Cross entropy, of the coarser output against the label's corners with a weight of its own."""
    outputs = [pred] if isinstance(pred, torch.Tensor) else pred
    labels = [label[:, 0], label[:, 0, ::2, ::2, ::2]]
    return sum(
        weight * torch.nn.functional.cross_entropy(output, truth)
        for weight, output, truth in zip((1, 0.5), outputs, labels, strict=False)
    )


def test_a_mixed_batch_of_masked_crops_alone() -> None:
    loss = MedContextLoss(segmentation, ConsistencyLoss("relative"), context_weight=0.5, consistency_weight=4)
    terms = loss.mixed(crops(3, 5), crops(1, 1), [True, True], crops(2, 4), crops(1, 1))
    # mean of ||2 - 3||² / ||2||² and ||4 - 5||² / ||4||²
    assert terms["loss_consistency"].item() == pytest.approx((1 / 4 + 1 / 16) / 2)
    assert terms["loss"].item() == pytest.approx(0.5 * 3 + 4 * (1 / 4 + 1 / 16) / 2)


def test_unlabelled_crops_are_weighted_and_scheduled() -> None:
    loss = MedContextLoss(segmentation, unlabeled_weight=0.5)
    teacher, student = torch.randn(2, 3, 4, 4, 4), [torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 2, 2, 2)]
    term, share = loss.pseudo_labels(teacher, student[0])
    terms = loss.unlabeled(teacher, student, strength=0.25)
    assert terms.keys() == {"loss", "loss_unlabeled", "confident_fraction"}
    torch.testing.assert_close(terms["loss"], 0.125 * term)
    torch.testing.assert_close(terms["loss_unlabeled"], term)
    assert terms["confident_fraction"] == share == 1
