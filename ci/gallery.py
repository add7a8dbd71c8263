"""Picture of generated cases, for documents."""

from __future__ import annotations

import os
from pathlib import Path

import fire
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from medcontext.phantoms.cohort import PHANTOM_DATASETS, PhantomDataset, phantom_split
from medcontext.report.figures import add_legend, draw_labels, show_slice, size_mm
from medcontext.report.planes import Plane, label_planes

__all__ = ["draw_phantoms"]

_WIDTH = 1.7
_SOFT_TISSUE = (-160.0, 260.0)
"""Window in HU for CT; MR has no unit, and every image of it its own window."""


def draw_phantoms(
    output_png: str | os.PathLike[str],
    *,
    dataset: str = "btcv",
    num_cases: int = 8,
    seed: int = 0,
    planes: tuple[str, ...] = ("coronal", "axial"),
    window: tuple[float, float] | None = None,
) -> Path:
    """Draw the first cases of a generated cohort, one per column, with coloured labels and their names.

    Every case is shown in the slices that show its labels best. Radiological convention: the patient's right is on the
    viewer's left. Of several channels the first is shown in all planes with its labels, the others in the last plane
    without.

    Args:
        output_png: path of the picture.
        dataset: whose twins to draw, such as ``"btcv"``.
        num_cases: number of columns, up to the size of the published split.
        seed: of the cohort.
        planes: one row each of the first channel: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        window: intensities shown as black and as white, by default a soft-tissue window in HU for CT, and for MR
            the window that suits the image.

    Returns:
        The path of the picture.

    Raises:
        ValueError: when an argument is out of range.
    """
    if dataset not in PHANTOM_DATASETS:
        raise ValueError(f"dataset must be one of {sorted(PHANTOM_DATASETS)}, got {dataset!r}.")
    if not planes or not set(planes) <= {"axial", "coronal", "sagittal"}:
        raise ValueError(f"planes must name 'axial', 'coronal' or 'sagittal', got {planes!r}.")
    kind = PHANTOM_DATASETS[dataset]
    cases = [case for part in phantom_split(dataset).values() for case in part]
    if not 1 <= num_cases <= len(cases):
        raise ValueError(f"num_cases must be from 1 to {len(cases)}, got {num_cases!r}.")
    labels = {name: index for index, name in kind.labels.items() if index}
    if window is None and kind.modality[0] == "CT":
        window = _SOFT_TISSUE
    # A row is a plane and a channel.
    rows = [(name, 0) for name in planes] + [(planes[-1], channel) for channel in list(kind.modality)[1:]]
    columns = [_planes_of_case(kind, seed, case, labels, rows, window) for case in cases[:num_cases]]

    sizes = [size_mm(plane.image, plane.pixel_mm) for plane in columns[0]]
    heights = [_WIDTH * height / width for height, width in sizes]
    figure = Figure(figsize=(_WIDTH * num_cases, sum(heights) + 0.8), dpi=110)
    figure.set_layout_engine("constrained", w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    axes = figure.subplots(len(rows), num_cases, squeeze=False, height_ratios=heights)
    for column, shown in zip(axes.T, columns, strict=True):
        for axis, plane, (_, channel) in zip(column, shown, rows, strict=True):
            show_slice(axis, plane.image, plane.pixel_mm, plane.marks if shown is columns[0] else ())
            if channel == 0:
                draw_labels(axis, plane.label, labels)
    add_legend(figure, {name.replace("_", " "): index for name, index in labels.items()}, labels.values())
    path = Path(output_png)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _planes_of_case(
    kind: PhantomDataset,
    seed: int,
    case: str,
    labels: dict[str, int],
    rows: list[tuple[str, int]],
    window: tuple[float, float] | None,
) -> list[Plane]:
    """One case's plane for every row, a plane's name and a channel."""
    phantom = kind.make(seed, case, kind.size, kind.spacing)
    spacing = np.diag(phantom.affine)[:3].tolist()
    channels = np.moveaxis(phantom.image.reshape(*phantom.label.shape, -1), -1, 0)
    shown = {
        (plane.name, channel): plane
        for channel, image in enumerate(channels)
        for plane in label_planes(
            image, phantom.label, phantom.label, labels, spacing=spacing, window=window or _window(image), margin=None
        )
    }
    return [shown[row] for row in rows]


def _window(image: npt.NDArray[np.int16]) -> tuple[float, float]:
    """From nothing to nearly the brightest."""
    return 0.0, float(np.percentile(image[image > 0], 99.7))


if __name__ == "__main__":
    fire.Fire(draw_phantoms)
