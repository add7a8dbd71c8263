"""Our metrics against published implementations, on hundreds of masks, ordinary and adversarial.

MedPy gives Dice, ASSD, and the published HD95; SimpleITK gives contours and distance maps, from which HD95 in mm
follows; DeepMind's ``surface-distance`` is the reference implementation of the surface Dice. None is used at runtime.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk  # noqa: N813  (as its documentation does)
import surface_distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medpy.metric import binary
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import gaussian_filter

from medcontext.metrics import PROTOCOLS, case_metrics

Mask = npt.NDArray[np.bool_]
Shape = tuple[int, int, int]
Pair = tuple[Mask, Mask]

SEEDS = 30


def blob(rng: np.random.Generator, shape: Shape, share: float = 0.4) -> Mask:
    smooth = gaussian_filter(rng.random(shape), 1.5)
    return smooth >= np.quantile(smooth, 1 - share)


def box(rng: np.random.Generator, shape: Shape) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*sorted(rng.choice(size + 1, 2, replace=False))) for size in shape)] = True
    return mask


def voxel(rng: np.random.Generator, shape: Shape) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(rng.integers(size) for size in shape)] = True
    return mask


def plate(rng: np.random.Generator, shape: Shape) -> Mask:
    axis = rng.integers(3)
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(rng.integers(size) if i == axis else slice(None) for i, size in enumerate(shape))] = True
    return mask & (rng.random(shape) < 0.9)


def blobs(rng: np.random.Generator, shape: Shape) -> Pair:
    return blob(rng, shape), blob(rng, shape)


def shifted(rng: np.random.Generator, shape: Shape) -> Pair:
    truth = blob(rng, shape)
    return np.roll(truth, rng.integers(-2, 3, 3), axis=(0, 1, 2)), truth


def nested(rng: np.random.Generator, shape: Shape) -> Pair:
    outer = blob(rng, shape, 0.6)
    return outer, outer & blob(rng, shape, 0.7)


def disjoint(rng: np.random.Generator, shape: Shape) -> Pair:
    first = blob(rng, shape, 0.2)
    return first, blob(rng, shape, 0.3) & ~first


def borders(rng: np.random.Generator, shape: Shape) -> Pair:
    first, second = box(rng, shape), box(rng, shape)
    first[0], second[:, -1] = True, True
    return first, second


def speckled(rng: np.random.Generator, shape: Shape) -> Pair:
    truth = box(rng, shape)
    return truth | (rng.random(shape) < 0.01), truth


def checkerboard(rng: np.random.Generator, shape: Shape) -> Pair:
    return np.indices(shape).sum(axis=0) % 2 == rng.integers(2), box(rng, shape)


def shell(rng: np.random.Generator, shape: Shape) -> Pair:
    radius = np.sqrt(sum((i - n / 2) ** 2 for i, n in zip(np.indices(shape), shape, strict=True)))
    thick = rng.uniform(1, 3)
    return abs(radius - 3) < thick, radius < 3


PAIRS: dict[str, Callable[[np.random.Generator, Shape], Pair]] = {
    "blobs": blobs,
    "shifted": shifted,
    "nested": nested,
    "disjoint": disjoint,
    "borders": borders,
    "speckled": speckled,
    "checkerboard": checkerboard,
    "shell": shell,
    "noise": lambda rng, shape: (rng.random(shape) < 0.3, rng.random(shape) < 0.3),
    "single voxels": lambda rng, shape: (voxel(rng, shape), voxel(rng, shape)),
    "plates": lambda rng, shape: (plate(rng, shape), plate(rng, shape)),
    "full": lambda rng, shape: (np.ones(shape, dtype=bool), blob(rng, shape)),
    "equal": lambda rng, shape: (blob(rng, shape),) * 2,
    "missed": lambda rng, shape: (np.zeros(shape, dtype=bool), blob(rng, shape)),
    "spurious": lambda rng, shape: (blob(rng, shape), np.zeros(shape, dtype=bool)),
    "absent": lambda rng, shape: (np.zeros(shape, dtype=bool),) * 2,
}


def measured(
    predicted: Mask, truth: Mask, spacing: tuple[float, ...], tolerance: float, protocol: str = "paper"
) -> dict[str, float]:
    volumes = (torch.as_tensor(mask.astype(np.uint8)) for mask in (predicted, truth))
    (row,) = case_metrics(*volumes, {"x": 1}, spacing, surface_tolerance_mm=tolerance, protocol=protocol)
    return {name: float(value) for name, value in row.items() if name != "label"}


def itk_distances(mask: Mask, other: Mask, spacing: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Distances in mm from the contour of one mask to that of another, by ITK."""
    contours = []
    for array in (mask, other):
        image = sitk.GetImageFromArray(np.pad(array, 1).astype(np.uint8))
        image.SetSpacing(spacing[::-1])
        contours.append(sitk.LabelContour(image, fullyConnected=False))
    distances = sitk.SignedMaurerDistanceMap(contours[1], squaredDistance=False, useImageSpacing=True)
    on_contour = sitk.GetArrayFromImage(contours[0]) > 0
    return np.abs(sitk.GetArrayFromImage(distances)[on_contour]).astype(np.float64)


