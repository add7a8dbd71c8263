"""Image sizes that a network takes; every error names the axis, the rule and the nearest valid size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import zip_longest
from math import prod
from typing import Any

import torch
from monai.networks.nets import UNETR, SwinUNETR
from monai.utils import ensure_tuple_rep
from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm

__all__ = [
    "check_crop_size",
    "check_image_size",
    "check_multiples",
    "check_strided_size",
    "crop_divisors",
    "stride_products",
]


def check_multiples(name: str, sizes: Sequence[int], divisors: Sequence[int], least: Sequence[int]) -> None:
    """Refuse sizes that are not multiples of their divisors, or are too short.

    Args:
        name: name of the argument that holds these sizes.
        sizes: voxels along each spatial axis.
        divisors: one for each axis.
        least: the shortest valid size of each axis, itself a multiple.

    Raises:
        ValueError: If a size is invalid; names the axis, the divisor and the nearest valid size, the shorter of two.
    """
    if len(sizes) != len(divisors):
        raise ValueError(f"{name} needs {len(divisors)} numbers, one for each spatial axis, got {tuple(sizes)}.")
    for axis, (size, divisor, shortest) in enumerate(zip(sizes, divisors, least, strict=True)):
        if size < shortest or size % divisor:
            nearest = max((size + (divisor - 1) // 2) // divisor * divisor, shortest)
            raise ValueError(
                f"{name} along axis {axis} must be a multiple of {divisor} and at least {shortest}, got {size}; "
                f"the nearest valid size is {nearest}."
            )


def check_image_size(size: Sequence[int], img_size: Sequence[int]) -> None:
    """Refuse an image of another size than the network was built for, except while TorchScript traces it.

    Args:
        size: voxels along each spatial axis of the image.
        img_size: those that the network takes.

    Raises:
        ValueError: If the sizes differ; names the axes.
    """
    # while tracing sizes are unknown; PyTorch's list of exports lacks the function
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
    if not tracing and tuple(size) != tuple(img_size):
        axes = [str(axis) for axis, (got, expected) in enumerate(zip_longest(size, img_size)) if got != expected]
        raise ValueError(
            f"The image has {tuple(size)} voxels, this network takes {tuple(img_size)} only; they differ along axis "
            f"{', '.join(axes)}. Crop or pad it, use sliding windows, or build the network with another img_size."
        )


def check_strided_size(name: str, size: Sequence[int], divisors: Sequence[int]) -> None:
    """Refuse a size that a network with instance norms cannot halve at all its stages, except while it is traced.

    Args:
        name: what has this size.
        size: voxels along each spatial axis.
        divisors: one for each axis, the product of the strides.

    Raises:
        ValueError: If an axis is no multiple, or one voxel would be left at the deepest stage; names the axis.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return
    check_multiples(name, size, divisors, divisors)
    if prod(size) == prod(divisors):
        raise ValueError(
            f"{name} must be longer than {divisors[0]} along at least one axis, got {list(size)}: instance norm cannot "
            f"normalise the single voxel that remains of it; use {2 * divisors[0]} along axis 0."
        )


def check_crop_size(network: nn.Module, roi_size: Sequence[int]) -> None:
    """Refuse a crop size that MONAI's UNETR or SwinUNETR accepts at construction and fails on later.

    Other networks are not checked: ours check their sizes themselves.

    Args:
        network: the plain network.
        roi_size: voxels along each spatial axis of the crops.

    Raises:
        ValueError: If a size is invalid; names the axis, the divisor and the nearest valid size.
    """
    if isinstance(network, UNETR):
        check_multiples("roi_size", roi_size, network.patch_size, network.patch_size)
        built_for = [tokens * patch for tokens, patch in zip(network.feat_size, network.patch_size, strict=True)]
        check_image_size(roi_size, built_for)
    elif isinstance(network, SwinUNETR):
        divisors = [patch**5 for patch in ensure_tuple_rep(network.patch_size, len(roi_size))]
        instance_norm = any(isinstance(part, _InstanceNorm) for part in network.encoder10.modules())
        check = check_strided_size if instance_norm else partial(check_multiples, least=divisors)
        check("roi_size", roi_size, divisors)


def stride_products(strides: Sequence[int | Sequence[int]]) -> tuple[int, int, int]:
    """Return the product of strides along each of three axes.

    Example:
        >>> stride_products([1, (1, 2, 2), 2])
        (2, 4, 4)
    """
    first, second, third = (prod(steps) for steps in zip(*(ensure_tuple_rep(step, 3) for step in strides), strict=True))
    return (first, second, third)


def crop_divisors(definition: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return voxels for each axis, of which a network of one of the bundles takes every multiple.

    Args:
        definition: ``_target_`` and arguments of UNETR, SwinUNETR, nnFormer, UNETR++ or the residual encoder U-Net.

    Raises:
        ValueError: If it is another network.

    Example:
        >>> crop_divisors({"_target_": "medcontext.networks.NNFormer", "patch_size": [2, 4, 4], "depths": [2, 2, 2, 2]})
        (16, 32, 32)
    """
    kind = str(definition["_target_"]).rpartition(".")[2]
    if kind == "UNETR":
        return (16, 16, 16)  # MONAI's only patch
    patch: tuple[int, int, int] = ensure_tuple_rep(definition.get("patch_size", 2), 3)
    if kind == "SwinUNETR":
        return (patch[0] ** 5, patch[1] ** 5, patch[2] ** 5)
    if kind == "ResidualEncoderUNet":
        stages = len(definition.get("features_per_stage", range(6)))
        return stride_products(definition.get("strides", [1] + [2] * (stages - 1)))
    if kind not in ("NNFormer", "UNETRPlusPlus"):
        raise ValueError(f"The crops that {kind} takes are not known; set roi_size yourself.")
    mergings = len(definition["depths"]) - 1
    return stride_products([patch, *definition.get("merging_strides", [2] * mergings)])
