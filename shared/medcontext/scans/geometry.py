"""Where a grid of voxels lies, and whether a network can be given it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "SHIFT_TOLERANCE_MM",
    "corner_distance",
    "grid_problem",
    "lengths_text",
    "shift_tolerance",
    "voxel_ml",
    "voxel_sizes",
]

Array: TypeAlias = npt.NDArray[np.float64]

LARGEST_VOXEL_MM, SMALLEST_VOXEL_MM = 30.0, 1e-4
LARGEST_EXTENT_MM = 3000.0
FARTHEST_MM = 1e5
"""Bounds of what any scan of a patient, an animal or a specimen has, beyond which a header is wrong."""

SHIFT_TOLERANCE_MM = 0.1
"""Distance up to which the corners of two grids are in one place, as headers hold single precision."""


def voxel_sizes(affine: Array) -> Array:
    """Return the lengths (3,) of a voxel's edges in mm."""
    sizes: Array = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
    return sizes


def voxel_ml(affine: npt.ArrayLike) -> float:
    """Return the volume of a voxel in millilitres, by the determinant of the affine, which shears do not mislead.

    Args:
        affine: affine (4, 4) in mm.

    Example:
        >>> voxel_ml([[-2, 0, 0.9, 0], [0, 2, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
        0.02
    """
    return float(abs(np.linalg.det(np.asarray(affine, dtype=float)[:3, :3]))) / 1000


def corner_distance(shape: Sequence[int], affine: Array, other: Array) -> float:
    """Return how far apart in mm two affines place a corner of a grid, at the most.

    Args:
        shape: number of voxels (3,) along each axis.
        affine: affine (4, 4) in mm.
        other: another one.
    """
    corners = np.array([[*corner, 1] for corner in product(*((0, size - 1) for size in shape[:3]))], dtype=float)
    return float(np.linalg.norm(((affine - other) @ corners.T)[:3], axis=0).max())


def shift_tolerance(affine: Array) -> float:
    """Return the distance in mm up to which grids are in one place: 0.1 mm, half a voxel where voxels are minute."""
    return float(min(SHIFT_TOLERANCE_MM, voxel_sizes(affine).min() / 2))


def grid_problem(shape: Sequence[int], affine: Array) -> str | None:
    """Return what prevents the use of a grid as a clause with its remedy, ``None`` if nothing does.

    Args:
        shape: number of voxels along each axis.
        affine: affine (4, 4) in mm.
    """
    if len(shape) < 3:
        return f"has shape {tuple(shape)}, which is not that of a volume; give three axes"
    if min(shape) < 1:
        return f"has no voxels, its shape being {tuple(shape)}; get it again"
    if not np.isfinite(affine).all():
        return "has an affine that is not finite; repair the header"
    sizes = voxel_sizes(affine)
    if sizes.min() == 0 or abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-6:
        return "has a singular affine, by which its voxels have no volume; repair the header"
    if not SMALLEST_VOXEL_MM <= sizes.min() <= sizes.max() <= LARGEST_VOXEL_MM:
        return f"has voxels of {lengths_text(sizes)} mm, as no scan has; correct the header"
    extents = sizes * shape[:3]
    if extents.max() > LARGEST_EXTENT_MM:
        return f"is {lengths_text(extents)} mm large, as no scan is; correct the header"
    if np.abs(affine[:3, 3]).max() > FARTHEST_MM:
        return f"lies at {lengths_text(affine[:3, 3])} mm, as no scan does; correct the header"
    shift = _shear(shape, affine)
    if shift > sizes.min() / 2:
        return (
            f"has a sheared grid, as by a tilted gantry (slices are shifted against each other by {shift:.3g} mm); "
            "resample it first, image and label alike"
        )
    return None


def lengths_text(values: Sequence[float] | Array) -> str:
    """Return numbers as text, such as ``1.5 × 1.5 × 2``."""
    return " × ".join(f"{value:.4g}" for value in values)


def _shear(shape: Sequence[int], affine: Array) -> float:
    """Return how far in mm the last slices of a grid lie from where they would with perpendicular axes."""
    sizes = voxel_sizes(affine)
    directions = affine[:3, :3] / sizes
    extents = (np.asarray(shape[:3]) - 1) * sizes
    cosines = np.abs(directions.T @ directions) - np.eye(3)
    return float((cosines * np.minimum.outer(extents, extents)).max())
