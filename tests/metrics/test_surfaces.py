from __future__ import annotations

import numpy as np
import pytest

from medcontext.metrics.surfaces import boundary_voxels, nearest_distances, surface_dice


def test_boundary_has_a_face_on_the_outside() -> None:
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[1:4, 1:4, 1:4] = True
    assert len(boundary_voxels(mask)) == 26  # all but the centre
    assert [2, 2, 2] not in boundary_voxels(mask).tolist()


def test_border_of_the_volume_is_a_boundary() -> None:
    assert len(boundary_voxels(np.ones((4, 4, 4), dtype=bool))) == 4**3 - 2**3


def test_distances_respect_the_spacing() -> None:
    points, others = np.array([[0, 0, 0], [1, 1, 1]]), np.array([[0, 0, 2], [0, 1, 1]])
    # to (0, 1, 1), √(2² + 3²) and 1 mm; to (0, 0, 2) it is 6 and √(1 + 2² + 3²)
    assert nearest_distances(points, others, (1.0, 2.0, 3.0)) == pytest.approx([13**0.5, 1.0])


def test_area_weighs_the_surface_and_not_its_voxels() -> None:
    """Two plates of 30 × 30 voxels; where slices are 10 mm thick, the upright one has six times the area."""
    truth = np.zeros((45, 30, 31), dtype=bool)
    truth[0, :, :30] = True
    predicted = truth.copy()
    predicted[15:, :, 30] = True
    upright, flat = (2 * (x * y + y * z + z * x) for x, y, z in ((1, 30, 300), (30, 30, 10)))
    value = surface_dice(predicted, truth, (1.0, 1.0, 10.0), tolerance_mm=2.0)
    assert value == pytest.approx(2 * upright / (2 * upright + flat), rel=0.01)  # 0.926; counting voxels, 0.667
