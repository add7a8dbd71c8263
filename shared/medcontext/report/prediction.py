"""Picture of a prediction without a reference to compare it with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from medcontext.labels import Labels, label_ids
from medcontext.report.figures import add_legend, outline, plain, show_slice, size_mm
from medcontext.report.palette import label_colours
from medcontext.report.planes import label_planes

__all__ = ["prediction_figure"]


def prediction_figure(
    image: Any,
    prediction: Any,
    labels: Labels,
    *,
    spacing: Sequence[float],
    title: str = "",
    window: tuple[float, float] | None = None,
    margin: float | None = 30.0,
    channel: int = 0,
) -> Figure:
    """Show the outlines of a prediction in the axial, coronal and sagittal slice that show the labels best.

    Radiological convention: the patient's right (R) is on the viewer's left; letters mark the edges.

    Args:
        image: image in RAS order, (C, X, Y, Z) or (X, Y, Z).
        prediction: predicted label map, (1, X, Y, Z) or (X, Y, Z).
        labels: foreground names with their id or ids; each has the same colour in all figures.
        spacing: size of a voxel in mm along X, Y and Z.
        title: heading of the figure.
        window: intensities shown as black and white; by default chosen from the labelled tissue.
        margin: margin in mm around the prediction; ``None`` shows the whole slice.
        channel: channel of the image.

    Returns:
        The figure, with the three slices beside each other and to the same scale.

    Raises:
        ValueError: If shapes or the window are unusable.
    """
    planes = label_planes(
        image, prediction, prediction, labels, spacing=spacing, window=window, margin=margin, channel=channel
    )
    sizes = [size_mm(plane.image, plane.pixel_mm) for plane in planes]
    inch_per_mm = min(3.6 / max(height for height, _ in sizes), 12.0 / sum(width for _, width in sizes))
    widths = [width * inch_per_mm for _, width in sizes]
    height = max(height for height, _ in sizes) * inch_per_mm
    figure = Figure(figsize=(max(sum(widths), 5.0) + 0.4, height + 1.4), layout="constrained", dpi=130)
    colours = label_colours(labels)
    for axis, plane in zip(figure.subplots(1, 3, width_ratios=widths), planes, strict=True):
        show_slice(axis, plane.image, plane.pixel_mm, plane.marks)
        for name, ids in label_ids(labels).items():
            outline(axis, np.isin(plane.prediction, ids), colours[name])
        axis.set_title(plane.name, fontsize=11)
    add_legend(figure, labels, np.unique(np.concatenate([np.ravel(plane.prediction) for plane in planes])))
    if title:
        figure.suptitle(plain(title), fontsize=12)
    return figure
