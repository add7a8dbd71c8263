r"""Dice, surface Dice, surface distances and volumes of one case, label by label.

Which numbers a label gets is explicit, so that no organ vanishes from an average by being absent:

===============  ====================  =================  =========  ==========  ============
in the label     in the prediction     dice, surface      distances  ``missed``  ``spurious``
===============  ====================  =================  =========  ==========  ============
yes              yes                   value              value      False       False
yes              no                    0                  NaN        True        False
no               yes                   0                  NaN        False       True
no               no (not counted)      NaN                NaN        False       False
===============  ====================  =================  =========  ==========  ============

Ignored voxels of the label are in neither of the two, so surfaces end where they begin. A label that is not annotated
in the case has NaN in all columns of numbers.

NaN means "no such value" and is left out of averages. A distance to something that is not there has no value, which
flatters a model that misses organs: read distances together with the counts of missed and spurious labels. The columns
of published scripts can be added, see :mod:`medcontext.metrics.protocols`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from medcontext.labels import IGNORED, Labels, label_ids
from medcontext.metrics.protocols import PROTOCOLS, metric_protocol
from medcontext.metrics.surfaces import Mask, boundary_voxels, nearest_distances, surface_dice

__all__ = ["SurfaceTolerance", "case_metrics", "surface_tolerances"]

SurfaceTolerance: TypeAlias = float | Mapping[str, float]
"""Tolerance of the surface Dice in mm, one for all labels or one for each by name."""

_VOXELS = (1.0, 1.0, 1.0)


def case_metrics(
    prediction: torch.Tensor,
    label: torch.Tensor,
    labels: Labels,
    spacing: Sequence[float],
    *,
    surface_tolerance_mm: SurfaceTolerance = 2.0,
    protocol: str = "default",
    voxel_ml: float | None = None,
    unannotated: Sequence[int] = (),
) -> list[dict[str, str | float | bool]]:
    """Measure one case.

    Args:
        prediction: integer label map, (1, *spatial) or (*spatial) with three spatial axes, on any device.
        label: the reference, of the same shape; -1 marks ignored voxels.
        labels: foreground names with their id, or with several ids for a region that unites labels. Ids that are not
            named count as background.
        spacing: size of a voxel along each spatial axis in mm.
        surface_tolerance_mm: distance in mm up to which surfaces agree, for all labels or by name.
        protocol: name of one of :data:`medcontext.metrics.PROTOCOLS`. Those of published scripts add columns.
        voxel_ml: volume of a voxel in millilitres, the determinant of the affine; by default the product of the edges.
        unannotated: ids that are not annotated in this case; a region with one of them is not either.

    Returns:
        One row per label, in the order of ``labels``, with the keys ``label``, ``dice``, ``surface_dice`` (share of
        both surfaces' area within the tolerance of the other, after Nikolov et al.), ``hd95_mm`` (the larger of the
        two directed 95th percentiles of the surface distances), ``assd_mm`` (mean of the surface distances of both
        directions together), ``label_volume_ml``, ``prediction_volume_ml``, ``missed`` and ``spurious``; with a
        published protocol also ``paper_dice`` and ``paper_hd95_voxels`` (95th percentile of the surface distances of
        both directions together, in voxels). The module's table says what empty labels get.

    Raises:
        ValueError: If the shapes differ or are not three-dimensional, values are not whole numbers, ``spacing`` is not
            three positive numbers, a tolerance is missing or below 0, or the protocol is unknown.

    Example:
        >>> label = torch.zeros(8, 8, 8, dtype=torch.uint8)
        >>> label[2:6, 2:6, 2:6] = 1
        >>> prediction = label.clone()
        >>> prediction[5] = 0  # a slice is missed
        >>> rows = case_metrics(prediction, label, {"spleen": 1, "liver": 2}, spacing=(1.0, 1.0, 2.5))
        >>> print(f"{rows[0]['label']}: Dice {rows[0]['dice']:.3f}, HD95 {rows[0]['hd95_mm']:.1f} mm")
        spleen: Dice 0.857, HD95 1.0 mm
        >>> rows[1]["label"], rows[1]["dice"]  # absent from both
        ('liver', nan)
    """
    spacing, ids = _checked_spacing(spacing), label_ids(labels)
    tolerances = surface_tolerances(surface_tolerance_mm, ids)
    metric_protocol(protocol)
    predicted, truth = _label_map(prediction, "prediction"), _label_map(label, "label")
    if predicted.shape != truth.shape:
        raise ValueError(
            f"prediction and label must have the same shape, got {predicted.shape} and {truth.shape}. "
            "Bring both to the same geometry, for example with monai.transforms.Invertd on both."
        )
    ignored = truth == IGNORED
    predicted = np.where(ignored, 0, predicted) if ignored.any() else predicted
    volume = math.prod(spacing) / 1000 if voxel_ml is None else voxel_ml
    return [
        {
            "label": name,
            **_label_metrics(_union(predicted, of), _union(truth, of), spacing, tolerances[name], protocol, volume),
        }
        if set(of).isdisjoint(unannotated)
        else {"label": name, **_unannotated_columns(protocol)}
        for name, of in ids.items()
    ]


def surface_tolerances(tolerance_mm: SurfaceTolerance, labels: Labels) -> dict[str, float]:
    """Check the tolerance of the surface Dice and return it for every label.

    Args:
        tolerance_mm: one for all labels, or one for each by name; names of other labels are ignored.
        labels: the labels that are measured.

    Raises:
        ValueError: If a label has no tolerance, or one is not a finite number of mm, 0 or more.

    Example:
        >>> surface_tolerances(2, {"spleen": 1, "liver": 2})
        {'spleen': 2.0, 'liver': 2.0}
    """
    given = tolerance_mm if isinstance(tolerance_mm, Mapping) else dict.fromkeys(labels, tolerance_mm)
    missing = [name for name in labels if name not in given]
    if missing:
        raise ValueError(f"the surface tolerance must name every label, but lacks {missing}. Give one for all.")
    for name in labels:
        value = given[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise ValueError(f"the surface tolerance of {name!r} must be a number of mm, 0 or more, got {value!r}.")
    return {name: float(given[name]) for name in labels}


def _label_metrics(
    predicted: Mask, truth: Mask, spacing: Sequence[float], tolerance_mm: float, protocol: str, voxel_ml: float
) -> dict[str, float | bool]:
    """Measure one label from two masks (*spatial)."""
    predicted_voxels, truth_voxels = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    if predicted_voxels and truth_voxels:
        ours, published = _overlap_columns(predicted, truth, spacing, tolerance_mm, published=protocol != "default")
    else:
        case = "missed" if truth_voxels else "spurious" if predicted_voxels else "absent"
        ours, published = _empty_columns(case, protocol)
    return {
        **ours,
        "label_volume_ml": truth_voxels * voxel_ml,
        "prediction_volume_ml": predicted_voxels * voxel_ml,
        "missed": truth_voxels > 0 and predicted_voxels == 0,
        "spurious": predicted_voxels > 0 and truth_voxels == 0,
        **published,
    }


def _overlap_columns(
    predicted: Mask, truth: Mask, spacing: Sequence[float], tolerance_mm: float, published: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Return our columns of two masks that both hold something, and the published ones."""
    box = _bounding_box(predicted | truth)
    predicted, truth = predicted[box], truth[box]
    surfaces = boundary_voxels(predicted), boundary_voxels(truth)
    directed = nearest_distances(*surfaces, spacing), nearest_distances(*surfaces[::-1], spacing)
    common = np.count_nonzero(predicted & truth)
    ours = {
        "dice": 2 * common / (np.count_nonzero(predicted) + np.count_nonzero(truth)),
        "surface_dice": surface_dice(predicted, truth, spacing, tolerance_mm),
        "hd95_mm": float(max(np.percentile(distances, 95) for distances in directed)),
        "assd_mm": float(np.concatenate(directed).mean()),
    }
    if not published:
        return ours, {}
    voxels = [nearest_distances(*surfaces, _VOXELS), nearest_distances(*surfaces[::-1], _VOXELS)]
    hd95_voxels = float(np.percentile(np.concatenate(voxels), 95))
    return ours, {"paper_dice": ours["dice"], "paper_hd95_voxels": hd95_voxels}


