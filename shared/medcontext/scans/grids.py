"""Interpolation between grids of voxels whose axes are parallel, in slabs that need little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch
from monai.utils import convert_to_numpy
from torch import Tensor

from medcontext.scans.geometry import corner_distance, shift_tolerance

__all__ = ["GridMap", "label_type", "on_grid", "parallel_grids"]

SLAB_VOXELS = {"cpu": 1 << 19, "cuda": 1 << 23}
"""Voxels that are interpolated at once: a few MB that a processor's cache holds, or enough to occupy a GPU."""

PARALLEL_TOLERANCE = 1e-3
"""Part of a voxel by which the far end of an axis may lie off it."""

ROUNDING = 1e-3
"""Share of a probability by which rounding cannot change it."""


@dataclass(frozen=True)
class _Axis:
    """For each voxel along an axis, its neighbours on the source's axis and the weight of the upper one."""

    lower: npt.NDArray[np.int64]
    upper: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]

    def part(self, start: int, stop: int, origin: int = 0) -> _Axis:
        """Return some of the voxels, for a source that starts at ``origin``."""
        return _Axis(self.lower[start:stop] - origin, self.upper[start:stop] - origin, self.weight[start:stop])

    def reached_by(self, source: npt.NDArray[np.bool_]) -> slice:
        """Return the voxels with neighbours from the first to the last marked position of the source."""
        (marked,) = np.nonzero(source)
        if not marked.size:
            return slice(0, 0)
        (reached,) = np.nonzero((self.upper >= marked[0]) & (self.lower <= marked[-1]))
        return slice(int(reached[0]), int(reached[-1]) + 1) if reached.size else slice(0, 0)


