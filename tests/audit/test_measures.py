from __future__ import annotations

import numpy as np
import pytest

from medcontext.audit import label_shift, measure_labels

LABELS = {"kidney": 1, "liver": 2, "spleen": 3}


def test_measures_of_two_boxes() -> None:
    label = np.zeros((10, 8, 6), dtype=int)
    label[0:2, 0:2, 0:2] = 1
    label[6:8, 0:2, 0:2] = 2
    label[9, 7, 5] = 2  # an island
    image = np.where(label == 1, 3.0, 1.0)
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])

    kidney, liver, spleen = measure_labels(image, label, affine, LABELS)

    assert kidney["volume_ml"] == pytest.approx(8 * 24 / 1000)
    assert (kidney["pieces"], kidney["outside_share"]) == (1, 0)
    assert (liver["pieces"], liver["outside_share"]) == (2, pytest.approx(1 / 9))
    # centres in voxels: kidney (0.5, 0.5, 0.5), liver (61 / 9, 11 / 9, 1), all 17 voxels (65 / 17, 15 / 17, 13 / 17)
    assert kidney["x_mm"] == pytest.approx(-2 * (0.5 - 65 / 17))
    assert liver["y_mm"] == pytest.approx(3 * (11 / 9 - 15 / 17))
    assert liver["z_mm"] == pytest.approx(4 * (1 - 13 / 17))
    assert kidney["intensity"] == pytest.approx((3 - image.mean()) / image.std())
    assert spleen["volume_ml"] == 0
    assert np.isnan(spleen["x_mm"])
    assert np.isnan(spleen["intensity"])


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, 0, -1), (-4, 3, 0)])
def test_a_shift_from_the_image_is_found(shift: tuple[int, int, int]) -> None:
    label = np.zeros((24, 24, 24), dtype=int)
    label[8:16, 7:15, 9:15] = 1
    image = np.roll(label, shift, axis=(0, 1, 2)) + np.random.default_rng(0).normal(0, 0.05, label.shape)
    found, gain = label_shift(image, label)
    assert found == shift
    assert gain > 3 if any(shift) else gain == 0


@pytest.mark.parametrize("shape", [(24, 24, 24), (24, 24, 1)])
def test_without_borders_to_compare_no_shift_is_found(shape: tuple[int, int, int]) -> None:
    assert label_shift(np.ones(shape), np.zeros(shape, dtype=int)) == ((0, 0, 0), 0.0)


def test_the_border_of_ignored_voxels_is_none() -> None:
    label = np.zeros((24, 24, 24), dtype=int)
    label[8:16, 7:15, 9:15] = -1
    assert label_shift(np.roll(label, 2, axis=0).astype(float), label) == ((0, 0, 0), 0.0)
