"""Figures of slices with coloured labels, truth beside prediction.

Figures are drawn without pyplot: without windows or global state, and safe beside a user's own plots. Slices follow the
radiological convention (see :mod:`medcontext.report.planes`): R, at the viewer's left, is the patient's right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from medcontext.labels import Labels, label_ids
from medcontext.report.palette import label_colours
from medcontext.report.planes import Array, Plane, label_planes

__all__ = [
    "add_legend",
    "draw_labels",
    "draw_planes",
    "label_text",
    "outline",
    "overlay_figure",
    "plain",
    "show_slice",
    "size_mm",
]

_FILL = 0.38
_DPI = 160


def overlay_figure(
    image: Any,
    label: Any,
    prediction: Any,
    labels: Labels,
    *,
    spacing: Sequence[float],
    title: str = "",
    window: tuple[float, float] | None = None,
    margin: float | None = 30.0,
    channel: int = 0,
) -> Figure:
    """Show truth beside prediction in the axial, coronal and sagittal slice that show the labels best.

    Radiological convention: the patient's right (R) is on the viewer's left; letters mark the edges.

    Args:
        image: image in RAS order, (C, X, Y, Z) or (X, Y, Z).
        label: truth as label map, (1, X, Y, Z) or (X, Y, Z).
        prediction: predicted label map of the same shape.
        labels: foreground names with their id or ids; each has the same colour in all figures.
        spacing: size of a voxel in mm along X, Y and Z.
        title: heading of the figure.
        window: intensities shown as black and white; by default chosen from the labelled tissue.
        margin: margin in mm around truth and prediction; ``None`` shows the whole slice.
        channel: channel of the image.

    Returns:
        The figure, with the truth on the left, the prediction on the right with the truth as a dotted outline, one
        plane per row, and all to the same scale.

    Raises:
        ValueError: If shapes or the window are unusable.
    """
    planes = label_planes(
        image, label, prediction, labels, spacing=spacing, window=window, margin=margin, channel=channel
    )
    return draw_planes(planes, labels, title=title)


def draw_planes(planes: Sequence[Plane], labels: Labels, *, title: str = "") -> Figure:
    """Draw slices from :func:`medcontext.report.planes.label_planes`, truth beside prediction.

    Args:
        planes: slices of one case.
        labels: foreground names with their id or ids.
        title: heading of the figure.

    Raises:
        ValueError: If there are no slices.
    """
    if not planes:
        raise ValueError("planes must hold at least one slice, got none.")
    sizes = [size_mm(plane.image, plane.pixel_mm) for plane in planes]
    widest = max(width for _, width in sizes)
    inch_per_mm = min(2.6 / widest, 4.1 / max(height for height, _ in sizes))
    heights = [height * inch_per_mm for height, _ in sizes]
    legend = 0.2 * -(-len(labels) // 2)
    figure = Figure(figsize=(5.4, sum(heights) + 0.2 * len(planes) + 0.5 + legend), layout="constrained", dpi=_DPI)
    axes = figure.subplots(len(planes), 2, squeeze=False, height_ratios=heights)
    for (left, right), plane in zip(axes, planes, strict=True):
        for axis, label_map in ((left, plane.label), (right, plane.prediction)):
            show_slice(axis, plane.image, plane.pixel_mm, plane.marks)
            draw_labels(axis, label_map, labels)
            _widen(axis, plane, widest)
        for ids in label_ids(labels).values():
            outline(right, np.isin(plane.label, ids), "white", linestyle="dotted")
        left.set_ylabel(plane.name, fontsize=11)
    axes[0, 0].set_title("truth", fontsize=12)
    axes[0, 1].set_title("prediction (dotted: truth)", fontsize=12)
    shown = np.unique(np.concatenate([np.ravel(m) for p in planes for m in (p.label, p.prediction)]))
    add_legend(figure, labels, shown)
    if title:
        figure.suptitle(plain(title), fontsize=13)
    return figure


def _widen(axis: Axes, plane: Plane, width_mm: float) -> None:
    """Show a plane as wide as the widest, in black, so that all have one scale."""
    columns = plane.image.shape[1]
    extra = (width_mm / plane.pixel_mm[1] - columns) / 2
    axis.set(xlim=(-0.5 - extra, columns - 0.5 + extra), facecolor="black")


def size_mm(image: Array, pixel_mm: tuple[float, float]) -> tuple[float, float]:
    """Return the height and width of a slice (rows, columns) in mm."""
    return image.shape[0] * pixel_mm[0], image.shape[1] * pixel_mm[1]


def show_slice(axis: Axes, image: Array, pixel_mm: tuple[float, float], marks: Sequence[str] = ()) -> None:
    """Draw a grey slice without ticks.

    Args:
        axis: axes to draw on.
        image: grey values (rows, columns) from 0 to 255.
        pixel_mm: height and width of a pixel in mm.
        marks: letters at the left, right, top and bottom edge.
    """
    aspect = pixel_mm[0] / pixel_mm[1]
    axis.imshow(image, cmap="gray", vmin=0, vmax=255, aspect=aspect, interpolation="nearest")
    axis.autoscale(False)  # later drawing keeps the view
    axis.set(xticks=[], yticks=[])
    positions = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"), (0.5, 0.98, "center", "top"))
    for mark, (x, y, across, down) in zip(marks, (*positions, (0.5, 0.02, "center", "bottom")), strict=False):
        text = axis.text(x, y, mark, color="white", fontsize=10, ha=across, va=down, transform=axis.transAxes)
        text.set_bbox({"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 1})


def draw_labels(axis: Axes, label_map: Array, labels: Labels) -> None:
    """Draw coloured labels with outlines over a slice.

    Where regions overlap, later labels cover earlier ones.

    Args:
        axis: axes that show the slice.
        label_map: label ids (rows, columns).
        labels: foreground names with their id or ids.
    """
    colours = label_colours(labels)
    overlay = np.zeros((*label_map.shape, 4))
    masks = {name: np.isin(label_map, ids) for name, ids in label_ids(labels).items()}
    for name, mask in masks.items():
        overlay[mask] = (*to_rgb(colours[name]), _FILL)
    axis.imshow(overlay, aspect=axis.get_aspect(), interpolation="nearest")
    for name, mask in masks.items():
        outline(axis, mask, colours[name])


def outline(axis: Axes, mask: Array, colour: str, linestyle: str = "solid") -> None:
    """Draw the border of a mask (rows, columns) as a line."""
    if mask.any():
        padded = np.pad(mask.astype(np.float32), 1)  # closes outlines at the slice's edge
        rows, columns = (np.arange(size) - 1 for size in padded.shape)
        lines = axis.contour(
            columns, rows, padded, levels=[0.5], colors=[colour], linewidths=1.0, linestyles=[linestyle]
        )
        lines.set_path_effects([withStroke(linewidth=2.0, foreground="black", alpha=0.35)])  # seen on bright tissue too


def add_legend(figure: Figure, labels: Labels, shown: Iterable[int], extra: Sequence[Patch] = ()) -> None:
    """Add a legend below the figure with the labels of which any id is shown."""
    present = set(np.asarray(list(shown)).tolist())
    colours = label_colours(labels)
    handles = [
        Patch(facecolor=(*to_rgb(colours[name]), 0.7), edgecolor=colours[name], label=label_text(name))
        for name, ids in label_ids(labels).items()
        if present & set(ids)
    ]
    handles.extend(extra)
    if handles:
        columns = min(len(handles), max(2, int(figure.get_figwidth() / 2)))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=10, frameon=False)


def plain(text: object) -> str:
    """Escape text such that matplotlib does not take it for mathematics."""
    return str(text).replace("$", r"\$")


def label_text(name: str, longest: int = 26) -> str:
    """Return a label's name for a figure: with spaces for underscores, on one line, and shortened if it is long."""
    text = " ".join(name.replace("_", " ").split())
    return plain(text if len(text) <= longest else text[: longest - 1].rstrip() + "…")
