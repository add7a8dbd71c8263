from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from medcontext.metrics import case_metrics

SPACING = (1.0, 2.0, 3.0)


def cube(start: tuple[int, int, int], size: int = 4, shape: tuple[int, int, int] = (20, 20, 20)) -> torch.Tensor:
    volume = torch.zeros(1, *shape, dtype=torch.uint8)
    x, y, z = start
    volume[0, x : x + size, y : y + size, z : z + size] = 1
    return volume


def row(prediction: torch.Tensor, label: torch.Tensor, **options: Any) -> dict[str, str | float | bool]:
    (only,) = case_metrics(prediction, label, {"organ": 1}, SPACING, **options)
    return only


def test_equal_masks_score_one_at_no_distance() -> None:
    result = row(cube((5, 5, 5)), cube((5, 5, 5)))
    assert result == {
        "label": "organ",
        "dice": 1.0,
        "surface_dice": 1.0,
        "hd95_mm": 0.0,
        "assd_mm": 0.0,
        "label_volume_ml": pytest.approx(64 * 6 / 1000),
        "prediction_volume_ml": pytest.approx(64 * 6 / 1000),
        "missed": False,
        "spurious": False,
    }


# A 4-voxel cube has 64 voxels, 56 of them on its surface. Shifted by one voxel, 48 overlap: dice = 2 * 48 / 128. The
# surface's far face (16 of 56 voxels) lies one step outside the other cube, so that the 95th percentile is the step.
@pytest.mark.parametrize(("axis", "step_mm"), [(0, 1.0), (1, 2.0), (2, 3.0)])
def test_shift_by_one_voxel_is_that_axis_spacing(axis: int, step_mm: float) -> None:
    start = [5, 5, 5]
    start[axis] += 1
    result = row(cube((start[0], start[1], start[2])), cube((5, 5, 5)))
    assert result["dice"] == pytest.approx(0.75)
    assert result["hd95_mm"] == pytest.approx(step_mm)


def test_single_voxels_are_as_far_apart_as_they_are_in_mm() -> None:
    result = row(cube((5, 5, 5), size=1), cube((8, 7, 6), size=1))
    expected = math.sqrt(3**2 + 4**2 + 3**2)  # 3 x 1 mm, 2 x 2 mm, 1 x 3 mm
    assert result["dice"] == 0.0
    assert result["hd95_mm"] == pytest.approx(expected)
    assert result["assd_mm"] == pytest.approx(expected)
    assert not result["missed"]
    assert not result["spurious"]


def test_average_distance_takes_both_directions() -> None:
    prediction = cube((5, 5, 5), size=1)
    prediction[0, 5, 5, 9] = 1  # 4 voxels of 3 mm away from the truth
    result = row(prediction, cube((5, 5, 5), size=1))
    assert result["assd_mm"] == pytest.approx((0 + 12 + 0) / 3)
    assert result["dice"] == pytest.approx(2 / 3)


# The surface of a voxel passes its eight corners, an eighth of its area at each; neighbours share four corners, and the
# other four of each are one voxel away.
@pytest.mark.parametrize(
    ("axis", "tolerance_mm", "expected"),
    [(0, 0, 0.5), (0, 0.9, 0.5), (0, 1, 1.0), (1, 1.9, 0.5), (1, 2, 1.0), (2, 2.9, 0.5), (2, 3, 1.0)],
)
def test_surface_dice_of_neighbours(axis: int, tolerance_mm: float, expected: float) -> None:
    start = [5, 5, 5]
    start[axis] += 1
    pair = cube((start[0], start[1], start[2]), size=1), cube((5, 5, 5), size=1)
    assert row(*pair, surface_tolerance_mm=tolerance_mm)["surface_dice"] == pytest.approx(expected)


def test_distance_equal_to_the_tolerance_counts_in_spite_of_rounding() -> None:
    size = float(torch.tensor(0.4))  # as a header holds it: 0.4000000059604645
    pair = cube((10, 5, 5), size=1), cube((5, 5, 5), size=1)
    (result,) = case_metrics(*pair, {"organ": 1}, (size, 1.0, 1.0), surface_tolerance_mm=2.0)
    assert result["surface_dice"] == 1.0