def expected(predicted: Mask, truth: Mask, spacing: tuple[float, ...], tolerance: float) -> dict[str, float]:
    """Every column by somebody else's code; what these leave open for empty masks is written out."""
    voxel_ml = spacing[0] * spacing[1] * spacing[2] / 1000
    dice = binary.dc(predicted, truth) if predicted.any() or truth.any() else math.nan
    values = {
        "label_volume_ml": float(truth.sum() * voxel_ml),
        "prediction_volume_ml": float(predicted.sum() * voxel_ml),
        "missed": float(truth.any() and not predicted.any()),
        "spurious": float(predicted.any() and not truth.any()),
        "dice": dice,
        "paper_dice": 1.0 if math.isnan(dice) else dice,
    }
    if not predicted.any() or not truth.any():
        nothing = {"surface_dice": values["dice"], "hd95_mm": math.nan, "assd_mm": math.nan, "paper_hd95_voxels": 0.0}
        return values | nothing
    directed = itk_distances(predicted, truth, spacing), itk_distances(truth, predicted, spacing)
    surfaces = surface_distance.compute_surface_distances(truth, predicted, spacing)
    return values | {
        "surface_dice": surface_distance.compute_surface_dice_at_tolerance(surfaces, tolerance),
        "hd95_mm": max(np.percentile(distances, 95) for distances in directed),
        "assd_mm": binary.assd(predicted, truth, voxelspacing=spacing),
        "paper_hd95_voxels": binary.hd95(predicted, truth),
    }


def check(predicted: Mask, truth: Mask, spacing: tuple[float, ...], tolerance: float) -> None:
    ours, theirs = measured(predicted, truth, spacing, tolerance), expected(predicted, truth, spacing, tolerance)
    assert ours.keys() == theirs.keys()
    for name in ours:
        precision = 1e-5 if name in ("hd95_mm", "surface_dice") else 1e-12  # ITK and MONAI's areas are float32
        assert ours[name] == pytest.approx(theirs[name], rel=precision, abs=precision, nan_ok=True), name


@pytest.mark.parametrize("kind", PAIRS)
def test_every_column_agrees(kind: str) -> None:
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        shape = tuple(int(size) for size in rng.integers(4, 15, 3))
        spacing = tuple(float(size) for size in rng.uniform(0.4, 5, 3)) if seed % 3 else (1.0, 1.0, 1.0)
        predicted, truth = PAIRS[kind](rng, shape)
        check(predicted, truth, spacing, tolerance=float(rng.uniform(0.2, 4)))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    masks=arrays(bool, st.tuples(st.just(2), *[st.integers(1, 5)] * 3)),
    spacing=st.tuples(*[st.sampled_from([0.31, 0.78125, 1.0, 1.5, 2.9, 10.0])] * 3),
)
def test_every_column_agrees_on_small_volumes(masks: npt.NDArray[np.bool_], spacing: tuple[float, ...]) -> None:
    check(masks[0], masks[1], spacing, tolerance=1.234)


@pytest.mark.parametrize("kind", ["blobs", "borders", "plates", "speckled"])
def test_monai_computes_the_same(kind: str) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        masks, spacing = PAIRS[kind](rng, (9, 12, 7)), (0.8, 1.3, 4.0)
        pair = [torch.as_tensor(mask)[None, None] for mask in masks]
        ours = measured(*masks, spacing, tolerance=2.0)
        hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
        dice = compute_surface_dice(*pair, [2.0], include_background=True, spacing=spacing, use_subvoxels=True)
        assert ours["hd95_mm"] == pytest.approx(hd95.item(), rel=1e-5)
        assert ours["surface_dice"] == pytest.approx(dice.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["blobs", "missed", "spurious", "absent"])
def test_protocols_differ_where_their_tables_do(kind: str) -> None:
    predicted, truth = PAIRS[kind](np.random.default_rng(0), (8, 9, 10))
    rows = {name: measured(predicted, truth, (1.0, 1.0, 3.0), 2.0, name) for name in PROTOCOLS}
    assert rows["paper_unetr"]["paper_dice"] == pytest.approx(unetr_dice(predicted, truth))
    for name in ("paper", "paper_unetr"):
        own = {column: value for column, value in rows[name].items() if not column.startswith("paper")}
        np.testing.assert_equal(own, rows["default"])
        assert rows[name]["paper_hd95_voxels"] == rows["paper"]["paper_hd95_voxels"]


def unetr_dice(predicted: Mask, truth: Mask) -> float:
    """As the UNETR script of the published code defines it: 0 wherever the label is empty."""
    return binary.dc(predicted, truth) if truth.any() else 0.0
