"""What augmentation may do to a volume: rotate it within thick slices only, and never mirror labels with sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monai.transforms import (
    Compose,
    Flip,
    Flipd,
    RandAxisFlip,
    RandAxisFlipd,
    RandFlip,
    RandFlipd,
)

__all__ = ["mirrored_axes", "rotation_range"]

_THICK = 3.0  # ratio of voxel edges from which slices count as thick, as in nnU-Net


def rotation_range(axis: int, spacing: Sequence[float], degrees: float = 30.0) -> float:
    """Return the largest angle, in radians, by which a volume may be rotated about a spatial axis.

    It is 0 where the rotation would mix thick slices: about any axis but theirs, once a voxel is more than three times
    as long along one axis as along another.

    Args:
        axis: spatial axis to rotate about.
        spacing: voxel edges in mm, one for each spatial axis.
        degrees: the angle where slices are not thick.

    Example:
        >>> rotation_range(2, spacing=(1.0, 1.0, 5.0), degrees=180)
        3.141592653589793
        >>> rotation_range(0, spacing=(1.0, 1.0, 5.0), degrees=180)
        0.0
    """
    thick = max(spacing) > _THICK * min(spacing)
    return 0.0 if thick and spacing[axis] < max(spacing) else degrees * 3.141592653589793 / 180


def mirrored_axes(transforms: Any, num_axes: int) -> set[int]:
    """Return the spatial axes along which any of the transforms may mirror.

    Args:
        transforms: a transform, a ``Compose``, or lists and dictionaries of these.
        num_axes: number of spatial axes of the volumes.

    Example:
        >>> from monai.transforms import Compose, RandFlipd, RandGaussianNoised
        >>> transforms = Compose([RandFlipd("image", spatial_axis=-1), RandGaussianNoised("image")])
        >>> mirrored_axes(transforms, num_axes=3)
        {2}
    """
    return {axis for transform in _single_transforms(transforms) for axis in _flipped_axes(transform, num_axes)}


def _single_transforms(transforms: Any) -> Iterator[Any]:
    if isinstance(transforms, Compose):
        transforms = transforms.transforms
    if isinstance(transforms, Mapping):
        transforms = list(transforms.values())
    if isinstance(transforms, (list, tuple)):
        for transform in transforms:
            yield from _single_transforms(transform)
    else:
        yield transforms


def _flipped_axes(transform: Any, num_axes: int) -> set[int]:
    if isinstance(transform, (RandAxisFlip, RandAxisFlipd)):  # along any one of them
        return set(range(num_axes))
    if not isinstance(transform, (Flip, RandFlip, Flipd, RandFlipd)):
        return set()
    flipper = transform if isinstance(transform, Flip) else transform.flipper
    axes = flipper.spatial_axis
    if axes is None:
        return set(range(num_axes))
    return {axis % num_axes for axis in ([axes] if isinstance(axes, int) else axes)}
