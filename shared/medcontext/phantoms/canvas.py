"""The canvas on which generated anatomy is painted, image and label together.

The canvas holds every voxel's body coordinates, already transformed by the case's pose and a smooth warp, so shapes
stay simple and neighbours move together. As in the shapes, only ``+ - * /`` and ``sqrt`` touch whole volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from medcontext.phantoms.shapes import FAR, Bounds, Shape, Vector, Volume

__all__ = ["FIELD_MM", "Canvas", "Pose", "smooth_field"]

FIELD_MM = (144.0, 144.0, 192.0)
SLAB_VOXELS = 32_768


@dataclass(frozen=True)
class Pose:
    """Position of the body in the field: ``field = matrix @ body + offset``, plus the warp's amplitude in mm."""

    matrix: npt.NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    offset: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    warp: float = 0.0


class Canvas:
    """An image and its label map, painted shape by shape; later shapes cover earlier ones.

    Args:
        size: voxels along x, y, z, over which the field is spread.
        pose: the body's pose and warp.
        rng: source of the warp and of the surfaces' irregularity.
        background: intensity where nothing is painted; a sequence gives the image as many channels.
        field_mm: the field's size along x, y, z.
        edge: width in mm of the partial-volume edges, by default 1.2 voxels.

    Attributes:
        image: float32, shape ``size``, or (channels, *size).
        label: uint8 label map, shape ``size``.
        grid: voxel centres in mm of the field along each axis, ready to broadcast.
        body: the voxels' body coordinates in mm along x, y, z, each of shape ``size``.
        roughness: a smooth random field of about unit standard deviation, shape ``size``.
    """

    def __init__(
        self,
        size: tuple[int, int, int],
        pose: Pose,
        rng: np.random.Generator,
        background: float | Sequence[float],
        field_mm: Vector = FIELD_MM,
        edge: float | None = None,
    ) -> None:
        self.channels: Volume = np.empty((np.size(background), *size), np.float32)
        self.channels[...] = np.reshape(background, (-1, 1, 1, 1))
        self.image: Volume = self.channels[0] if np.ndim(background) == 0 else self.channels
        self.label: npt.NDArray[np.uint8] = np.zeros(size, np.uint8)
        self.pose = pose
        self.voxel = np.asarray(field_mm) / np.asarray(size)
        self.edge = np.float32(1.2 * self.voxel.mean() if edge is None else edge)
        self.shifted = 0.0
        axes = [((np.arange(n) + 0.5 - n / 2) * v).astype(np.float32) for n, v in zip(size, self.voxel, strict=True)]
        self.grid = (axes[0][:, None, None], axes[1][:, None], axes[2])
        inverse = np.linalg.inv(pose.matrix)
        shift = -inverse @ pose.offset
        self.body: list[Volume] = []
        for row, constant in zip(inverse.astype(np.float32), shift.astype(np.float32), strict=True):
            bent = smooth_field(size, (6, 6, 7), rng)
            bent *= np.float32(pose.warp)
            bent += row[0] * self.grid[0] + (row[1] * self.grid[1] + (row[2] * self.grid[2] + constant))
            self.body.append(bent)
        self.roughness = smooth_field(size, (17, 17, 20), rng)

    def shift_slices(self, shifts: npt.NDArray[np.float64]) -> None:
        """Move the body in every slice along z by its own (x, y) in mm, ``shifts`` being (2, slices)."""
        for coordinate, shift in zip(self.body, shifts.astype(np.float32), strict=False):
            coordinate -= shift
        self.shifted += float(np.abs(shifts).max())

    def box(self, bounds: Bounds) -> tuple[slice, slice, slice] | None:
        """Return the voxels that a shape with these bounds can reach under the pose and the warp, if there are any."""
        low, high = (np.clip(corner, -FAR, FAR) for corner in bounds)
        middle = self.pose.matrix @ ((low + high) / 2) + self.pose.offset
        slack = 3 * self.pose.warp + self.shifted + self.edge
        reach = np.abs(self.pose.matrix) @ ((high - low) / 2) + slack
        start = np.floor((middle - reach) / self.voxel + np.asarray(self.label.shape) / 2).astype(int).clip(0)
        stop = np.ceil((middle + reach) / self.voxel + np.asarray(self.label.shape) / 2).astype(int)
        stop = np.minimum(stop, self.label.shape)
        if (start >= stop).any():
            return None
        return slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2])

    def paint(self, shape: Shape, value: float | Vector, label: int = 0, roughness: float = 0.0) -> None:
        """Paint a shape: its label where it covers a voxel's centre, its intensity with a partial-volume edge.

        Args:
            shape: what to paint, in body coordinates.
            value: intensity, one for all channels or one for each; NaN leaves a channel as it is.
            label: label; 0 clears labels below the shape.
            roughness: standard deviation of the surface's irregularity in mm.
        """
        box = self.box(shape.bounds)
        if box is None:
            return
        # thin slabs keep the temporaries in the processor's cache, which halves the time
        depth = max(1, SLAB_VOXELS // ((box[1].stop - box[1].start) * (box[2].stop - box[2].start)))
        for start in range(box[0].start, box[0].stop, depth):
            slab = (slice(start, min(start + depth, box[0].stop)), *box[1:])
            distance = shape.distance(*(c[slab] for c in self.body))
            if roughness:
                distance += np.float32(roughness) * self.roughness[slab]
            self.cover(distance, value, label, slab)

    def cover(
        self, distance: Volume, value: float | Vector, label: int | None = 0, slab: tuple[slice, ...] = (slice(None),)
    ) -> None:
        """Paint where a signed distance in mm, given for the voxels of ``slab``, is negative.

        The array of distances is overwritten. With ``label=None`` the label map stays as it is.
        """
        if label is not None:
            np.copyto(self.label[slab], np.uint8(label), where=distance < 0)
        distance /= -self.edge
        distance += np.float32(0.5)
        np.clip(distance, 0, 1, out=distance)
        for channel, level in zip(self.channels, np.broadcast_to(value, len(self.channels)), strict=True):
            if not np.isnan(level):
                image = channel[slab]
                image += distance * (np.float32(level) - image)


def smooth_field(size: tuple[int, int, int], knots: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Draw a smooth random field of about unit standard deviation: cubic B-splines over a grid of random knots."""
    values = rng.standard_normal(knots, dtype=np.float32)
    # the weights of a cubic B-spline have a root mean square of about 0.69 per axis
    values *= np.float32(1 / 0.69**3)
    # the first axis comes last: its planes are contiguous, so the largest step only adds whole planes
    for axis in (2, 1, 0):
        values = _upsample(values, size[axis], axis)
    return values


def _upsample(values: Volume, length: int, axis: int) -> Volume:
    """Evaluate a uniform cubic B-spline along one axis at ``length`` points."""
    knots = values.shape[axis]
    position = np.linspace(0, knots - 3, length, endpoint=False)
    first = position.astype(int)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    source = np.moveaxis(values, axis, 0)
    result = np.empty((length, *source.shape[1:]), np.float32)
    for row, start, (a, b, c, d) in zip(result, first, weights.T.astype(np.float32), strict=True):
        np.multiply(source[start], a, out=row)
        row += b * source[start + 1]
        row += c * source[start + 2]
        row += d * source[start + 3]
    return np.ascontiguousarray(np.moveaxis(result, 0, axis))