class GridMap:
    """Linear interpolation from one grid of voxels to another, along one axis after the other.

    The result is that of MONAI's ``SpatialResample`` with mode ``"bilinear"`` and padding mode ``"border"``, of which
    this is the special case for parallel axes, in any order and direction.

    Args:
        axes: number of the source's axis for each axis of the target.
        positions: for each axis of the target, the positions of its voxels along that axis of the source, in voxels.
        sizes: number of voxels along these axes of the source.
    """

    def __init__(self, axes: Sequence[int], positions: Sequence[npt.NDArray[np.float64]], sizes: Sequence[int]) -> None:
        self.axes = list(axes)
        self.shape = tuple(len(position) for position in positions)
        self._maps = [_axis(position, size) for position, size in zip(positions, sizes, strict=True)]

    def __call__(self, volume: Tensor) -> Tensor:
        r"""Return a volume on the target's grid.

        Args:
            volume: values on the source's grid (\*source).

        Returns:
            Values (X, Y, Z) on the CPU, in the type of ``volume``, or float32 where that is no floating point type.
        """
        dtype = volume.dtype if volume.is_floating_point() else torch.float32
        result = torch.empty(self.shape, dtype=dtype)
        for part, planes, axes in self._slabs(volume[None]):
            result[part] = _interpolated(planes[0].float(), axes)
        return result

    def label_map(self, logits: Tensor) -> Tensor:
        r"""Return the class of the highest interpolated probability in each voxel of the target's grid.

        The probabilities of all voxels sum up to 1 before interpolation and after it, so that the highest of C is at
        least 1 / C. A class is interpolated only where a neighbour has as much of it.

        Args:
            logits: logits on the source's grid (C, \*source).

        Returns:
            Classes (X, Y, Z) on the CPU, uint8, or int16 where there are more than 256.
        """
        result = torch.empty(self.shape, dtype=label_type(len(logits)))
        for part, planes, axes in self._slabs(logits):
            result[part] = _winners(planes.float().softmax(0), axes, result.dtype)
        return result

    def _slabs(self, volume: Tensor) -> Iterator[tuple[slice, Tensor, list[_Axis]]]:
        """Yield slices of the target, the planes of the source (C, n, h, w) around them, and the maps between them."""
        turned = volume.permute(0, *(axis + 1 for axis in self.axes))
        first, *others = self._maps
        voxels = SLAB_VOXELS.get(volume.device.type, SLAB_VOXELS["cuda"])
        count = max(voxels // max(self.shape[1] * self.shape[2], 1), 1)
        for start in range(0, self.shape[0], count):
            part = slice(start, min(start + count, self.shape[0]))
            low, high = int(first.lower[part].min()), int(first.upper[part].max())
            yield part, turned[:, low : high + 1], [first.part(part.start, part.stop, low), *others]


def parallel_grids(
    source_shape: Sequence[int], source_affine: npt.ArrayLike, shape: Sequence[int], affine: npt.ArrayLike
) -> GridMap | None:
    """Return the map from one grid to another, ``None`` if their axes are not parallel.

    Args:
        source_shape: number of voxels (3,) of the grid that has values.
        source_affine: its affine (4, 4).
        shape: number of voxels (3,) of the grid that gets values.
        affine: its affine (4, 4).

    Example:
        >>> grid_map = parallel_grids((1, 1, 2), np.diag([1, 1, 2, 1]), (1, 1, 3), np.eye(4))
        >>> grid_map(torch.tensor([[[0.0, 10.0]]]))
        tensor([[[ 0.,  5., 10.]]])
    """
    steps = np.linalg.solve(np.asarray(source_affine, dtype=np.float64), np.asarray(affine, dtype=np.float64))
    axes = np.abs(steps[:3, :3]).argmax(axis=0)
    along = steps[axes, range(3)]
    across = steps[:3, :3].copy()
    across[axes, range(3)] = 0
    if sorted(axes) != [0, 1, 2] or (np.abs(across) * np.asarray(shape)).max() > PARALLEL_TOLERANCE:
        return None
    positions = [steps[axis, 3] + step * np.arange(size) for axis, step, size in zip(axes, along, shape, strict=True)]
    return GridMap([int(axis) for axis in axes], positions, [source_shape[axis] for axis in axes])


def on_grid(volume: MetaTensor, shape: Sequence[int], affine: npt.ArrayLike) -> MetaTensor:
    r"""Return a volume on a grid, by linear interpolation; itself if it is there already, up to what headers round.

    Args:
        volume: values (C, X, Y, Z) with their affine.
        shape: number of voxels (3,) along each axis.
        affine: affine (4, 4) of the grid in mm.

    Returns:
        Values (C, \*shape) on the CPU, with ``affine``.
    """
    target, own = (convert_to_numpy(each).astype(np.float64) for each in (affine, volume.affine))
    plain = volume.as_tensor().detach()
    is_there = tuple(volume.shape[1:]) == tuple(shape)
    if is_there and corner_distance(shape, own, target) <= shift_tolerance(target):
        return MetaTensor(plain.cpu(), affine=torch.as_tensor(target))
    grid_map = parallel_grids(volume.shape[1:], own, shape, target)
    if grid_map is None:
        empty = MetaTensor(torch.empty(1, *shape), affine=torch.as_tensor(target))
        resampled: MetaTensor = ResampleToMatch(mode="bilinear", padding_mode="border")(volume.cpu(), img_dst=empty)
        return resampled
    return MetaTensor(torch.stack([grid_map(channel) for channel in plain]), affine=torch.as_tensor(target))


def label_type(classes: int) -> torch.dtype:
    """Return the smallest type of label maps with so many classes."""
    return torch.uint8 if classes <= 256 else torch.int16


def _axis(positions: npt.NDArray[np.float64], size: int) -> _Axis:
    inside = np.clip(positions, 0, size - 1)
    lower = np.floor(inside).astype(np.int64)
    return _Axis(lower, np.minimum(lower + 1, size - 1), (inside - lower).astype(np.float32))


def _interpolated(values: Tensor, axes: Sequence[_Axis]) -> Tensor:
    """Interpolate planes (n, h, w), the second axis last: its rows lie together in memory and most work is there."""
    for dim in (0, 2, 1) if len(axes[0].lower) < len(values) else (2, 0, 1):
        axis = axes[dim]
        shape = [-1 if each == dim else 1 for each in range(3)]
        lower, upper, weight = (
            torch.from_numpy(array).to(values.device) for array in (axis.lower, axis.upper, axis.weight)
        )
        below = values.index_select(dim, lower)
        values = below.lerp_(values.index_select(dim, upper), weight.view(shape)) if axis.weight.any() else below
    return values


def _winners(probabilities: Tensor, axes: Sequence[_Axis], dtype: torch.dtype) -> Tensor:
    """Return the classes (k, Y, Z) of the highest probabilities, interpolated from planes (C, n, h, w)."""
    shape = [len(axis.lower) for axis in axes]
    highest = torch.zeros(shape, device=probabilities.device)
    winners = torch.zeros(shape, dtype=dtype, device=probabilities.device)
    least = (1 - ROUNDING) / len(probabilities)
    rows = (probabilities.amax((1, 3)) >= least).cpu().numpy()
    columns = (probabilities.amax((1, 2)) >= least).cpu().numpy()
    for index, values in enumerate(probabilities):
        down, across = axes[1].reached_by(rows[index]), axes[2].reached_by(columns[index])
        if down.stop == down.start or across.stop == across.start:
            continue
        box = (slice(None), down, across)
        parts = [axes[0], axes[1].part(down.start, down.stop), axes[2].part(across.start, across.stop)]
        found = _interpolated(values, parts)
        winners[box].masked_fill_(found > highest[box], index)
        torch.maximum(highest[box], found, out=highest[box])
    return winners.cpu()
