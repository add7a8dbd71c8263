import numpy as np
import pytest

from medcontext.data.phantom_canvas import (
    Blend,
    Canvas,
    Clip,
    Column,
    Cut,
    Ellipsoid,
    HalfSpace,
    Pose,
    Repeat,
    Tube,
    rotation,
    smooth_field,
)

BALL = Ellipsoid((0, 0, 0), (5, 5, 5))


def distance(shape, point):
    return float(shape.distance(*(np.array([c], np.float32) for c in point))[0])


def canvas(pose=None, size=(36, 36, 48)):
    return Canvas(size, pose or Pose(), np.random.default_rng(0), background=-1000)


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


def test_painting_sets_label_and_partial_volume():
    board = canvas()
    board.paint(Ellipsoid((0, 0, 0), (30, 30, 30)), 50, label=3)
    assert board.image[18, 18, 24] == 50
    assert board.image[0, 0, 0] == -1000
    assert (board.label == 3).sum() * 4 * 4 * 4 == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.03)
    edge = (board.image > -999) & (board.image < 49)
    assert edge.sum() > 300
    assert ((board.image > -475) == (board.label == 3)).mean() > 0.999


def test_later_painting_wins_and_label_zero_clears():
    board = canvas()
    for hu, label, radius in ((50, 3, 30), (90, 4, 20), (0, 0, 10)):
        board.paint(Ellipsoid((0, 0, 0), (radius,) * 3), hu, label=label)
    along = board.label[18:, 18, 24]
    assert along[[0, 3, 6, 10]].tolist() == [0, 4, 3, 0]
    assert board.image[[18, 21], 18, 24] == pytest.approx([0, 90])


def test_box_limits_work_but_not_the_result():
    pose = Pose(rotation((5, -4, 20)) * (0.9, 1.0, 1.1), np.array([5.0, -7.0, 9.0]), warp=2.0)
    shape = Ellipsoid((20, -10, 15), (12, 7, 20), (10, 20, 30))
    board = canvas(pose)
    board.paint(shape, 50, label=1)
    everywhere = shape.distance(*board.body) < 0
    np.testing.assert_array_equal(board.label == 1, everywhere)
    assert everywhere.sum() > 50
    box = board.image[board.box(shape.bounds)]
    assert box.size < 0.3 * board.image.size


def test_shapes_outside_the_field_are_left_out():
    board = canvas()
    board.paint(Ellipsoid((200, 0, 0), (20, 20, 20)), 50, label=1)
    assert board.box(Ellipsoid((200, 0, 0), (20, 20, 20)).bounds) is None
    assert not board.label.any()


def test_smooth_field_is_smooth_with_unit_deviation():
    values = smooth_field((96, 80, 64), (19, 16, 13), np.random.default_rng(1))
    assert values.shape == (96, 80, 64)
    assert values.std() == pytest.approx(1, abs=0.1)
    for axis in range(3):
        assert np.abs(np.diff(values, axis=axis)).max() < 1
        assert np.abs(np.diff(values, n=2, axis=axis)).max() < 0.5
