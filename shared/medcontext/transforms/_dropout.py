"""What organ dropout and patch dropout share: argument checks, cell grids, filling, and the dictionary wrapper."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Randomizable, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from monai.utils.enums import TransformBackends
from numpy.typing import NDArray

__all__ = [
    "FILLS",
    "BoolArray",
    "ContextDropout",
    "ContextDropoutd",
    "cell_edges",
    "check_choice",
    "check_fraction",
    "check_integer",
    "check_integers",
    "check_not_negative",
    "nearest",
    "per_axis",
    "pool",
    "spread",
]

BoolArray = NDArray[np.bool_]

FILLS = ("zero", "mean", "noise")


def check_choice(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``allowed``.

    Raises:
        ValueError: When it is not.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}: choose one of these.")
    return value


def check_fraction(name: str, value: float, *, above_zero: bool = False) -> float:
    """Return ``value`` if it lies in [0, 1], or in (0, 1] with ``above_zero``.

    Raises:
        TypeError: When it is not a number.
        ValueError: When it lies outside.
    """
    _check_number(name, value)
    if not 0 <= value <= 1 or (above_zero and value == 0):
        interval = "(0, 1]" if above_zero else "[0, 1]"
        raise ValueError(f"{name} must lie in {interval}, got {value}: give a share, such as 0.4 for 40 %.")
    return float(value)


def check_integers(
    name: str, value: int | Sequence[int], *, minimum: int, remedy: str = "give voxels, such as 8 or (8, 8, 4)"
) -> int | tuple[int, ...]:
    """Return ``value``, an integer or a sequence of integers (as a tuple), if none is below ``minimum``.

    Raises:
        TypeError: When it is neither.
        ValueError: When a number is too small or the sequence is empty.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        return check_integer(name, value, minimum=minimum, remedy=remedy)
    if not value:
        raise ValueError(f"{name} must not be empty: {remedy}.")
    return tuple(check_integer(name, number, minimum=minimum, remedy=remedy) for number in value)


def check_integer(name: str, value: int, *, minimum: int, remedy: str) -> int:
    """Return ``value`` if it is one integer of at least ``minimum``.

    Raises:
        TypeError: When it is not an integer.
        ValueError: When it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}: {remedy}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}: {remedy}.")
    return int(value)


def check_not_negative(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number, 0 or more.

    Raises:
        TypeError: When it is not a number.
        ValueError: When it is negative or not finite.
    """
    _check_number(name, value)
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 or more and finite, got {value}: 0 switches it off.")
    return float(value)


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__}).")


def per_axis(name: str, value: int | tuple[int, ...], shape: Sequence[int]) -> tuple[int, ...]:
    """Return one number per axis of the spatial ``shape``.

    Raises:
        ValueError: When a sequence has another length than ``shape``.
    """
    if isinstance(value, int):
        return (value,) * len(shape)
    if len(value) != len(shape):
        raise ValueError(
            f"{name} has {len(value)} numbers, {value}, but the image has {len(shape)} spatial axes, "
            f"{tuple(shape)}: give one number per axis, or one for all."
        )
    return value


def cell_edges(shape: Sequence[int], size: Sequence[int], offset: Sequence[int]) -> list[NDArray[np.intp]]:
    """First voxel of every cell along each axis, for cells of ``size`` voxels of a grid that starts at ``offset``.

    Cells are cut at the borders, so a grid with an offset starts with a smaller cell.
    """
    return [
        np.unique(np.r_[0, np.arange(start % step, length, step)])
        for length, step, start in zip(shape, size, offset, strict=True)
    ]


def pool(voxels: NDArray[Any], edges: Sequence[NDArray[np.intp]], reduce: np.ufunc) -> NDArray[Any]:
    """Reduce ``voxels`` (spatial) to one value per cell."""
    for axis, starts in enumerate(edges):  # slab by slab: ufunc.reduceat does the same ten times slower
        slabs = np.split(voxels, starts[1:], axis=axis)
        voxels = np.stack([reduce.reduce(slab, axis=axis) for slab in slabs], axis=axis)
    return voxels


def spread(cells: NDArray[Any], edges: Sequence[NDArray[np.intp]], shape: Sequence[int]) -> NDArray[Any]:
    """Give every voxel of a ``shape`` the value of its cell."""
    for axis, starts in enumerate(edges):
        cells = np.repeat(cells, np.diff(starts, append=shape[axis]), axis=axis)
    return cells


def nearest(where: BoolArray, count: int, random: np.random.RandomState) -> BoolArray:
    """Mark the ``count`` elements of ``where`` that are nearest to a random one of them, itself among them.

    In a box, or any convex ``where``, they are connected.
    """
    chosen = np.zeros_like(where)
    members = np.flatnonzero(where)
    if count < 1 or not members.size:
        return chosen
    points = np.stack(np.unravel_index(members, where.shape)).astype(np.float32)
    seed = points[:, random.randint(members.size), None]
    if count < members.size:
        distance = np.square(points - seed).sum(axis=0)
        members = members[np.argpartition(distance, count - 1)[:count]]
    chosen.flat[members] = True
    return chosen


