"""A round body with three organs, for pictures."""

from __future__ import annotations

import numpy as np

LABELS = {"liver": 1, "spleen": 2, "left_kidney": 3}
SPACING = (3.0, 3.0, 5.0)


def case(shift: int = 0, shape: tuple[int, int, int] = (48, 40, 24)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image in HU, truth and a prediction that is ``shift`` voxels off along x, all RAS (X, Y, Z)."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    image = np.where(x**2 + y**2 < 0.9, 30.0, -1000.0) + np.random.default_rng(shift).normal(0, 10, shape)
    label = np.zeros(shape, dtype=np.uint8)
    for i, (cx, cy, cz, radius) in enumerate([(0.45, 0.1, 0.2, 0.35), (-0.5, -0.1, 0.3, 0.2), (-0.3, -0.4, -0.2, 0.2)]):
        inside = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2
        label[inside] = i + 1
        image[inside] += 40 + 20 * i
    return image.astype(np.float32), label, np.roll(label, shift, axis=0)
