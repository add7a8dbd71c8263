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
    assert terms["loss_consistency"].item() == 0
    assert terms["loss"].item() == 1


def test_deep_supervision_compares_full_resolution_only() -> None:
    pyramid = [volume(2), torch.full((1, 1, 1, 1, 1), 100.0)]
    loss = MedContextLoss(segmentation, ConsistencyLoss("relative"))
    assert loss(pyramid, volume(2), pyramid, pyramid)["loss_consistency"].item() == 0


def test_real_segmentation_loss_gives_finite_terms() -> None:
    loss = MedContextLoss(DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, smooth_nr=0, smooth_dr=1e-6))
    logits, label = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 1, 4, 4, 4))
    assert all(term.isfinite() for term in loss(logits, label, logits, logits).values())


@pytest.mark.parametrize("name", ["context_weight", "consistency_weight"])
@pytest.mark.parametrize("weight", [-0.1, float("nan")])
def test_weights_below_zero(name: str, weight: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 0 or more"):
        MedContextLoss(segmentation, **{name: weight})
