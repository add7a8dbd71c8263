from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dicom_scans import OBLIQUE
from medcontext.scans import corner_distance, grid_problem, shift_tolerance, voxel_ml


def diagonal(*sizes: float, **entries: float) -> np.ndarray:
    affine = np.diag([*sizes, 1.0])
    for place, value in entries.items():
        affine[int(place[1]), int(place[2])] = value
    return affine


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        (diagonal(-2, 2, 5), 0.02),
        (diagonal(2, 2, 5, e02=4.0), 0.02),  # a shear moves voxels and leaves their volume, unlike their edges' product
        (OBLIQUE, 0.0072),
    ],
)
def test_the_volume_of_a_voxel(affine: np.ndarray, expected: float) -> None:
    assert voxel_ml(affine) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (diagonal(3, 3, 3), 0.0),
        (diagonal(3, 3, 3, e03=0.25), 0.25),
        (diagonal(3, 3, 3.1), 0.4),  # four voxels farther
        (diagonal(-3, 3, 3), 12.0),  # the far corners of three voxels swap sides: from 6 to -6
    ],
)
def test_how_far_apart_two_grids_place_a_corner(other: np.ndarray, expected: float) -> None:
    assert corner_distance((3, 4, 5), diagonal(3, 3, 3), other) == pytest.approx(expected)


@pytest.mark.parametrize(("size", "expected"), [(3.0, 0.1), (0.2, 0.1), (0.02, 0.01)])
def test_minute_voxels_have_less_tolerance(size: float, expected: float) -> None:
    assert shift_tolerance(diagonal(3, 3, size)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((9, 9, 9), diagonal(3, 3, 3)),
        ((11, 9, 7), OBLIQUE),
        ((1, 9, 9, 4), diagonal(-1, 2, 5)),
        # the last of 9 slices is off by 8 × 0.15 = 1.2 mm, less than half a voxel
        ((9, 9, 9), diagonal(3, 3, 3, e02=0.15)),
    ],
)
def test_grids_that_can_be_used(shape: tuple[int, ...], affine: np.ndarray) -> None:
    assert grid_problem(shape, affine) is None


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((9, 9), diagonal(3, 3, 3), "has shape (9, 9), which is not that of a volume; give three axes"),
        ((9, 0, 9), diagonal(3, 3, 3), "has no voxels, its shape being (9, 0, 9); get it again"),
        ((9, 9, 9), diagonal(3, np.nan, 3), "has an affine that is not finite; repair the header"),
        ((9, 9, 9), diagonal(3, 0, 3), "has a singular affine"),
        ((9, 9, 9), diagonal(3, 3, 0, e02=3.0), "has a singular affine"),
        ((9, -5, 9), diagonal(3, 3, 3), "has no voxels, its shape being (9, -5, 9)"),
        ((24, 24, 24), diagonal(60, 60, 60), "has voxels of 60 × 60 × 60 mm, as no scan has; correct the header"),
        ((24, 24, 24), diagonal(3, 3, 1e-6), "has voxels of 3 × 3 × 1e-06 mm, as no scan has"),
        ((400, 24, 24), diagonal(8, 8, 8), "is 3200 × 192 × 192 mm large, as no scan is"),
        ((9, 9, 9), diagonal(3, 3, 3, e03=1e9), "lies at 1e+09 × 0 × 0 mm, as no scan does"),
        # 8 slices of 0.9 mm to the side, 7.2 mm, of which the oblique distance of 3.132 mm takes 24 / 25.06
        (
            (9, 9, 9),
            diagonal(3, 3, 3, e02=0.9),
            "has a sheared grid, as by a tilted gantry (slices are shifted against",
        ),
        ((9, 9, 9), OBLIQUE @ diagonal(1, 1, 1, e12=0.9), "resample it first, image and label alike"),
    ],
)
def test_grids_that_cannot(shape: tuple[int, ...], affine: Any, message: str) -> None:
    assert message in str(grid_problem(shape, affine))


def test_the_shift_of_a_tilted_gantry_is_measured() -> None:
    assert "by 6.9 mm" in str(grid_problem((9, 9, 9), diagonal(3, 3, 3, e02=0.9)))
