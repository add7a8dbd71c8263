"""One generated case, and the means to draw its anatomy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medcontext.phantoms.canvas import Canvas
from medcontext.phantoms.shapes import Ellipsoid, Points, Shape, Tube, Vector

__all__ = ["Phantom", "Sketch", "centred_affine"]


class Phantom(NamedTuple):
    """One generated case in RAS.

    Attributes:
        image: int16, (x, y, z) or (x, y, z, channels).
        label: uint8 label map, (x, y, z).
        affine: 4 × 4, from voxels to mm.
    """

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]


class Sketch:
    """A canvas with one case's random variation, on which its organs are painted by name.

    Args:
        canvas: canvas to paint on.
        rng: source of the variation.
        labels: label ids and their names.
    """

    def __init__(self, canvas: Canvas, rng: np.random.Generator, labels: Mapping[int, str]) -> None:
        self.canvas = canvas
        self.rng = rng
        self.ids = {name: index for index, name in labels.items()}

    def vary(self, deviation: Vector | float, size: int = 3) -> npt.NDArray[np.float64]:
        """Draw normal variation, cut off at two standard deviations."""
        return self.rng.standard_normal(size).clip(-2, 2) * np.asarray(deviation)

    def near(self, value: float, deviation: float = 4.0) -> float:
        """Draw an intensity near the given one."""
        return value + float(self.vary(deviation, 1)[0])

    def ellipsoid(
        self, centre: Vector, radii: Vector, angles: Vector = (0, 0, 0), shift: Vector = (0, 0, 0)
    ) -> Ellipsoid:
        """Draw an ellipsoid with the case's variation of position, size and pose, moved by ``shift``."""
        varied_centre = np.asarray(centre) + shift + self.vary(0.8)
        varied_radii = np.asarray(radii) * (1 + self.vary(0.04) + self.vary(0.04, 1))
        return Ellipsoid(varied_centre, varied_radii, np.asarray(angles) + self.vary(4))

    def tube(self, points: Points, radii: Vector | float, shift: Vector = (0, 0, 0), wander: float = 0.7) -> Tube:
        """Draw a smooth tube with the case's variation of course and width, moved by ``shift``."""
        course = np.asarray(points, dtype=float) + shift
        course = course + np.stack([self.vary(wander) for _ in course])
        width = np.broadcast_to(np.asarray(radii, dtype=float), (len(course),)) * (1 + self.vary(0.06, 1))
        return Tube(course, width).smooth()

    def paint(self, shape: Shape, value: float | Vector, organ: str = "background", roughness: float = 0.0) -> None:
        """Paint a shape under its organ's label."""
        self.canvas.paint(shape, value, self.ids[organ], roughness)


def centred_affine(
    size: Sequence[int], spacing: Sequence[float], centre: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the affine of a RAS volume of this size and spacing (mm) with its middle at ``centre`` (mm)."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = centre - np.asarray(spacing) * (np.asarray(size) - 1) / 2
    return affine
