from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medcontext.report.planes import (
    display_window,
    label_planes,
    plane_geometry,
    ras_spacing,
    take_plane,
    to_grey,
    to_ras,
    volume_array,
)

SHAPE = (6, 8, 10)


def corner(x: int = -1, y: int = -1, z: int = -1) -> np.ndarray:
    """A RAS volume with one bright voxel, by default the most right, anterior and superior one."""
    volume = np.zeros(SHAPE)
    volume[x, y, z] = 1
    return volume


@pytest.mark.parametrize(
    ("plane", "index", "shape", "edges"),
    [
        ("axial", 9, (8, 6), ("R", "L", "A", "P")),
        ("coronal", 7, (10, 6), ("R", "L", "S", "I")),
        ("sagittal", 5, (10, 8), ("A", "P", "S", "I")),
    ],
)
def test_right_anterior_superior_is_top_left(plane: str, index: int, shape: tuple[int, int], edges: tuple[str]) -> None:
    shown = take_plane(corner(), plane, index)
    assert shown.shape == shape
    assert np.argwhere(shown).tolist() == [[0, 0]]
    assert plane_geometry(plane, (1.0, 2.0, 3.0))[1] == edges


def test_left_and_posterior_are_the_opposite_edges() -> None:
    assert np.argwhere(take_plane(corner(x=0), "axial", 9)).tolist() == [[0, 5]]
    assert np.argwhere(take_plane(corner(y=0), "axial", 9)).tolist() == [[7, 0]]
    assert np.argwhere(take_plane(corner(z=0), "coronal", 7)).tolist() == [[9, 0]]


