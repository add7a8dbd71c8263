"""Label maps on the scan's grid, against MONAI's way by full-size probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CropForegroundd,
    DivisiblePadd,
    Invertd,
    Orientationd,
    Spacingd,
)
from torch import nn

from medcontext.inferers import AveragingInferer
from medcontext.scans import InvertToLabelMapd, ScanProbabilities, grids, on_grid

SHAPE = (41, 36, 23)
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
CODES = {"axes": ("RAS", (1.5, 1.5, 2.0)), "depth first": ("SPL", (2.0, 1.5, 1.5)), "finer": ("LIP", (0.6, 1.1, 0.7))}


def affine(kind: str = "oblique") -> np.ndarray:
    """Voxels of 0.8 × 1.1 × 3 mm, oblique or along the axes, with the file's axes in another order."""
    result = np.eye(4)
    result[:3, :3] = ROTATION @ np.diag([0.8, 1.1, 3]) if kind == "oblique" else np.diag([-0.8, 1.1, 3])[[2, 0, 1]]
    result[:3, 3] = -20, 13, 5
    return result


def preprocessing(codes: str, spacing: tuple[float, ...], *others: Any, **options: Any) -> Compose:
    steps = [Orientationd("image", axcodes=codes, labels=None), Spacingd("image", pixdim=spacing, **options), *others]
    return Compose(steps)


def transformed(transform: Compose, kind: str = "oblique") -> MetaTensor:
    torch.manual_seed(0)
    image = torch.zeros(1, *SHAPE)
    image[:, 5:-5, 4:-6, 3:-2] = torch.rand(1, 31, 26, 18)
    meta = {"filename_or_obj": "scan.nii.gz", "original_affine": affine(kind)}
    result: MetaTensor = transform({"image": MetaTensor(image, affine=torch.as_tensor(affine(kind)), meta=meta)})[
        "image"
    ]
    return result


