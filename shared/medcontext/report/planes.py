"""Slices of a volume in the radiological convention.

The axes of volumes run to the patient's right, anterior and superior (RAS, MONAI's default). In pictures, the patient's
right side is on the viewer's left, anterior is up in axial slices and on the left in sagittal ones, and superior is up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import nibabel.orientations
import numpy as np
import numpy.typing as npt
from monai.utils import convert_to_numpy

from medcontext.labels import Labels, label_ids

__all__ = [
    "PLANE_AXES",
    "Plane",
    "display_window",
    "label_planes",
    "plane_geometry",
    "ras_spacing",
    "take_plane",
    "to_grey",
    "to_ras",
    "volume_array",
]

Array: TypeAlias = npt.NDArray[Any]

PLANE_AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""RAS axis that a plane cuts through."""

ENOUGH_VOXELS = 1 << 21
"""Voxels that suffice for the percentiles of an image."""

_ENDS = (("R", "L"), ("A", "P"), ("S", "I"))


@dataclass(frozen=True)
class Plane:
    """One slice of a case, oriented for display: rows run downwards, columns to the viewer's right.

    Attributes:
        name: ``axial``, ``coronal`` or ``sagittal``.
        image: grey values (rows, columns) from 0 to 255.
        label: truth as label ids (rows, columns).
        prediction: predicted label ids (rows, columns).
        pixel_mm: height and width of a pixel in mm.
        marks: directions at the left, right, top and bottom edge, such as ``("R", "L", "A", "P")``.
    """

    name: str
    image: npt.NDArray[np.uint8]
    label: Array
    prediction: Array
    pixel_mm: tuple[float, float]
    marks: tuple[str, str, str, str]


def volume_array(values: Any, name: str = "volume", channel: int = 0) -> Array:
    """Return one channel of an image or label map as an array (X, Y, Z).

    Args:
        values: tensor or array, (C, X, Y, Z) or (X, Y, Z).
        name: name of the values in errors.
        channel: channel to take if there are several.

    Raises:
        ValueError: If there are not three spatial axes or the channel does not exist.
    """
    array = np.asarray(convert_to_numpy(values))
    if array.ndim == 4:
        if not -array.shape[0] <= channel < array.shape[0]:
            raise ValueError(f"{name} must have channel {channel} on axis 0, got {array.shape[0]} channels.")
        array = array[channel]
    if array.ndim != 3:
        raise ValueError(f"{name} must have the shape (C, X, Y, Z) or (X, Y, Z), got {array.shape}.")
    return array


def to_ras(array: Array, orientation: str) -> Array:
    """Reorient an array from the axes that ``orientation`` names (``"SPL"``) to RAS.

    Raises:
        ValueError: If ``orientation`` is not three letters that name three different axes.
    """
    return np.asarray(nibabel.orientations.apply_orientation(array, _axis_order(orientation)))


def ras_spacing(spacing: Sequence[float], orientation: str) -> tuple[float, ...]:
    """Put the spacing along the axes that ``orientation`` names into the order X, Y, Z.

    Raises:
        ValueError: If ``orientation`` is not three letters that name three different axes.
    """
    return tuple(float(spacing[int(axis)]) for axis in np.argsort(_axis_order(orientation)[:, 0]))


def _axis_order(orientation: str) -> Array:
    code = str(orientation).upper()
    if len(code) != 3 or any(sum(end in pair for end in code) != 1 for pair in ("RL", "AP", "SI")):
        raise ValueError(f"orientation must name three axes, such as 'RAS' or 'SPL', got {orientation!r}.")
    return np.asarray(nibabel.orientations.axcodes2ornt(tuple(code)))


def take_plane(volume: Array, name: str, index: int) -> Array:
    """Cut slice ``index`` of the named plane out of a RAS array (X, Y, Z), oriented for display."""
    return np.take(volume, index, axis=PLANE_AXES[name])[::-1, ::-1].T


def plane_geometry(name: str, spacing: Sequence[float]) -> tuple[tuple[float, float], tuple[str, str, str, str]]:
    """Return the height and width of a plane's pixels in mm and its marks (left, right, top, bottom).

    Args:
        name: ``axial``, ``coronal`` or ``sagittal``.
        spacing: size of a voxel in mm along X, Y and Z.
    """
    across, down = (axis for axis in range(3) if axis != PLANE_AXES[name])
    return (spacing[down], spacing[across]), (*_ENDS[across], *_ENDS[down])


