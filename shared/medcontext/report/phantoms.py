"""Picture of generated cases, for documents."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.figure import Figure

from medcontext.data.datasets import load_split
from medcontext.data.phantoms import PHANTOM_DATASETS
from medcontext.report.figures import add_legend, draw_labels, show_slice, size_mm
from medcontext.report.planes import label_planes

__all__ = ["draw_phantoms"]

_WIDTH = 1.7
_SOFT_TISSUE = (-160.0, 260.0)


def draw_phantoms(
    output_png: str | os.PathLike[str],
    *,
    dataset: str = "btcv",
    num_cases: int = 8,
    seed: int = 0,
    planes: tuple[str, ...] = ("coronal", "axial"),
    window: tuple[float, float] = _SOFT_TISSUE,
) -> Path:
    """Draw the first cases of a generated cohort, one per column, with coloured organs and their names.

    Every case is shown in the slices that show its organs best. Radiological convention: the patient's right is on the
    viewer's left.

    Args:
        output_png: path of the picture.
        dataset: whose twins to draw, such as ``"btcv"``.
        num_cases: number of columns, up to the size of the published split.
        seed: of the cohort.
        planes: one row each: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        window: intensities shown as black and as white, by default a soft-tissue window in HU.

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
    cases = [case for part in load_split(dataset).values() for case in part]
    if not 1 <= num_cases <= len(cases):
        raise ValueError(f"num_cases must be from 1 to {len(cases)}, got {num_cases!r}.")
    labels = {name: index for index, name in kind.labels.items() if index}
    columns = []
    for case in cases[:num_cases]:
        phantom = kind.make(seed, case, kind.size, kind.spacing)
        shown = label_planes(
            phantom.image, phantom.label, phantom.label, labels, spacing=kind.spacing, window=window, margin=None
        )
        columns.append({plane.name: plane for plane in shown})

    sizes = [size_mm(columns[0][name].image, columns[0][name].pixel_mm) for name in planes]
    heights = [_WIDTH * height / width for height, width in sizes]
    figure = Figure(figsize=(_WIDTH * num_cases, sum(heights) + 0.8), dpi=110)
    figure.set_layout_engine("constrained", w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    axes = figure.subplots(len(planes), num_cases, squeeze=False, height_ratios=heights)
    for row, name in zip(axes, planes, strict=True):
        for axis, column in zip(row, columns, strict=True):
            plane = column[name]
            show_slice(axis, plane.image, plane.pixel_mm, plane.marks if axis is row[0] else ())
            draw_labels(axis, plane.label, labels)
    add_legend(figure, {name.replace("_", " "): index for name, index in labels.items()}, labels.values())
    path = Path(output_png)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
