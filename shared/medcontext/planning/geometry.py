"""Voxel size and orientation of a plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medcontext.planning.fingerprint import Fingerprint, Triple

__all__ = ["along", "is_thick", "median_shape", "target_spacing", "thickness"]

THICK = 3.0
"""Ratio of voxel edges from which slices count as thick, as in nnU-Net."""


def along(values: Sequence[float], orientation: str) -> Triple:
    """Return values along the axes R, A and S in the order of another orientation.

    Example:
        >>> along((1.0, 2.0, 3.0), "SPL")
        (3.0, 2.0, 1.0)
    """
    first, second, third = (
        values[next(i for i, ends in enumerate(("RL", "AP", "SI")) if end in ends)] for end in orientation.upper()
    )
    return first, second, third


def thickness(spacing: Sequence[float]) -> float:
    """Return the longest edge of a voxel as a multiple of the second longest.

    Example:
        >>> thickness((1.5, 1.5, 9.0))
        6.0
    """
    *_, second, longest = sorted(spacing)
    return longest / second


def is_thick(spacing: Sequence[float]) -> bool:
    """Return whether slices count as thick."""
    return thickness(spacing) > THICK


def target_spacing(fingerprint: Fingerprint) -> tuple[Triple, str]:
    """Return the voxel size to resample to along R, A and S, in mm, and the reason for it.

    It is the median along each axis. Where slices are thick, and few beside the voxels within them, the axis across
    them takes the 10th percentile, but never less than the edges within slices. Source: Isensee et al., nnU-Net, Nature
    Methods 2021.
    """
    spacings = np.array([case.spacing for case in fingerprint.cases])
    shapes = np.median([case.shape for case in fingerprint.cases], axis=0)
    target = np.median(spacings, axis=0)
    axis = int(np.argmax(target))
    others = [index for index in range(3) if index != axis]
    within = float(target[others].max())
    why = f"median of {len(spacings)} cases"
    if target[axis] > THICK * within and shapes[axis] * THICK < shapes[others].min():
        target[axis] = max(np.percentile(spacings[:, axis], 10), within)
        why += (
            f"; across the thick slices the 10th percentile, as in nnU-Net (median {np.median(spacings[:, axis]):.3g})"
        )
    first, second, third = (float(f"{size:.4g}") for size in target)
    return (first, second, third), why


def median_shape(fingerprint: Fingerprint, spacing: Sequence[float]) -> Triple:
    """Return the median size of the scans along R, A and S in voxels of a spacing in mm, rounded up."""
    sizes = [np.ceil(np.multiply(case.shape, case.spacing) / spacing - 1e-3) for case in fingerprint.cases]
    first, second, third = (float(np.ceil(size)) for size in np.median(sizes, axis=0))
    return first, second, third
