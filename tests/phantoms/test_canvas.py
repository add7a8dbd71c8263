import numpy as np
import pytest

from medcontext.phantoms.canvas import Canvas, Pose, smooth_field
from medcontext.phantoms.shapes import Ellipsoid, rotation


def canvas(pose=None, size=(36, 36, 48)):
    return Canvas(size, pose or Pose(), np.random.default_rng(0), background=-1000)


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


def test_channels_share_the_shape_and_the_label():
    board = Canvas((36, 36, 48), Pose(), np.random.default_rng(0), background=(0, 10, 20))
    board.paint(Ellipsoid((0, 0, 0), (30, 30, 30)), (50, np.nan, 80), label=3)
    assert board.image.shape == (3, 36, 36, 48)
    assert board.image[:, 18, 18, 24].tolist() == [50, 10, 80]
    assert board.image[:, 0, 0, 0].tolist() == [0, 10, 20]
    np.testing.assert_allclose((board.image[0] - 0) / 50, (board.image[2] - 20) / 60, atol=1e-6)
    assert board.label[18, 18, 24] == 3


def test_slices_move_by_their_own_shift():
    board = canvas()
    shifts = np.zeros((2, 48))
    shifts[0, 24], shifts[1, 25] = 12, -8
    board.shift_slices(shifts)
    board.paint(Ellipsoid((0, 0, 0), (14, 14, 60)), 50, label=1)
    middle = [np.argwhere(board.label[:, :, z]).mean(axis=0) * 4 - 70 for z in (23, 24, 25)]
    np.testing.assert_allclose(middle, [(0, 0), (12, 0), (0, -8)], atol=0.5)


def test_a_distance_can_be_painted_without_touching_the_labels():
    board = canvas()
    board.paint(Ellipsoid((0, 0, 0), (30, 30, 30)), 50, label=3)
    before = board.label.copy()
    board.cover(np.abs(board.body[0]) - 10, 70, label=None)
    np.testing.assert_array_equal(board.label, before)
    assert board.image[[18, 2], 18, 24].tolist() == [70, -1000]
