"""Solid shapes for generated anatomy.

Shapes live in *body coordinates*: millimetres from the middle of a reference field, with x to the patient's right, y to
the front and z to the head.

Only ``+ - * /`` and ``sqrt`` touch whole volumes (no BLAS, no vectorised transcendental functions), so the result does
not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "FAR",
    "Blend",
    "Bounds",
    "Clip",
    "Column",
    "Cut",
    "Ellipsoid",
    "HalfSpace",
    "Points",
    "Repeat",
    "Shape",
    "Tube",
    "Vector",
    "Volume",
    "rotation",
]

Volume = npt.NDArray[np.float32]
Vector = Sequence[float] | npt.NDArray[np.float64]
Points = Sequence[Vector] | npt.NDArray[np.float64]
Bounds = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

FAR = 1e3
"""Bound in mm of shapes that are infinite."""


class Shape(Protocol):
    """A solid: its bounding box and the (roughly Euclidean) signed distance to its surface, negative inside."""

    @property
    def bounds(self) -> Bounds:
        """Lower and upper corner in mm."""

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Return the signed distance in mm at each point."""


def rotation(angles: Vector) -> npt.NDArray[np.float64]:
    """Return the rotation matrix for angles in degrees about x, then y, then z."""
    (sx, sy, sz), (cx, cy, cz) = (f(np.radians(np.asarray(angles, dtype=float))) for f in (np.sin, np.cos))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    matrix: npt.NDArray[np.float64] = about_z @ about_y @ about_x
    return matrix


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with its centre and radii in mm, rotated by ``angles`` (degrees about x, y, z)."""

    centre: Vector
    radii: Vector
    angles: Vector = (0.0, 0.0, 0.0)

    @property
    def bounds(self) -> Bounds:
        """Lower and upper corner in mm."""
        centre = np.asarray(self.centre, dtype=float)
        reach = np.sqrt(((rotation(self.angles) * np.asarray(self.radii, dtype=float)) ** 2).sum(axis=1))
        return centre - reach, centre + reach

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Return the signed distance in mm, exact to first order at the surface."""
        offsets = [c - np.float32(centre) for c, centre in zip((x, y, z), self.centre, strict=True)]
        if any(self.angles):
            turn = rotation(self.angles).T.astype(np.float32)
            offsets = [row[0] * offsets[0] + row[1] * offsets[1] + row[2] * offsets[2] for row in turn]
        return _quadric_distance(offsets, self.radii)


@dataclass(frozen=True)
class Column:
    """An upright elliptic cylinder without ends: centre (x, y) and radii (x, y) in mm."""

    centre: Vector
    radii: Vector

    @property
    def bounds(self) -> Bounds:
        """Lower and upper corner in mm."""
        centre, radii = np.asarray(self.centre, dtype=float), np.asarray(self.radii, dtype=float)
        return np.append(centre - radii, -FAR), np.append(centre + radii, FAR)

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Return the signed distance in mm, exact to first order at the surface."""
        return _quadric_distance([x - np.float32(self.centre[0]), y - np.float32(self.centre[1])], self.radii)


def _quadric_distance(offsets: Sequence[Volume], radii: Vector) -> Volume:
    """Return the first-order distance to ``sum((offset / radius)²) = 1``: the level above 1 over the level's slope."""
    # small offsets from zero: at the centre, where both vanish, the quotient is the shortest radius
    level = np.full(offsets[0].shape, 1e-12, np.float32)
    slope = np.full(offsets[0].shape, 1e-12 / min(radii) ** 2, np.float32)
    for offset, radius in zip(offsets, radii, strict=True):
        scaled = offset * np.float32(1 / radius)
        scaled *= scaled
        level += scaled
        scaled *= np.float32(1 / radius**2)
        slope += scaled
    np.sqrt(level, out=level)
    np.sqrt(slope, out=slope)
    np.divide(level, slope, out=slope)
    level -= 1
    level *= slope
    return level


