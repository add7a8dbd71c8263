"""Measures of label maps by which a case that is unlike the others is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

__all__ = ["label_shift", "measure_labels"]

REACH = 4  # voxels by which a label map is moved at most
SAMPLED_VOXELS = 5000


def measure_labels(
    image: npt.NDArray[Any], label: npt.NDArray[Any], affine: npt.NDArray[Any], labels: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Measure each structure of a case.

    Args:
        image: intensities (X, Y, Z).
        label: label ids of the same shape.
        affine: matrix (4, 4) from voxels to mm, in RAS.
        labels: names and ids of the structures.

    Returns:
        For each structure ``label``, its name; ``volume_ml``; ``x_mm``, ``y_mm`` and ``z_mm``, its centre of mass from
        that of all structures together, towards the patient's right, anterior and superior; ``pieces``, the number of
        connected parts; ``outside_share``, the share of its voxels outside the largest part; and ``intensity``, its
        mean, from the image's mean and in units of its standard deviation, so that MR scans can be compared. For a
        structure that the case lacks, the volume is 0 and the others are NaN.
    """
    boxes = scipy.ndimage.find_objects(label)
    centre = _centre(np.isin(label, list(labels.values())), affine)
    intensities = (image - image.mean()) / (image.std() or 1)
    rows = []
    for name, index in labels.items():
        box = boxes[index - 1] if index <= len(boxes) else None
        measures = (
            _ABSENT if box is None else _measure(intensities[box], label[box] == index, _moved(affine, box), centre)
        )
        rows.append({"label": name, **measures})
    return rows


_ABSENT = {"volume_ml": 0.0, **dict.fromkeys(("x_mm", "y_mm", "z_mm", "pieces", "outside_share", "intensity"), np.nan)}


def _measure(
    intensities: npt.NDArray[Any], mask: npt.NDArray[np.bool_], affine: npt.NDArray[Any], centre: npt.NDArray[Any]
) -> dict[str, float]:
    """Measure a structure within its box."""
    size = int(mask.sum())
    parts, pieces = scipy.ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return {
        "volume_ml": size * abs(float(np.linalg.det(affine[:3, :3]))) / 1000,
        **dict(zip(("x_mm", "y_mm", "z_mm"), _centre(mask, affine) - centre, strict=True)),
        "pieces": pieces,
        "outside_share": 1 - np.bincount(parts.ravel())[1:].max() / size,
        "intensity": float(intensities[mask].mean()),
    }


def _moved(affine: npt.NDArray[Any], box: tuple[slice, ...]) -> npt.NDArray[Any]:
    """Return the affine of a part of a volume."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    return moved


def _centre(mask: npt.NDArray[np.bool_], affine: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the centre of mass in mm; NaN for an empty mask."""
    if not mask.any():
        return np.full(3, np.nan)
    centre: npt.NDArray[Any] = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
    return centre


def label_shift(image: npt.NDArray[Any], label: npt.NDArray[Any]) -> tuple[tuple[int, int, int], float]:
    """Find by how many voxels a label map would have to be moved for its borders to lie on edges of its image.

    Args:
        image: intensities (X, Y, Z).
        label: label ids of the same shape; negative where voxels are ignored, whose borders do not count.

    Returns:
        The shift along each axis, up to 4 voxels, at which the mean gradient of the image under the labels' borders is
        largest; and how much larger it is than without a shift, in standard deviations over all shifts.
    """
    border = _border(label)
    if not len(border):
        return (0, 0, 0), 0.0
    edges = np.linalg.norm(np.gradient(image.astype(np.float32)), axis=0)
    edges = np.minimum(edges, np.percentile(edges, 99))
    shifts = np.stack(np.meshgrid(*[np.arange(-REACH, REACH + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    means = np.array([edges[tuple((border + shift).T)].mean() for shift in shifts])
    best, unmoved = int(means.argmax()), len(shifts) // 2
    x, y, z = (int(value) for value in shifts[best])
    return (x, y, z), float((means[best] - means[unmoved]) / (means.std() or 1))


def _border(label: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Draw voxels (N, 3) beside another label that stay within the image when moved."""
    if min(label.shape) <= 2 * REACH:
        return np.empty((0, 3), dtype=int)
    lowest = scipy.ndimage.minimum_filter(label, 3)
    differs = (scipy.ndimage.maximum_filter(label, 3) != lowest) & (lowest >= 0)
    inner = (slice(REACH, -REACH),) * 3
    voxels = np.argwhere(differs[inner]) + REACH
    return np.asarray(voxels[np.random.default_rng(0).permutation(len(voxels))[:SAMPLED_VOXELS]])