def test_tolerance_by_label() -> None:
    label = cube((5, 5, 5), size=1) + 2 * cube((10, 5, 5), size=1)
    tolerances = {"a": 0.5, "b": 1.0, "of another dataset": 9.0}
    rows = case_metrics(label.roll(1, 1), label, {"a": 1, "b": 2}, SPACING, surface_tolerance_mm=tolerances)
    assert [r["surface_dice"] for r in rows] == [pytest.approx(0.5), pytest.approx(1.0)]


def test_masks_at_the_border_of_the_volume() -> None:
    result = row(cube((16, 0, 16)), cube((16, 0, 16)))
    assert (result["dice"], result["hd95_mm"]) == (1.0, 0.0)


EMPTY = torch.zeros(1, 20, 20, 20)


@pytest.mark.parametrize(
    ("prediction", "label", "dice", "missed", "spurious"),
    [
        (EMPTY, cube((5, 5, 5)), 0.0, True, False),
        (cube((5, 5, 5)), EMPTY, 0.0, False, True),
        (EMPTY, EMPTY, math.nan, False, False),
    ],
    ids=["missed", "spurious", "absent"],
)
def test_empty_masks(prediction: torch.Tensor, label: torch.Tensor, dice: float, missed: bool, spurious: bool) -> None:
    result = row(prediction, label)
    assert result["dice"] == pytest.approx(dice, nan_ok=True)
    assert result["surface_dice"] == pytest.approx(dice, nan_ok=True)
    assert math.isnan(float(result["hd95_mm"]))
    assert math.isnan(float(result["assd_mm"]))
    assert (result["missed"], result["spurious"]) == (missed, spurious)


@pytest.mark.parametrize(
    ("protocol", "prediction", "label", "dice"),
    [
        ("paper", EMPTY, cube((5, 5, 5)), 0.0),
        ("paper", cube((5, 5, 5)), EMPTY, 0.0),
        ("paper", EMPTY, EMPTY, 1.0),
        ("paper_unetr", EMPTY, cube((5, 5, 5)), 0.0),
        ("paper_unetr", cube((5, 5, 5)), EMPTY, 0.0),
        ("paper_unetr", EMPTY, EMPTY, 0.0),
    ],
)
def test_published_rules_for_empty_masks(
    protocol: str, prediction: torch.Tensor, label: torch.Tensor, dice: float
) -> None:
    result = row(prediction, label, protocol=protocol)
    assert (result["paper_dice"], result["paper_hd95_voxels"]) == (dice, 0.0)


@pytest.mark.parametrize("protocol", ["paper", "paper_unetr"])
def test_published_columns_come_last_and_are_in_voxels(protocol: str) -> None:
    pair = cube((5, 5, 5), size=1), cube((5, 5, 7), size=1)
    result = row(*pair, protocol=protocol)
    assert list(result)[-2:] == ["paper_dice", "paper_hd95_voxels"]
    assert (result["hd95_mm"], result["paper_hd95_voxels"]) == (pytest.approx(6.0), pytest.approx(2.0))


def test_published_percentile_is_of_both_directions_together() -> None:
    prediction = cube((5, 5, 5), size=1)
    prediction[0, 5, 5, 9] = 1
    result = row(prediction, cube((5, 5, 5), size=1), protocol="paper")
    assert result["hd95_mm"] == pytest.approx(0.95 * 12)  # of 0 and 12 mm, the other direction being 0
    assert result["paper_hd95_voxels"] == pytest.approx(0.9 * 4)  # of 0, 0 and 4 voxels


def test_rows_follow_labels_and_ignore_other_ids() -> None:
    label = cube((2, 2, 2)) + 2 * cube((10, 10, 10)) + 9 * cube((15, 2, 2))
    rows = case_metrics(label, label, {"b": 2, "a": 1}, SPACING)
    assert [(r["label"], r["dice"]) for r in rows] == [("b", 1.0), ("a", 1.0)]


def test_region_unites_labels() -> None:
    label = cube((2, 2, 2)) + 2 * cube((6, 2, 2))
    (result,) = case_metrics(label, label, {"both": [1, 2]}, SPACING)
    assert result["label_volume_ml"] == pytest.approx(2 * 64 * 6 / 1000)