def _empty_columns(case: str, protocol: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return our columns of a label that is ``missed``, ``spurious`` or ``absent``, and the published ones."""
    default, published = PROTOCOLS["default"], PROTOCOLS[protocol]
    overlap, distance = getattr(default.overlap, case), getattr(default.distance, case)
    ours = {"dice": overlap, "surface_dice": overlap, "hd95_mm": distance, "assd_mm": distance}
    if published is default:
        return ours, {}
    overlap, distance = getattr(published.overlap, case), getattr(published.distance, case)
    return ours, {"paper_dice": overlap, "paper_hd95_voxels": distance}


def _unannotated_columns(protocol: str) -> dict[str, float | bool]:
    """Return the columns of a label that is not annotated: none has a value."""
    ours, published = (dict.fromkeys(columns, math.nan) for columns in _empty_columns("absent", protocol))
    volumes = {"label_volume_ml": math.nan, "prediction_volume_ml": math.nan}
    return {**ours, **volumes, "missed": False, "spurious": False, **published}


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return slices around the voxels of ``mask``, which must not be empty; they hold all of its surface."""
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def _union(label_map: npt.NDArray[np.generic], ids: Sequence[int]) -> Mask:
    mask: Mask = label_map == ids[0]
    for other in ids[1:]:
        mask |= label_map == other
    return mask


def _label_map(values: torch.Tensor, name: str) -> npt.NDArray[np.generic]:
    """Return a label map as an array (*spatial)."""
    shape = tuple(values.shape)
    if len(shape) == 4 and shape[0] == 1:
        values = values[0]
    elif len(shape) != 3:
        raise ValueError(
            f"{name} must be a label map of shape (1, X, Y, Z) or (X, Y, Z), got {shape}. "
            "Take the argmax over the channels first, with keepdim=True."
        )
    array: npt.NDArray[np.generic] = values.detach().cpu().numpy()
    if values.is_floating_point() and not np.array_equal(array, np.round(array)):
        raise ValueError(f"{name} must hold whole label ids, got fractions. Take the argmax over the channels first.")
    return array


def _checked_spacing(spacing: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(value) for value in spacing)
    if len(values) != 3 or not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"spacing must be three positive numbers in mm, one per spatial axis, got {tuple(spacing)}.")
    return values