@pytest.mark.parametrize(("plane", "pixel_mm"), [("axial", (2, 1)), ("coronal", (3, 1)), ("sagittal", (3, 2))])
def test_pixels_keep_the_spacing(plane: str, pixel_mm: tuple[int, int]) -> None:
    assert plane_geometry(plane, (1, 2, 3))[0] == pixel_mm


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SPL", "ASR"])
def test_any_orientation_turns_to_ras(orientation: str) -> None:
    ras = np.random.default_rng(0).random(SHAPE)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
    )
    spacing = np.array([1.0, 2.0, 3.0])
    stored = nib.orientations.apply_orientation(ras, turn)
    stored_spacing = [spacing["RLAPSI".index(end) // 2] for end in orientation]
    np.testing.assert_array_equal(to_ras(stored, orientation), ras)
    assert ras_spacing(stored_spacing, orientation) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("orientation", ["RA", "RRS", "RLS", "XYZ", ""])
def test_orientation_names_three_axes(orientation: str) -> None:
    with pytest.raises(ValueError, match="orientation must name three axes"):
        to_ras(corner(), orientation)


def test_planes_go_through_the_labels() -> None:
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[1, 2, 3] = 1
    axial, coronal, sagittal = label_planes(
        corner()[None], label[None], label, {"dot": 1}, spacing=(1, 1, 1), margin=None
    )
    assert np.argwhere(axial.label).tolist() == [[8 - 1 - 2, 6 - 1 - 1]]
    assert np.argwhere(coronal.label).tolist() == [[10 - 1 - 3, 6 - 1 - 1]]
    assert np.argwhere(sagittal.label).tolist() == [[10 - 1 - 3, 8 - 1 - 2]]
    assert (axial.name, coronal.name, sagittal.name) == ("axial", "coronal", "sagittal")


def test_large_label_does_not_outvote_two_small_ones() -> None:
    label = np.zeros((10, 10, 10), dtype=np.uint8)
    label[:8, :8, 2] = 1
    label[0, 0, 5], label[2, 2, 5] = 2, 3
    axial = label_planes(label, label, label, {"a": 1, "b": 2, "c": 3}, spacing=(1, 1, 1), margin=None)[0]
    assert set(np.unique(axial.label)) == {0, 2, 3}


def test_prediction_chooses_where_there_is_no_truth() -> None:
    prediction = np.zeros(SHAPE, dtype=np.uint8)
    prediction[1, 2, 3] = 1
    planes = label_planes(corner(), np.zeros(SHAPE), prediction, {"dot": 1}, spacing=(1, 1, 1))
    assert all(plane.prediction.any() and not plane.label.any() for plane in planes)


def test_nothing_labelled_shows_the_middle() -> None:
    nothing = np.zeros(SHAPE)
    axial = label_planes(corner(z=5), nothing, nothing, {"dot": 1}, spacing=(1, 1, 1))[0]
    assert axial.image.shape == (8, 6)
    assert axial.image[0, 0] == 255


def test_margin_is_in_mm() -> None:
    label = np.zeros((40, 40, 40), dtype=np.uint8)
    label[20, 20, 20] = 1
    axial, coronal, _ = label_planes(label, label, label, {"dot": 1}, spacing=(1, 2, 5), margin=10.0)
    assert axial.image.shape == (1 + 2 * 5, 1 + 2 * 10)
    assert coronal.image.shape == (1 + 2 * 2, 1 + 2 * 10)


def test_window_suits_the_labelled_tissue() -> None:
    image = np.full((10, 10, 10), -1000.0)
    image[3:7, 3:7, 3:7] = np.linspace(0, 100, 64).reshape(4, 4, 4)
    image[:2] = 1000.0
    low, high = display_window(image, (image > -1) & (image < 101))
    assert (low, high) == pytest.approx((5 - 135, 95 + 135))  # 5 to 95 without its tails, and 1.5 times that


def test_window_stays_within_the_image() -> None:
    image = np.linspace(0, 1, 1000).reshape(10, 10, 10)
    low, high = display_window(image, image >= 0)
    assert (low, high) == pytest.approx((0.005, 0.995))


def test_window_of_a_large_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third voxel along each axis tells as much."""
    monkeypatch.setattr("medcontext.report.planes.ENOUGH_VOXELS", 1000)
    image = np.random.default_rng(0).permutation(np.linspace(0, 1, 27000)).reshape(30, 30, 30)
    low, high = display_window(image, image > 2)
    assert (low, high) == pytest.approx((0.005, 0.995), abs=0.01)
    assert (low, high) != pytest.approx((0.005, 0.995), abs=1e-6)


def test_ids_that_are_not_named_show_nothing() -> None:
    label = np.full(SHAPE, -1.0)
    label[:, :, :5] = 7
    label[1, 2, 8] = 2
    axial = label_planes(label, label, label, {"dot": 2}, spacing=(1, 1, 1), margin=None)[0]
    assert (axial.label == 2).sum() == 1


@pytest.mark.parametrize("image", [np.zeros((2, 2, 2)), np.full((2, 2, 2), np.nan)])
def test_window_of_an_empty_image(image: np.ndarray) -> None:
    assert display_window(image, np.ones((2, 2, 2), bool)) == (0.0, 1.0)


def test_grey_values() -> None:
    values = np.array([[-5.0, 0.0, 5.0, 10.0, 20.0, np.nan]])
    assert to_grey(values, 0, 10).tolist() == [[0, 0, 128, 255, 255, 0]]


def test_planes_are_small_copies() -> None:
    image = torch.rand(2, *SHAPE)
    plane = label_planes(image, corner(), corner(), {"dot": 1}, spacing=(1, 1, 1), channel=1)[0]
    assert (plane.image.dtype, plane.label.dtype) == (np.uint8, np.uint8)
    assert plane.image.base is None or plane.image.base.size == plane.image.size


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ([SHAPE, SHAPE, (6, 8, 9)], {}, "image, label and prediction must have the same spatial shape"),
        ([(6, 8), SHAPE, SHAPE], {}, r"image must have the shape \(C, X, Y, Z\) or \(X, Y, Z\), got \(6, 8\)"),
        ([(2, *SHAPE), SHAPE, SHAPE], {"channel": 2}, "image must have channel 2 on axis 0, got 2 channels"),
        ([SHAPE, SHAPE, SHAPE], {"window": (1, 1)}, "window must be .* low below high"),
    ],
)
def test_refuses_unusable_arguments(shapes: list[tuple[int, ...]], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_planes(*(np.zeros(shape) for shape in shapes), {"dot": 1}, spacing=(1, 1, 1), **options)


def test_volume_array_takes_tensors() -> None:
    assert volume_array(torch.ones(1, *SHAPE)).shape == SHAPE
