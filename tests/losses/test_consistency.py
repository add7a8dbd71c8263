from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medcontext.losses import ConsistencyLoss
from medcontext.losses.consistency import ConsistencyForm, consistency_loss

TEACHER = torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]]).reshape(2, 1, 2, 1, 1)
STUDENT = torch.tensor([[[3.0, 1.0]], [[2.0, 4.0]]]).reshape(2, 1, 2, 1, 1)
FIRST_VOXEL = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1, 1).expand(2, 1, 2, 1, 1)


@pytest.mark.parametrize(
    ("form", "region", "expected"),
    [
        # squared differences are 0, 1, 4, 0; the teacher's norm over the whole batch is 5
        ("official", "all", (5 / 4) / 5),
        # only 0 and 4 count, their mean is 2; the norm of the first voxels is 3
        ("official", "context", 2 / 3),
        ("relative", "all", (1 / 9 + 4 / 16) / 2),
        # the teacher is 0 in the second sample's first voxel: a difference there is divided by the tiniest number
        ("relative", "context", math.inf),
    ],
)
def test_hand_computed(form: str, region: str, expected: float) -> None:
    value = ConsistencyLoss(form, region)(TEACHER, STUDENT, FIRST_VOXEL)
    if math.isinf(expected):
        assert value > 1e30
    else:
        assert value.item() == pytest.approx(expected)


def test_probability_forms_by_hand() -> None:
    teacher = torch.tensor([0.0, math.log(3.0)]).reshape(1, 2, 1, 1, 1)  # probabilities 1/4 and 3/4
    student = torch.zeros(1, 2, 1, 1, 1)  # 1/2 and 1/2
    assert ConsistencyLoss("probability_mse")(teacher, student).item() == pytest.approx(1 / 16)
    kl = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert ConsistencyLoss("probability_kl")(teacher, student).item() == pytest.approx(kl)


@pytest.mark.parametrize("form", ["official", "relative", "probability_mse", "probability_kl"])
def test_equal_predictions_and_empty_regions_cost_nothing(form: str) -> None:
    logits = torch.randn(2, 3, 4, 4, 4)
    assert ConsistencyLoss(form)(logits, logits.clone()).item() == pytest.approx(0, abs=1e-7)
    nothing = torch.zeros(2, 1, 4, 4, 4)
    assert ConsistencyLoss(form, "context")(logits, torch.randn(2, 3, 4, 4, 4), nothing).item() == 0


@pytest.mark.parametrize("form", ["official", "relative", "probability_mse", "probability_kl"])
def test_gradient_reaches_the_student_alone(form: str) -> None:
    teacher = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    student = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    ConsistencyLoss(form)(teacher, student).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def test_relative_form_is_independent_of_size_and_scale() -> None:
    teacher, student = torch.randn(1, 2, 4, 4, 4), torch.randn(1, 2, 4, 4, 4)
    loss = ConsistencyLoss("relative")
    small = loss(teacher, student)
    torch.testing.assert_close(loss(7 * teacher, 7 * student), small)
    torch.testing.assert_close(loss(teacher.repeat(1, 1, 2, 2, 2), student.repeat(1, 1, 2, 2, 2)), small)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "cosine"}, "form must be one of .*official.*got 'cosine'"),
        ({"region": "organs"}, "region must be one of .*context.*got 'organs'"),
    ],
)
def test_unknown_choices(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConsistencyLoss(**arguments)


def test_region_needs_a_mask() -> None:
    with pytest.raises(ValueError, match="needs a context_mask"):
        ConsistencyLoss(region="context")(TEACHER, STUDENT)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-3, 1.0, 50.0, 1e4]),
    form=st.sampled_from(list(ConsistencyForm)),
)
def test_a_finite_distance_of_what_is_marked(seed: int, scale: float, form: ConsistencyForm) -> None:
    logits = torch.randn(2, 2, 3, 2, 3, 2, generator=torch.Generator().manual_seed(seed))
    teacher, student = logits * scale
    student.requires_grad_()
    mask = (logits[0, :, :1] > 0).float()
    loss = consistency_loss(teacher, student, form=form, context_mask=mask)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss >= -1e-6
    assert torch.isfinite(student.grad).all()
    assert not student.grad[(mask == 0).expand_as(student)].any()
    assert consistency_loss(teacher, teacher, form=form).abs() < 1e-6
    if form is ConsistencyForm.RELATIVE:
        torch.testing.assert_close(loss, consistency_loss(*logits, form=form, context_mask=mask), rtol=1e-3, atol=1e-5)
