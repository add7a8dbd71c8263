"""The rules by themselves; that every network keeps to them is in test_contract.py."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from monai.networks.nets import UNETR, SwinUNETR

from medcontext.networks.sizes import check_crop_size, check_image_size, check_multiples


@pytest.mark.parametrize(
    ("size", "divisor", "least", "nearest"),
    [
        (30, 16, 16, 32),
        (25, 16, 16, 32),
        (24, 16, 16, 16),  # as near to 32
        (23, 16, 16, 16),
        (7, 3, 3, 6),
        (8, 3, 3, 9),
        (28, 4, 32, 32),
        (0, 1, 1, 1),
        (-16, 16, 16, 16),
    ],
)
def test_the_nearest_legal_size(size: int, divisor: int, least: int, nearest: int) -> None:
    message = f"crop along axis 1 must be a multiple of {divisor} and at least {least}, got {size}; .* is {nearest}\\."
    with pytest.raises(ValueError, match=message):
        check_multiples("crop", (96, size), (1, divisor), (1, least))
    check_multiples("crop", (96, nearest), (1, divisor), (1, least))


def test_the_number_of_axes() -> None:
    with pytest.raises(ValueError, match=r"crop needs 3 numbers, one for each spatial axis, got \(32, 32\)"):
        check_multiples("crop", (32, 32), (16, 16, 16), (16, 16, 16))


@pytest.mark.parametrize(
    ("size", "axes"), [((8, 4, 8), "axis 1"), ((4, 8, 4), "axis 0, 2"), ((8, 8), "axis 2"), ((8, 8, 8, 8), "axis 3")]
)
def test_images_of_another_size(size: tuple[int, ...], axes: str) -> None:
    message = f"has {size} voxels, this network takes (8, 8, 8) only; they differ along {axes}. Crop or pad"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_image_size(size, (8, 8, 8))


def swin_unetr(**arguments: Any) -> SwinUNETR:
    return SwinUNETR(1, 2, feature_size=12, depths=(1,) * 4, num_heads=(1,) * 4, **arguments)


def test_instance_norm_needs_two_voxels_at_the_deepest_stage() -> None:
    network = swin_unetr()
    message = r"longer than 32 along at least one axis, got \[32, 32, 32\].*use 64 along axis 0"
    with pytest.raises(ValueError, match=message):
        check_crop_size(network, [32, 32, 32])
    with pytest.raises(ValueError, match="more than 1 spatial element"):  # what it is spared from
        network(torch.zeros(1, 1, 32, 32, 32))
    check_crop_size(network, [32, 32, 64])
    check_crop_size(swin_unetr(norm_name="batch"), [32, 32, 32])


def test_images_of_two_axes() -> None:
    with pytest.raises(ValueError, match="roi_size along axis 1 must be a multiple of 32 .*got 40; .* size is 32"):
        check_crop_size(swin_unetr(spatial_dims=2), [64, 40])
    unetr = UNETR(1, 2, 32, feature_size=4, hidden_size=24, mlp_dim=48, num_heads=2, spatial_dims=2)
    check_crop_size(unetr, [32, 32])
    with pytest.raises(ValueError, match=r"needs 2 numbers, one for each spatial axis, got \(32, 32, 32\)"):
        check_crop_size(unetr, (32, 32, 32))
    with pytest.raises(ValueError, match=r"has \(48, 32\) voxels, .* takes \(32, 32\) only; .* axis 0"):
        check_crop_size(unetr, [48, 32])


def test_other_networks_check_themselves() -> None:
    check_crop_size(torch.nn.Conv3d(1, 1, 3), [5, 5, 5])