@pytest.mark.parametrize(
    "convert",
    [
        lambda volume: volume[0],
        lambda volume: volume.float(),
        lambda volume: volume.long(),
        lambda volume: MetaTensor(volume, affine=torch.eye(4)),
    ],
    ids=["no channel", "float", "long", "meta"],
)
def test_forms_of_label_maps(convert) -> None:  # type: ignore[no-untyped-def]
    assert case_metrics(convert(cube((5, 5, 5))), cube((5, 5, 5)), {"organ": 1}, SPACING)[0]["dice"] == 1.0


def test_no_warnings(recwarn: pytest.WarningsRecorder) -> None:
    row(cube((5, 5, 5)), cube((6, 5, 5)))
    row(EMPTY, cube((6, 5, 5)))
    assert not [str(w.message) for w in recwarn]


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"same shape, got \(20, 20, 20\) and \(20, 20, 19\).*Invertd"):
        row(cube((5, 5, 5)), cube((5, 5, 5), shape=(20, 20, 19)))


@pytest.mark.parametrize("shape", [(20, 20), (2, 20, 20, 20), (1, 1, 20, 20, 20)])
def test_shape_must_be_a_volume(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be a label map of shape .* argmax"):
        row(torch.zeros(shape), torch.zeros(shape))


def test_probabilities_are_no_label_map() -> None:
    with pytest.raises(ValueError, match="prediction must hold whole label ids"):
        row(torch.rand(1, 20, 20, 20), cube((5, 5, 5)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0)])
def test_spacing_must_be_three_positive_numbers(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing must be three positive numbers in mm"):
        case_metrics(cube((5, 5, 5)), cube((5, 5, 5)), {"organ": 1}, spacing)


@pytest.mark.parametrize("tolerance", [-1, math.nan, math.inf, "2", True, None])
def test_tolerance_must_be_a_number_of_mm(tolerance: Any) -> None:
    with pytest.raises(ValueError, match="surface tolerance of 'organ' must be a number of mm, 0 or more, got"):
        row(cube((5, 5, 5)), cube((5, 5, 5)), surface_tolerance_mm=tolerance)


def test_tolerances_must_name_every_label() -> None:
    with pytest.raises(ValueError, match=r"must name every label, but lacks \['organ'\]. Give one for all"):
        row(cube((5, 5, 5)), cube((5, 5, 5)), surface_tolerance_mm={"spleen": 1.0})


@pytest.mark.parametrize("protocol", ["papers", "", None, ["paper"]])
def test_protocol_must_be_known(protocol: Any) -> None:
    with pytest.raises(ValueError, match="protocol must be one of 'default', 'paper', 'paper_unetr', got"):
        row(cube((5, 5, 5)), cube((5, 5, 5)), protocol=protocol)


def test_volumes_of_a_sheared_grid_are_those_of_its_determinant() -> None:
    result = row(cube((5, 5, 5)), cube((5, 5, 5)), voxel_ml=0.004)
    assert [result[f"{of}_volume_ml"] for of in ("label", "prediction")] == pytest.approx([0.256, 0.256])


def test_ignored_voxels_count_on_neither_side() -> None:
    label = cube((5, 5, 5)).int()
    label[:, 9:] = -1
    prediction = cube((5, 5, 5), size=8)  # too much on all sides, in part where nobody looked
    expected = row(prediction[:, :9], label[:, :9])
    assert row(prediction, label) == expected
    assert expected["dice"] < 1


def test_what_is_not_annotated_has_no_value() -> None:
    label = cube((5, 5, 5)).int()
    label[label == 0] = -2
    labels = {"organ": 1, "other": 2, "both": [1, 2]}
    organ, other, both = case_metrics(label.clamp_min(0), label, labels, SPACING, protocol="paper", unannotated=[2])
    assert organ["dice"] == 1
    assert list(other) == list(both) == list(organ)
    for one in (other, both):
        assert (one.pop("missed"), one.pop("spurious"), one.pop("label") in labels) == (False, False, True)
        assert all(math.isnan(value) for value in one.values() if not isinstance(value, str))