def label_planes(
    image: Any,
    label: Any,
    prediction: Any,
    labels: Labels,
    *,
    spacing: Sequence[float],
    window: tuple[float, float] | None = None,
    margin: float | None = 30.0,
    channel: int = 0,
) -> tuple[Plane, ...]:
    """Choose the axial, coronal and sagittal slice that show the labels best.

    In each plane, every label's area is taken as a share of its largest area in that plane, and the slice with the
    largest sum is chosen, so that large organs do not outvote small ones. Without any truth, the prediction decides;
    without either, the middle slice is chosen.

    Args:
        image: image in RAS order, (C, X, Y, Z) or (X, Y, Z).
        label: truth as label map, (1, X, Y, Z) or (X, Y, Z).
        prediction: predicted label map of the same shape.
        labels: foreground names with their id or ids.
        spacing: size of a voxel in mm along X, Y and Z.
        window: intensities shown as black and as white; without it :func:`display_window` chooses.
        margin: margin in mm around truth and prediction; ``None`` shows the whole slice.
        channel: channel of the image.

    Returns:
        The three planes, small enough to keep for every case.

    Raises:
        ValueError: If shapes or the window are unusable.
    """
    ids = label_ids(labels)
    volumes = (
        volume_array(image, "image", channel),
        volume_array(label, "label"),
        volume_array(prediction, "prediction"),
    )
    if len({volume.shape for volume in volumes}) > 1:
        shapes = ", ".join(str(volume.shape) for volume in volumes)
        raise ValueError(f"image, label and prediction must have the same spatial shape, got {shapes}.")
    named = sorted({i for group in ids.values() for i in group})
    areas = [_areas(volumes[1], max(named, default=0))]
    areas += areas if prediction is label else [_areas(volumes[2], max(named, default=0))]
    chosen = areas[0] if any(area[:, named].any() for area in areas[0]) else areas[1]
    box = [_extent(areas[0][axis] + areas[1][axis], named, spacing[axis], margin) for axis in range(3)]
    grey, truth, predicted = (volume[tuple(box)] for volume in volumes)
    low, high = display_window(grey, np.isin(truth, named)) if window is None else window
    centres = [_fullest(area[part], ids) for area, part in zip(chosen, box, strict=True)]

    planes = []
    for name, axis in PLANE_AXES.items():
        pixel_mm, marks = plane_geometry(name, spacing)
        cut = [take_plane(volume, name, centres[axis]).copy() for volume in (grey, truth, predicted)]
        shown = to_grey(cut[0], low, high)
        planes.append(Plane(name, shown, _compact(cut[1]), _compact(cut[2]), pixel_mm, marks))
    return tuple(planes)


def display_window(image: Array, mask: Array) -> tuple[float, float]:
    """Choose the intensities to show as black and white so that the labelled tissue has contrast.

    The window is the 5th to 95th percentile of the labelled voxels, widened by 1.5 times its width on both sides,
    within the image's 0.5th to 99.5th percentile, which is also the window where nothing is labelled. In CT this is
    about a soft-tissue window. In large images, every second voxel or fewer are taken along each axis.

    Args:
        image: intensities of any unit.
        mask: labelled voxels, of the same shape.
    """
    every = (slice(None, None, max(round((image.size / ENOUGH_VOXELS) ** (1 / 3)), 1)),) * image.ndim
    image, mask = image[every], mask[every]
    finite = np.isfinite(image)
    if not finite.any():
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(image[finite], [0.5, 99.5]))
    inside = image[mask & finite]
    if inside.size:
        first, last = (float(value) for value in np.percentile(inside, [5, 95]))
        if last > first:
            extra = 1.5 * (last - first)
            low, high = max(low, first - extra), min(high, last + extra)
    return low, (high if high > low else low + 1.0)


def to_grey(image: Array, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Map intensities to grey values: ``low`` and less to 0, ``high`` and more to 255, NaN to 0.

    Raises:
        ValueError: If ``low`` is not below ``high``.
    """
    if not low < high:
        raise ValueError(f"window must be (low, high) with low below high, got ({low}, {high}).")
    share = np.clip((np.nan_to_num(image.astype(np.float32), nan=low) - low) / (high - low), 0, 1)
    return np.rint(255 * share).astype(np.uint8)


def _compact(label_map: Array) -> Array:
    """Store label ids in the smallest type that holds them."""
    whole = label_map.astype(np.int64)
    return whole.astype(np.min_scalar_type(int(whole.max(initial=0)))) if whole.min(initial=0) >= 0 else whole


def _areas(label_map: Array, highest: int) -> list[npt.NDArray[np.int64]]:
    """Count the voxels of each id from 0 to ``highest`` in each slice, (slices, ids) along each axis, others as 0."""
    rows, columns = label_map.shape[1:]
    ids = highest + 1
    areas = [np.zeros((size, ids), dtype=np.int64) for size in label_map.shape]
    row, column = ids * np.arange(rows)[:, None], ids * np.arange(columns)[None]
    for index, plane in enumerate(label_map):
        values = plane.astype(np.int64)
        values[(values < 0) | (values > highest)] = 0
        by_row = np.bincount((values + row).ravel(), minlength=rows * ids).reshape(rows, ids)
        areas[0][index] = by_row.sum(axis=0)
        areas[1] += by_row
        areas[2] += np.bincount((values + column).ravel(), minlength=columns * ids).reshape(columns, ids)
    return areas


def _extent(areas: Array, named: Sequence[int], spacing: float, margin: float | None) -> slice:
    """Return the slices along an axis with labels and a margin in mm; all of them if there are none, or no margin."""
    (occupied,) = np.nonzero(areas[:, named].any(axis=1))
    if margin is None or not occupied.size:
        return slice(0, len(areas))
    extra = int(np.ceil(margin / spacing))
    return slice(max(int(occupied[0]) - extra, 0), min(int(occupied[-1]) + 1 + extra, len(areas)))


def _fullest(areas: Array, ids: Mapping[str, Sequence[int]]) -> int:
    """Return the slice that shows the labels at their largest, in sum, by their areas (slices, ids)."""
    by_label = [areas[:, list(group)].sum(axis=1) for group in ids.values()]
    score: Array = sum((area / area.max() for area in by_label if area.any()), start=np.zeros(len(areas)))
    return int(score.argmax()) if score.any() else len(score) // 2