@dataclass(frozen=True)
class Tube:
    """A tube of round cross section along a polyline, with one radius per point in mm."""

    points: Points
    radii: Vector

    def smooth(self) -> Tube:
        """Return the tube with its corners cut once (Chaikin) and its ends kept."""
        points, radii = np.asarray(self.points, dtype=float), np.asarray(self.radii, dtype=float)
        path = np.column_stack([points, radii])
        near, far = 0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]
        inner = np.stack([near, far], axis=1).reshape(-1, 4)[1:-1]
        path = np.concatenate([path[:1], inner, path[-1:]])
        return Tube(path[:, :3], path[:, 3])

    @property
    def bounds(self) -> Bounds:
        """Lower and upper corner in mm."""
        points, radii = np.asarray(self.points, dtype=float), np.asarray(self.radii, dtype=float)[:, None]
        return (points - radii).min(axis=0), (points + radii).max(axis=0)

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Return the signed distance in mm to the nearest segment."""
        points, radii = np.asarray(self.points, np.float32), np.asarray(self.radii, np.float32)
        nearest = np.full(x.shape, FAR, np.float32)
        for start, end, first, last in zip(points, points[1:], radii, radii[1:], strict=False):
            axis = end - start
            dx, dy, dz = x - start[0], y - start[1], z - start[2]
            along = (dx * axis[0] + dy * axis[1] + dz * axis[2]) / (axis * axis).sum()
            np.clip(along, 0, 1, out=along)
            dx -= along * axis[0]
            dy -= along * axis[1]
            dz -= along * axis[2]
            away = np.sqrt(dx * dx + dy * dy + dz * dz)
            away -= first + along * (last - first)
            np.minimum(nearest, away, out=nearest)
        return nearest


@dataclass(frozen=True)
class HalfSpace:
    """All points on the far side of a plane from its ``normal``."""

    point: Vector
    normal: Vector

    @property
    def bounds(self) -> Bounds:
        """Lower and upper corner in mm."""
        return np.full(3, -FAR), np.full(3, FAR)

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Return the signed distance in mm."""
        normal = np.asarray(self.normal, dtype=float)
        nx, ny, nz = (normal / np.sqrt((normal**2).sum())).astype(np.float32)
        px, py, pz = np.asarray(self.point, np.float32)
        return nx * (x - px) + ny * (y - py) + nz * (z - pz)


@dataclass(frozen=True)
class Blend:
    """The union of two shapes, its seam rounded over about ``softness`` mm."""

    first: Shape
    second: Shape
    softness: float = 4.0

    @property
    def bounds(self) -> Bounds:
        """Lower and upper corner in mm."""
        (low, high), (other_low, other_high) = self.first.bounds, self.second.bounds
        return np.minimum(low, other_low) - self.softness / 4, np.maximum(high, other_high) + self.softness / 4

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Return the signed distance in mm (polynomial smooth minimum)."""
        first, second = self.first.distance(x, y, z), self.second.distance(x, y, z)
        share = np.clip(0.5 + (second - first) * np.float32(0.5 / self.softness), 0, 1)
        return second + share * (first - second) - np.float32(self.softness) * share * (1 - share)


@dataclass(frozen=True)
class Clip:
    """The intersection of the first shape with all others, each of them shrunk by ``margin`` mm."""

    shape: Shape
    others: Sequence[Shape]
    margin: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """Lower and upper corner in mm."""
        return self.shape.bounds

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Return the signed distance in mm."""
        nearest = self.shape.distance(x, y, z)
        for other in self.others:
            nearest = np.maximum(nearest, other.distance(x, y, z) + np.float32(self.margin))
        return nearest


@dataclass(frozen=True)
class Cut:
    """The first shape without all others, each of them grown by ``margin`` mm."""

    shape: Shape
    others: Sequence[Shape]
    margin: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """Lower and upper corner in mm."""
        return self.shape.bounds

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Return the signed distance in mm."""
        nearest = self.shape.distance(x, y, z)
        for other in self.others:
            nearest = np.maximum(nearest, np.float32(self.margin) - other.distance(x, y, z))
        return nearest


@dataclass(frozen=True)
class Repeat:
    """A shape around z = 0, repeated along z every ``pitch`` mm from ``start`` on."""

    shape: Shape
    pitch: float
    start: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """Lower and upper corner in mm."""
        low, high = self.shape.bounds
        return np.append(low[:2], -FAR), np.append(high[:2], FAR)

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Return the signed distance in mm to the nearest copy."""
        pitch = np.float32(self.pitch)
        turns = (z - np.float32(self.start)) / pitch
        return self.shape.distance(x, y, (turns - np.rint(turns)) * pitch)
