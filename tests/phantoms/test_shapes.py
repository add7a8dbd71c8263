import numpy as np
import pytest

from medcontext.phantoms.shapes import Blend, Clip, Column, Cut, Ellipsoid, HalfSpace, Repeat, Tube, rotation

BALL = Ellipsoid((0, 0, 0), (5, 5, 5))


def distance(shape, point):
    return float(shape.distance(*(np.array([c], np.float32) for c in point))[0])


@pytest.mark.parametrize(
    ("shape", "point", "expected"),
    [
        (BALL, (0, 0, 0), -5),
        (BALL, (0, 0, 7), 2),
        (Ellipsoid((1, 2, 3), (2, 4, 6)), (3, 2, 3), 0),
        (Ellipsoid((1, 2, 3), (2, 4, 6), (0, 0, 90)), (5, 2, 3), 0),
        (Column((1, 0), (3, 6)), (6, 0, 500), 2),
        (Tube([(0, 0, 0), (10, 0, 0)], (2, 4)), (5, 7, 0), 4),
        (Tube([(0, 0, 0), (10, 0, 0)], (2, 4)), (-5, 0, 0), 3),
        (HalfSpace((0, 0, 4), (0, 0, 2)), (9, 9, 7), 3),
        (Clip(BALL, (HalfSpace((0, 0, 0), (0, 0, 1)),)), (0, 0, 3), 3),
        (Clip(BALL, (HalfSpace((0, 0, 0), (0, 0, 1)),), margin=1), (0, 0, 3), 4),
        (Cut(BALL, (Ellipsoid((0, 0, 0), (2, 2, 2)),)), (0, 0, 1), 1),
        (Cut(BALL, (Ellipsoid((0, 0, 0), (2, 2, 2)),), margin=1), (0, 0, 1), 2),
        (Blend(BALL, Ellipsoid((20, 0, 0), (5, 5, 5)), 4), (20, 0, 7), 2),
        (Blend(BALL, BALL, 4), (0, 0, 7), 1),
        (Repeat(BALL, 20, start=3), (0, 0, 43), -5),
        (Repeat(BALL, 20, start=3), (0, 0, -10), 2),
    ],
)
def test_signed_distances(shape, point, expected):
    assert distance(shape, point) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "shape",
    [
        Ellipsoid((3, -4, 5), (8, 20, 12), (30, 10, -50)),
        Tube([(-20, 5, 0), (0, 9, 20), (25, -8, 30)], (4, 9, 3)),
        Tube([(-20, 5, 0), (0, 9, 20), (25, -8, 30)], (4, 9, 3)).smooth(),
        Blend(Ellipsoid((0, 0, 0), (9, 9, 9)), Ellipsoid((12, 0, 3), (8, 8, 8)), 8),
    ],
)
def test_bounds_hold_the_whole_shape_and_are_tight(shape):
    axes = [np.arange(-45, 45, 0.75, dtype=np.float32) for _ in range(3)]
    inside = np.argwhere(shape.distance(*np.meshgrid(*axes, indexing="ij")) < 0) * 0.75 - 45
    low, high = shape.bounds
    assert (inside.min(axis=0) >= low - 0.01).all()
    assert (inside.max(axis=0) <= high + 0.01).all()
    assert (inside.min(axis=0) - low < 6).all()
    assert (high - inside.max(axis=0) < 6).all()


def test_smooth_tube_keeps_its_ends_and_cuts_its_corners():
    tube = Tube([(0, 0, 0), (10, 0, 0), (10, 10, 0)], (1, 2, 3)).smooth()
    np.testing.assert_allclose(tube.points, [(0, 0, 0), (7.5, 0, 0), (10, 2.5, 0), (10, 10, 0)])
    np.testing.assert_allclose(tube.radii, (1, 1.75, 2.25, 3))


def test_rotation_turns_about_x_then_y_then_z():
    np.testing.assert_allclose(rotation((90, 0, 90)) @ (0, 1, 0), (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(rotation((0, 90, 90)) @ (0, 0, 1), (0, 1, 0), atol=1e-12)
