"""What organ dropout and patch dropout share: cell grids, filling, and the dictionary transform."""

from __future__ import annotations

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

from medcontext.checks import check_choice, check_fraction, check_integers

__all__ = [
    "BODY_THRESHOLD",
    "CELL_SIZE",
    "DECOY_FRACTION",
    "FILLS",
    "ORGAN_FILL",
    "EXTENTS",
    "NUM_ORGANS",
    "check_organ_count",
    "PART_PROB",
    "PART_SHARE",
    "BoolArray",
    "ContextDropout",
    "ContextDropoutd",
    "cell_edges",
    "nearest_cells",
    "per_axis",
    "pool",
    "spread",
]

BoolArray = NDArray[np.bool_]

FILLS = ("zero", "mean", "noise")

# defaults and constants of organ dropout, of single volumes and of batches
CELL_SIZE, DECOY_FRACTION, ORGAN_FILL = 8, 1.0, "mean"
EXTENTS = ("organ", "part", "both")
NUM_ORGANS = (1, 3)
PART_PROB, PART_SHARE = 0.5, (0.25, 0.75)  # how often only a part of an organ is dropped, and how much of it
BODY_THRESHOLD = 0.05  # of a crop's intensity range, above its minimum


def per_axis(name: str, value: int | tuple[int, ...], shape: Sequence[int]) -> tuple[int, ...]:
    """Return one number per axis of the spatial ``shape``.

    Raises:
        ValueError: If a sequence is not as long as ``shape``.
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
    """Return the first voxel of every cell along each axis, for cells of ``size`` voxels on a grid with an ``offset``.

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
    """Return the value of its cell for every voxel of ``shape``."""
    for axis, starts in enumerate(edges):
        cells = np.repeat(cells, np.diff(starts, append=shape[axis]), axis=axis)
    return cells


def nearest_cells(where: BoolArray, count: int, random: np.random.RandomState) -> BoolArray:
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


def check_organ_count(
    num_organs: int | Sequence[int] | None, organ_fraction: float | None
) -> tuple[tuple[int, int], float | None]:
    """Return how many organs to drop as (min, max), and the share of the crop's organs that takes its place if given.

    Raises:
        TypeError: If a number is of the wrong type.
        ValueError: If a number lies outside its range, or both are given.
    """
    if num_organs is not None and organ_fraction is not None:
        raise ValueError(
            f"num_organs and organ_fraction exclude each other, got {num_organs} and {organ_fraction}: give one."
        )
    share = None if organ_fraction is None else check_fraction("organ_fraction", organ_fraction, above_zero=True)
    remedy = "give a number or a range, such as 2 or (1, 3)"
    numbers = check_integers("num_organs", NUM_ORGANS if num_organs is None else num_organs, minimum=1, remedy=remedy)
    if isinstance(numbers, int):
        return (numbers, numbers), share
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise ValueError(
            f"num_organs must be a number or a range (min, max), got {num_organs!r}: give for example 2 or (1, 3)."
        )
    return (numbers[0], numbers[1]), share


class ContextDropout(RandomizableTransform):
    """Base of the dropout transforms: a subclass's ``randomize`` draws the mask, this class fills what it marks.

    Args:
        fill: what dropped voxels become: ``"zero"``, ``"mean"`` or ``"noise"``.
        prob: probability that anything is dropped.

    Attributes:
        strength: factor within [0, 1] of the probability and of the amount that is dropped; set by a schedule.

    Raises:
        TypeError: If ``prob`` is not a number.
        ValueError: If ``fill`` is unknown or ``prob`` lies outside [0, 1].
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
            ValueError: If none has been drawn yet.
        """
        if self._mask is None:
            raise ValueError("no mask was drawn yet: call randomize, or the transform with randomize=True, first.")
        return self._mask

    def _remember(self, mask: BoolArray, channels: int) -> None:
        """Remember the drawn ``mask`` (spatial) and draw the noise that fills it."""
        self._mask = mask
        if self.fill == "noise":
            self._noise = self.R.standard_normal((channels, int(mask.sum()))).astype(np.float32)

    def _apply(self, img: NdarrayOrTensor) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        """Fill the marked voxels of ``img`` (C, *spatial) and return the new image with its mask (1, *spatial)."""
        if self.mask.shape != tuple(img.shape[1:]):
            raise ValueError(
                f"the drawn mask has spatial shape {self.mask.shape} but the image {tuple(img.shape[1:])}: "
                "call with randomize=True to draw a mask for this image."
            )
        plain = convert_to_tensor(img, track_meta=False)
        mask = torch.from_numpy(self.mask).to(plain.device)
        masked = convert_to_dst_type(self._filled(plain), img)[0]
        return masked, convert_to_dst_type(mask[None].float(), img, dtype=torch.float32)[0]

    def _filled(self, img: torch.Tensor) -> torch.Tensor:
        dropped = torch.from_numpy(np.flatnonzero(self.mask)).to(img.device)
        voxels = img.flatten(1)
        filled = voxels.clone(memory_format=torch.contiguous_format)
        if self.fill == "zero" or len(dropped) in (0, self.mask.size):  # with nothing kept there is no mean either
            return filled.index_fill_(1, dropped, 0).view(img.shape)
        values = voxels.float()
        fill = mean = _mean_without(values, dropped)
        if self.fill == "noise":
            deviation = _mean_without((values - mean).square(), dropped).sqrt()
            fill = mean + deviation * torch.as_tensor(self._noise, device=img.device)
        filled[:, dropped] = fill.to(img.dtype).expand(-1, len(dropped))
        return filled.view(img.shape)


def _mean_without(values: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
    """Average ``values`` (C, N) over all but the ``dropped`` positions, as (C, 1)."""
    return values.index_fill(1, dropped, 0).sum(1, keepdim=True) / (values.shape[1] - len(dropped))


class ContextDropoutd(Randomizable, MapTransform):
    """Base of the dictionary transforms: one image key in, two new keys out.

    Args:
        keys: the image's key; one only, since the new keys describe one image.
        dropout: the array transform.
        masked_key: new key of the image with the context dropped.
        mask_key: new key of the context mask.
        allow_missing_keys: return a dictionary without the image as it is, instead of raising.

    Raises:
        ValueError: If ``keys`` names several images.
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
