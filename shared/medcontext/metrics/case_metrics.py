r"""Dice, surface distances and volumes of one case, label by label.

Which numbers a label gets is explicit, so that no organ vanishes from an average by being absent:

===============  ====================  =====  =========  ==========  ============
in the label     in the prediction     dice   distances  ``missed``  ``spurious``
===============  ====================  =====  =========  ==========  ============
yes              yes                   value  value      False       False
yes              no                    0      NaN        True        False
no               yes                   0      NaN        False       True
no               no (not counted)      NaN    NaN        False       False
===============  ====================  =====  =========  ==========  ============

NaN means "no such value" and is left out of averages. A distance to something that is not there has no value, which
flatters a model that misses organs: read the distances beside the counts of missed and spurious labels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

from medcontext.metrics.label_ids import LabelMapping, label_ids

__all__ = ["case_metrics"]

_MARGIN = 1  # voxels around both masks, so that the crop's border never becomes part of a surface


def case_metrics(
    prediction: torch.Tensor, label: torch.Tensor, labels: LabelMapping, spacing: Sequence[float]
) -> list[dict[str, str | float | bool]]:
    """Measure one case.

    Args:
        prediction: integer label map, (1, *spatial) or (*spatial) with three spatial axes, on any device.
        label: the truth, of the same shape.
        labels: foreground names with their id, or with several ids for a region that unites labels. Ids that are not
            named count as background.
        spacing: size of a voxel along each spatial axis in mm.

    Returns:
        One row per label, in the order of ``labels``, with the keys ``label``, ``dice``, ``hd95_mm`` (the larger of
        the two directed 95th percentiles of the surface distances), ``assd_mm`` (mean of the surface distances in both
        directions), ``label_volume_ml``, ``prediction_volume_ml``, ``missed`` and ``spurious``. The module's table
        says what empty labels get.

    Raises:
        ValueError: when the shapes differ or are not three-dimensional, when values are not whole numbers, or when
            ``spacing`` is not three positive numbers.
    """
    spacing = _checked_spacing(spacing)
    predicted, truth = _label_map(prediction, "prediction"), _label_map(label, "label")
    if predicted.shape != truth.shape:
        raise ValueError(
            f"prediction and label must have the same shape, got {tuple(predicted.shape)} and {tuple(truth.shape)}. "
            "Bring both to the same geometry, for example with monai.transforms.Invertd on both."
        )
    return [
        {"label": name, **_label_metrics(_union(predicted, ids), _union(truth, ids), spacing)}
        for name, ids in label_ids(labels).items()
    ]


def _label_metrics(predicted: torch.Tensor, truth: torch.Tensor, spacing: Sequence[float]) -> dict[str, float | bool]:
    """Measure one label from two boolean masks (*spatial)."""
    voxel_ml = math.prod(spacing) / 1000.0
    predicted_voxels, truth_voxels = int(predicted.sum()), int(truth.sum())
    dice, hd95, assd = math.nan, math.nan, math.nan
    if predicted_voxels and truth_voxels:
        dice, hd95, assd = _overlap(predicted, truth, spacing)
    elif predicted_voxels or truth_voxels:
        dice = 0.0
    return {
        "dice": dice,
        "hd95_mm": hd95,
        "assd_mm": assd,
        "label_volume_ml": truth_voxels * voxel_ml,
        "prediction_volume_ml": predicted_voxels * voxel_ml,
        "missed": truth_voxels > 0 and predicted_voxels == 0,
        "spurious": predicted_voxels > 0 and truth_voxels == 0,
    }


def _overlap(predicted: torch.Tensor, truth: torch.Tensor, spacing: Sequence[float]) -> tuple[float, float, float]:
    """Dice, HD95 (mm) and ASSD (mm) of two masks that both hold something."""
    box = _bounding_box(predicted | truth)
    y_pred, y = predicted[box][None, None], truth[box][None, None]
    with warnings.catch_warnings():
        # MONAI 1.6 passes its own deprecated argument
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*", category=FutureWarning)
        dice = compute_dice(y_pred, y, include_background=True)
        hd95 = compute_hausdorff_distance(y_pred, y, include_background=True, percentile=95, spacing=spacing)
        assd = compute_average_surface_distance(y_pred, y, include_background=True, symmetric=True, spacing=spacing)
    return float(dice), float(hd95), float(assd)


def _bounding_box(mask: torch.Tensor) -> tuple[slice, ...]:
    """Slices around the voxels of ``mask``, which must hold some, with the margin."""
    box = []
    for axis, size in enumerate(mask.shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = mask.any(dim=others).nonzero()
        box.append(slice(max(int(occupied[0]) - _MARGIN, 0), min(int(occupied[-1]) + 1 + _MARGIN, size)))
    return tuple(box)


def _union(label_map: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    mask = label_map == ids[0]
    for other in ids[1:]:
        mask |= label_map == other
    return mask


def _label_map(values: torch.Tensor, name: str) -> torch.Tensor:
    """Return a label map as a plain CPU tensor (*spatial)."""
    shape = tuple(values.shape)
    if len(shape) == 4 and shape[0] == 1:
        values = values[0]
    elif len(shape) != 3:
        raise ValueError(
            f"{name} must be a label map of shape (1, X, Y, Z) or (X, Y, Z), got {shape}. "
            "Take argmax over the channels first, keeping one."
        )
    plain = torch.as_tensor(values.detach().cpu().numpy())
    if plain.is_floating_point() and not torch.equal(plain, plain.round()):
        raise ValueError(f"{name} must hold whole label ids, got fractions. Take argmax over the channels first.")
    return plain


def _checked_spacing(spacing: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(value) for value in spacing)
    if len(values) != 3 or not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"spacing must be three positive numbers in mm, one per spatial axis, got {tuple(spacing)}.")
    return values