def smooth_logits(image: torch.Tensor, classes: int = 5) -> torch.Tensor:
    """Logits of blobs, some voxels large, with every class the winner somewhere."""
    coarse = torch.randn(1, classes, *(max(size // 5, 2) for size in image.shape[1:]))
    return nn.functional.interpolate(4 * coarse, image.shape[1:], mode="trilinear")[0]


def by_monai(logits: torch.Tensor, image: MetaTensor, transform: Compose) -> tuple[MetaTensor, MetaTensor]:
    """Label map and probabilities by full-size probabilities of all classes."""
    steps = [
        Activationsd("pred", softmax=True),
        Invertd("pred", transform, orig_keys="image", nearest_interp=False, to_tensor=True),
    ]
    inverted = Compose(steps)({"pred": MetaTensor(logits), "image": image})
    return AsDiscreted("pred", argmax=True)(inverted)["pred"], inverted["pred"]


def assert_equal(logits: torch.Tensor, image: MetaTensor, transform: Compose) -> None:
    expected, probabilities = by_monai(logits, image, transform)
    result = InvertToLabelMapd("pred", transform, probabilities_key="probabilities")({"pred": logits, "image": image})
    label_map = result["pred"]
    assert label_map.shape == (1, *SHAPE)
    assert label_map.dtype == torch.uint8
    assert (label_map == expected).float().mean() >= 0.9999
    assert len(label_map.unique()) >= len(logits) - 1
    np.testing.assert_allclose(label_map.affine, affine_of(expected), atol=1e-9)
    assert label_map.meta["filename_or_obj"] == "scan.nii.gz"
    assert not label_map.applied_operations
    torch.testing.assert_close(torch.stack(list(result["probabilities"])), probabilities.as_tensor(), atol=1e-5, rtol=0)


def affine_of(volume: MetaTensor) -> np.ndarray:
    return np.asarray(volume.affine)


@pytest.mark.parametrize("kind", ["oblique", "permuted"])
@pytest.mark.parametrize(("codes", "slab"), [("axes", 1), ("depth first", 1 << 30), ("finer", 1 << 12)])
def test_reoriented_and_resampled_scans(monkeypatch: pytest.MonkeyPatch, kind: str, codes: str, slab: int) -> None:
    monkeypatch.setitem(grids.SLAB_VOXELS, "cpu", slab)
    transform = preprocessing(*CODES[codes])
    image = transformed(transform, kind)
    assert ScanProbabilities(image, image, transform).grid_map is not None
    assert_equal(smooth_logits(image), image, transform)


@pytest.mark.parametrize(
    ("others", "options"),
    [
        ([CropForegroundd("image", source_key="image", allow_smaller=True)], {}),
        ([DivisiblePadd("image", k=16)], {}),
        ([], {"diagonal": True}),
        ([], {"padding_mode": "zeros"}),
        ([], {"mode": 3, "padding_mode": "nearest"}),
    ],
    ids=["crop", "pad", "axes that are not parallel", "zeros outside", "splines"],
)
def test_other_transforms_are_inverted_class_by_class(others: list[Any], options: dict[str, Any]) -> None:
    transform = preprocessing("RAS", (1.5, 1.5, 2.0), *others, **options)
    image = transformed(transform)
    assert ScanProbabilities(image, image, transform).grid_map is None
    assert_equal(smooth_logits(image), image, transform)


def test_mirrored_views_of_a_network() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1))
    transform = preprocessing("SPL", (2.0, 1.5, 1.5))
    image = transformed(transform)
    inferer = AveragingInferer([16] * 3, 4, 0.5, mode="gaussian", flips=["R", "A"], orientation="SPL")
    with torch.no_grad():
        logits = inferer(image[None], network)[0]
    assert_equal(20 * (logits - logits.mean((1, 2, 3), keepdim=True)), image, transform)


def test_a_scan_that_nothing_was_done_to() -> None:
    image = MetaTensor(torch.rand(1, *SHAPE), affine=torch.as_tensor(affine()))
    logits = smooth_logits(image).half()
    label_map = InvertToLabelMapd("pred", Compose([]))({"pred": logits, "image": image})["pred"]
    torch.testing.assert_close(label_map.as_tensor(), logits.argmax(0, keepdim=True).to(torch.uint8))


def test_more_classes_than_a_byte_holds() -> None:
    image = MetaTensor(torch.rand(1, 2, 3, 50), affine=torch.eye(4))
    logits = nn.functional.one_hot(torch.arange(300).view(2, 3, 50)).movedim(-1, 0) * 20.0
    label_map = InvertToLabelMapd("pred", Compose([]))({"pred": logits, "image": image})["pred"]
    torch.testing.assert_close(label_map.as_tensor().flatten(), torch.arange(300, dtype=torch.int16))


def test_what_cannot_be_inverted() -> None:
    image = MetaTensor(torch.rand(1, 4, 4, 4), affine=torch.eye(4))
    with pytest.raises(ValueError, match="transform must be invertible, such as a Compose, got AsDiscreted"):
        InvertToLabelMapd("pred", AsDiscreted("pred", argmax=True))
    with pytest.raises(ValueError, match=r"returns \(2, 2, 2\) voxels for an image of \(4, 4, 4\); give a network"):
        InvertToLabelMapd("pred", Compose([]))({"pred": torch.rand(3, 2, 2, 2), "image": image})


def test_a_volume_on_another_grid() -> None:
    volume = MetaTensor(torch.arange(6.0).view(1, 1, 1, 6), affine=torch.eye(4))
    shifted = np.diag([1, 1, -2.0, 1])
    shifted[2, 3] = 4.5
    moved = on_grid(volume, (1, 1, 3), shifted)  # voxels at 4.5, 2.5 and 0.5
    torch.testing.assert_close(moved.as_tensor().flatten(), torch.tensor([4.5, 2.5, 0.5]))
    np.testing.assert_array_equal(moved.affine, shifted)


def test_a_volume_that_is_there_but_for_rounding_is_not_changed() -> None:
    volume = MetaTensor(torch.rand(1, *SHAPE), affine=torch.as_tensor(affine().round(4)))
    torch.testing.assert_close(on_grid(volume, SHAPE, affine()).as_tensor(), volume.as_tensor(), rtol=0, atol=0)


def test_axes_that_are_not_parallel() -> None:
    volume = MetaTensor(torch.full((1, *SHAPE), 7.0), affine=torch.as_tensor(affine()))
    moved = on_grid(volume, (5, 4, 3), affine("permuted"))
    torch.testing.assert_close(moved.as_tensor(), torch.full((1, 5, 4, 3), 7.0))
