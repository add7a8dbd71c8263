from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import (
    Compose,
    Flip,
    Flipd,
    OneOf,
    RandAxisFlip,
    RandAxisFlipd,
    RandFlip,
    RandFlipd,
    RandGaussianNoised,
    RandRotate90d,
    RandRotated,
)

from medcontext.transforms import mirrored_axes, rotation_range


@pytest.mark.parametrize(
    ("transforms", "axes"),
    [
        ([], set()),
        (None, set()),
        (RandFlipd("image", spatial_axis=0), {0}),
        (RandFlipd("image", spatial_axis=[0, 2]), {0, 2}),
        (RandFlipd("image", spatial_axis=-1), {2}),
        (RandFlipd("image"), {0, 1, 2}),
        ([RandFlip(spatial_axis=1), Flip(0)], {0, 1}),
        (Flipd("image", (1, 2)), {1, 2}),
        (RandAxisFlipd("image"), {0, 1, 2}),
        (RandAxisFlip(), {0, 1, 2}),
        ([None, RandFlipd("image", spatial_axis=2)], {2}),  # a transform that is disabled leaves nothing or None
        (Compose([RandGaussianNoised("image"), Compose([RandFlipd("image", spatial_axis=1)])]), {1}),
        (OneOf([RandFlipd("image", spatial_axis=0), RandFlipd("image", spatial_axis=1)]), {0, 1}),
        ({"spatial": [RandFlipd("image", spatial_axis=0)], "intensity": [RandGaussianNoised("image")]}, {0}),
        ([RandRotate90d("image"), RandRotated("image", range_x=3.2)], set()),  # turned, not mirrored
    ],
)
def test_axes_along_which_images_are_mirrored(transforms: Any, axes: set[int]) -> None:
    assert mirrored_axes(transforms, 3) == axes


@pytest.mark.parametrize(
    ("spacing", "degrees"),
    [
        ((1.5, 1.5, 2.0), [30, 30, 30]),
        ((1.0, 1.0, 3.0), [30, 30, 30]),
        ((1.5, 1.5, 10.0), [0, 0, 30]),
        ((10.0, 1.5, 1.5), [30, 0, 0]),
    ],
)
def test_thick_slices_are_turned_within_their_plane_alone(spacing: tuple[float, ...], degrees: list[int]) -> None:
    assert [rotation_range(axis, spacing) for axis in range(3)] == pytest.approx(list(np.deg2rad(degrees)))
    assert rotation_range(0, spacing, degrees=10) == pytest.approx(np.deg2rad(degrees[0]) / 3)


def test_a_mirrored_axis_is_one_that_the_transform_moves() -> None:
    image = torch.arange(8.0).view(1, 2, 2, 2)
    for axis in range(3):
        flip = RandFlip(prob=1.0, spatial_axis=axis)
        torch.testing.assert_close(flip(image).as_tensor(), image.flip(axis + 1))
        assert mirrored_axes(flip, 3) == {axis}
