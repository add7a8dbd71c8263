"""Preview of organ dropout on training crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from monai.utils import CommonKeys, convert_to_numpy

from medcontext.checks import check_choice
from medcontext.keys import MedContextKeys
from medcontext.labels import Labels, label_ids
from medcontext.report.figures import add_legend, draw_labels, outline, plain, show_slice, size_mm
from medcontext.report.planes import (
    PLANE_AXES,
    Array,
    display_window,
    plane_geometry,
    ras_spacing,
    take_plane,
    to_grey,
    to_ras,
    volume_array,
)

__all__ = ["preview_figure"]

_HEADINGS: dict[str, str] = {
    CommonKeys.IMAGE: "image",
    CommonKeys.LABEL: "label",
    MedContextKeys.CONTEXT_MASK: "dropped",
    MedContextKeys.MASKED_IMAGE: "masked image",
    MedContextKeys.MASKED_PRED: "student\n(masked image)",
    MedContextKeys.TEACHER_PRED: "teacher\n(masked image)",
}
_MASKED_PREDICTIONS = (MedContextKeys.MASKED_PRED, MedContextKeys.TEACHER_PRED)
_OPTIONAL = (CommonKeys.PRED, *_MASKED_PREDICTIONS)
_DROPPED = "#FF3B7F"


def preview_figure(
    rows: Sequence[Mapping[str, Any]],
    labels: Labels,
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    orientation: str = "RAS",
    plane: str = "axial",
    titles: Sequence[str] = (),
    title: str = "",
    window: tuple[float, float] | None = None,
    channel: int = 0,
    headings: Mapping[str, str] | None = None,
) -> Figure:
    """Show training crops before and after organ dropout, one crop per row.

    The columns are image, label, the dropped voxels (tinted, on the image) and the masked image; then the student's
    prediction on the masked image and the teacher's on the same, each only if a row has it. Every row shows the slice
    with most dropped voxels; without any, the one with most labelled voxels; and without these, the middle one.
    Radiological convention: the patient's right (R) is on the viewer's left.

    Args:
        rows: one crop each, with MONAI's and MedContext's keys ``image``, ``label``, ``context_mask`` and
            ``masked_image``, and optionally ``masked_pred`` and ``teacher_pred``. All are (C, *spatial); predictions
            are logits or probabilities by class, or with one channel label ids.
        labels: foreground names with their id or ids.
        spacing: size of a voxel in mm along the arrays' axes.
        orientation: ends that the arrays' axes run towards, such as ``"RAS"`` or ``"SPL"``.
        plane: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        titles: a name for each row.
        title: heading of the figure.
        window: intensities shown as black and as white; by default chosen in each row from the labelled tissue.
        channel: channel of the images.
        headings: headings of the columns to draw, by key and in order, instead of those above; ``pred``, a prediction
            on the whole image, is possible too.

    Raises:
        ValueError: If there are no rows, a row lacks a key, shapes differ, or an argument is out of range.
    """
    if not rows:
        raise ValueError("rows must hold at least one crop, got none.")
    check_choice("plane", plane, PLANE_AXES)
    if titles and len(titles) != len(rows):
        raise ValueError(f"titles must name each of the {len(rows)} rows, got {len(titles)}.")
    headings = _HEADINGS if headings is None else headings
    keys = [key for key in headings if key not in _OPTIONAL or any(key in row for row in rows)]
    slices = [_row_slices(row, keys, labels, orientation, plane, channel, window) for row in rows]
    pixel_mm, marks = plane_geometry(plane, ras_spacing(spacing, orientation))

    width = 1.9
    sizes = [size_mm(shown[CommonKeys.IMAGE], pixel_mm) for shown in slices]
    heights = [width * tall / wide for tall, wide in sizes]
    figure = Figure(figsize=(width * len(keys) + 0.3, sum(heights) + 1.1), layout="compressed", dpi=110)
    axes = figure.subplots(len(rows), len(keys), squeeze=False, height_ratios=heights)
    for i, shown in enumerate(slices):
        for axis, key in zip(axes[i], keys, strict=True):
            _panel(axis, key, shown, labels, pixel_mm, marks if key == CommonKeys.IMAGE else ())
            if i == 0:
                axis.set_title(headings[key], fontsize=9)
        if titles:
            axes[i, 0].set_ylabel(plain(titles[i]), fontsize=8)
    maps = [shown[key] for shown in slices for key in (CommonKeys.LABEL, *_OPTIONAL) if key in shown]
    dropped = [Patch(facecolor=_DROPPED, alpha=0.5, label="dropped")] if MedContextKeys.CONTEXT_MASK in keys else []
    add_legend(figure, labels, np.unique(np.concatenate([values.ravel() for values in maps])), dropped)
    if title:
        figure.suptitle(plain(title), fontsize=11)
    return figure


def _panel(
    axis: Axes,
    key: str,
    shown: Mapping[str, Array],
    labels: Labels,
    pixel_mm: tuple[float, float],
    marks: Sequence[str],
) -> None:
    """Draw one column of a row."""
    if key not in shown:
        axis.set_axis_off()
        return
    masked = key in (MedContextKeys.MASKED_IMAGE, *_MASKED_PREDICTIONS)
    show_slice(axis, shown[MedContextKeys.MASKED_IMAGE if masked else CommonKeys.IMAGE], pixel_mm, marks)
    if key == MedContextKeys.CONTEXT_MASK:
        tint = np.zeros((*shown[key].shape, 4))
        tint[shown[key]] = (*to_rgb(_DROPPED), 0.4)
        axis.imshow(tint, aspect=axis.get_aspect(), interpolation="nearest")
        outline(axis, shown[key], _DROPPED)
    elif key in (CommonKeys.LABEL, *_OPTIONAL):
        draw_labels(axis, shown[key], labels)


def _row_slices(
    row: Mapping[str, Any],
    keys: Sequence[str],
    labels: Labels,
    orientation: str,
    plane: str,
    channel: int,
    window: tuple[float, float] | None,
) -> dict[str, Array]:
    """Cut the slice out of all volumes of a crop: grey values, label ids and a boolean mask (rows, columns)."""
    missing = [str(key) for key in keys if key not in row and key not in _OPTIONAL]
    if missing:
        raise ValueError(f"a row must have {', '.join(missing)}, got {sorted(row)}. Apply RandOrganDropoutd first.")
    images = {CommonKeys.IMAGE, MedContextKeys.MASKED_IMAGE}
    volumes: dict[str, Array] = {}
    for key in keys:
        if key in row:
            values = _label_ids_of(row[key]) if key in _OPTIONAL else row[key]
            array = volume_array(values, str(key), channel if key in images else 0)
            volumes[key] = to_ras(array, orientation)
    if len({volume.shape for volume in volumes.values()}) > 1:
        shapes = ", ".join(f"{key} {volume.shape}" for key, volume in volumes.items())
        raise ValueError(f"all volumes in a row must have the same spatial shape, got {shapes}.")

    dropped = volumes.get(MedContextKeys.CONTEXT_MASK, np.zeros(1)) > 0
    if MedContextKeys.CONTEXT_MASK in volumes:
        volumes[MedContextKeys.CONTEXT_MASK] = dropped
    named = np.isin(volumes[CommonKeys.LABEL], [i for ids in label_ids(labels).values() for i in ids])
    low, high = window or display_window(volumes[CommonKeys.IMAGE], named)
    index = _fullest_slice(dropped if dropped.any() else named, PLANE_AXES[plane])
    shown = {key: take_plane(volume, plane, index) for key, volume in volumes.items()}
    for key in images & shown.keys():
        shown[key] = to_grey(shown[key], low, high)
    return shown


def _label_ids_of(prediction: Any) -> Array:
    """Return label ids (X, Y, Z) from logits by class (C, X, Y, Z) or from one channel of ids."""
    array = np.asarray(convert_to_numpy(prediction))
    return array.argmax(axis=0) if array.ndim == 4 and array.shape[0] > 1 else array


def _fullest_slice(mask: Array, axis: int) -> int:
    """Return the index of the slice along ``axis`` with most of the mask, or of the middle one if it is empty."""
    count = mask.sum(axis=tuple(other for other in range(3) if other != axis))
    return int(count.argmax()) if count.any() else mask.shape[axis] // 2