class ContextDropout(RandomizableTransform):
    """Base of the dropout transforms: a subclass's ``randomize`` draws the mask, this class fills what it marks.

    Args:
        fill: what dropped voxels become: ``"zero"``, ``"mean"`` or ``"noise"``.
        prob: probability that anything is dropped.

    Attributes:
        strength: within [0, 1], scales the probability and the amount that is dropped; set by a schedule.

    Raises:
        TypeError: When ``prob`` is not a number.
        ValueError: When ``fill`` is unknown or ``prob`` lies outside [0, 1].
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(self, fill: str, prob: float) -> None:
        RandomizableTransform.__init__(self, check_fraction("prob", prob))
        self.fill = check_choice("fill", fill, FILLS)
        self.strength = 1.0
        self._mask: BoolArray | None = None
        self._noise: NDArray[np.float32] | None = None

    def randomize(self, data: Any) -> None:
        """Decide whether anything is dropped."""
        self._do_transform = bool(self.R.rand() < self.prob * self.strength)

    @property
    def mask(self) -> BoolArray:
        """The mask (spatial) drawn last, True for what is dropped.

        Raises:
            ValueError: When nothing was drawn yet.
        """
        if self._mask is None:
            raise ValueError("no mask was drawn yet: call randomize or the transform with randomize=True first.")
        return self._mask

    def _keep(self, mask: BoolArray, channels: int) -> None:
        """Remember the drawn ``mask`` (spatial) and draw the noise that will fill it."""
        self._mask = mask
        if self.fill == "noise":
            self._noise = self.R.standard_normal((channels, int(mask.sum()))).astype(np.float32)

    def _apply(self, img: NdarrayOrTensor) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        """Fill the marked voxels of ``img`` (C, *spatial) and return the new image with its mask (1, *spatial)."""
        if self.mask.shape != tuple(img.shape[1:]):
            raise ValueError(
                f"the drawn mask has spatial shape {self.mask.shape} but the image {tuple(img.shape[1:])}: "
                "call with randomize=True to draw one for this image."
            )
        plain = convert_to_tensor(img, track_meta=False)
        mask = torch.from_numpy(self.mask).to(plain.device)
        masked = convert_to_dst_type(self._filled(plain, mask), img)[0]
        return masked, convert_to_dst_type(mask[None].float(), img, dtype=torch.float32)[0]

    def _filled(self, img: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.fill == "zero" or not mask.any() or mask.all():  # with nothing kept there is no mean either
            return img.masked_fill(mask, 0)
        axes = tuple(range(1, img.ndim))
        kept, count = ~mask, int((~mask).sum())
        mean = (img.float() * kept).sum(dim=axes, keepdim=True) / count
        if self.fill == "mean":
            return torch.where(mask, mean.to(img.dtype), img)
        deviation = (((img.float() - mean) * kept).square().sum(dim=axes) / count).sqrt()
        noise = torch.as_tensor(self._noise, device=img.device)
        filled = img.clone()
        filled[:, mask] = (mean.flatten(1) + deviation[:, None] * noise).to(img.dtype)
        return filled


class ContextDropoutd(Randomizable, MapTransform):
    """Base of the dictionary wrappers: one image key in, two new keys out.

    Args:
        keys: the image's key; one only, since the new keys describe one image.
        dropout: the array transform.
        masked_key: new key of the image with the context dropped.
        mask_key: new key of the context mask.
        allow_missing_keys: leave a dictionary without the image as it is instead of raising.

    Raises:
        ValueError: When ``keys`` names several images.
    """

    backend = ContextDropout.backend

    def __init__(
        self, keys: KeysCollection, dropout: ContextDropout, masked_key: str, mask_key: str, allow_missing_keys: bool
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(
                f"keys must name one image, got {self.keys}: join several as channels first (ConcatItemsd)."
            )
        self.dropout = dropout
        self.masked_key = masked_key
        self.mask_key = mask_key

    @property
    def strength(self) -> float:
        """Factor within [0, 1] of the array transform's probability and of the amount that it drops."""
        return self.dropout.strength

    @strength.setter
    def strength(self, strength: float) -> None:
        self.dropout.strength = strength

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Self:
        """Seed this transform and the array transform inside it."""
        super().set_random_state(seed, state)
        self.dropout.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a shallow copy of ``data`` with the two new keys."""
        added = dict(data)
        for key in self.key_iterator(added):
            added[self.masked_key], added[self.mask_key] = self._drop(added, key)
        return added

    def _drop(self, data: Mapping[Hashable, NdarrayOrTensor], key: Hashable) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        """Apply the array transform to the image at ``key``."""
        raise NotImplementedError(f"{type(self).__name__} must implement this method.")
