import numpy as np
import pytest
from scipy import ndimage

from medcontext.data.datasets import HIPPOCAMPUS_LABELS, load_split
from medcontext.phantoms.cohort import phantom_split
from medcontext.phantoms.hippocampus import make_hippocampus_phantom

ANTERIOR, POSTERIOR = 1, 2
FRONT, UP = 1, 2


@pytest.fixture(scope="module")
def crops():
    return [make_hippocampus_phantom(seed, case) for seed, case in ((0, 1), (0, 3), (0, 4), (5, 120))]


def middle(phantom, label):
    return np.argwhere(phantom.label == label).mean(axis=0)


def test_labels_and_sizes_are_those_of_the_decathlon(crops):
    assert HIPPOCAMPUS_LABELS == {0: "background", 1: "anterior", 2: "posterior"}
    for phantom in crops:
        assert (phantom.image.dtype, phantom.label.dtype) == (np.int16, np.uint8)
        assert set(np.unique(phantom.label)) == {0, 1, 2}
        # the real crops have 31 to 43, 40 to 59 and 24 to 47 voxels
        assert all(31 <= n <= 43 for n in phantom.label.shape[::2])
        assert 40 <= phantom.label.shape[1] <= 59
        assert 850 < (phantom.label == ANTERIOR).sum() < 2600  # mm³
        assert 850 < (phantom.label == POSTERIOR).sum() < 2300
        np.testing.assert_array_equal(np.abs(np.diag(phantom.affine)), 1)
    assert len({phantom.label.shape for phantom in crops}) == 4


def test_parts_are_one_structure_and_the_head_lies_in_front_and_below(crops):
    for phantom in crops:
        assert ndimage.label(phantom.label > 0)[1] == 1
        head, tail = middle(phantom, ANTERIOR), middle(phantom, POSTERIOR)
        assert head[FRONT] - tail[FRONT] > 10
        assert tail[UP] - head[UP] > 2


def test_intensity_tells_neither_the_parts_apart_nor_the_neighbours(crops):
    for phantom in crops:
        inner = ndimage.binary_erosion(phantom.label > 0)
        levels = [np.median(phantom.image[inner & (phantom.label == part)]) for part in (ANTERIOR, POSTERIOR)]
        assert levels[0] == pytest.approx(levels[1], rel=0.06)
        away = ndimage.binary_dilation(phantom.label > 0, iterations=3)
        alike = (np.abs(phantom.image - np.mean(levels)) < 0.12 * np.mean(levels)) & ~away
        parts, _ = ndimage.label(ndimage.binary_opening(alike))
        sizes = np.bincount(parts.ravel())[1:]
        assert (sizes > 60).sum() >= 2
        whole = phantom.label > 0
        for low in np.percentile(phantom.image, np.arange(0, 50, 5)):
            for high in np.percentile(phantom.image, np.arange(10, 80, 5)):
                found = (phantom.image > low) & (phantom.image < high)
                assert 2 * (found & whole).sum() < 0.6 * (found.sum() + whole.sum())


def test_left_and_right_and_many_scales():
    phantoms = [make_hippocampus_phantom(1, case, (24, 32, 24), (1.5, 1.5, 1.5)) for case in range(1, 21)]
    right = [phantom.affine[0, 3] > 0 for phantom in phantoms]
    assert 5 <= sum(right) <= 15
    medians = [np.median(phantom.image) for phantom in phantoms]
    assert max(medians) > 5 * min(medians)
    assert all(set(np.unique(phantom.label)) == {0, 1, 2} for phantom in phantoms)


def test_volumes_of_this_generator_stay_the_same():
    """Other volumes call for another ``GENERATOR``, or finished cohorts would be taken for new ones."""
    phantom = make_hippocampus_phantom(3, 33)
    assert phantom.label.shape == (34, 45, 40)
    np.testing.assert_allclose(np.bincount(phantom.label.ravel())[1:], [1000, 1140], atol=2)
    assert phantom.image.mean() == pytest.approx(111.183, rel=1e-4)


def test_the_twin_has_the_decathlons_numbers_of_cases():
    split = phantom_split("hippocampus")
    assert {section: len(cases) for section, cases in split.items()} == {
        "training": 200,
        "validation": 0,
        "test": 60,
        "unlabeled": 130,
    }
    assert split["test"] == load_split("hippocampus")["test"]
    assert (split["test"][0], split["test"][-1]) == ("hippocampus_001", "hippocampus_393")
    cases = [case for cases in split.values() for case in cases]
    assert len(set(cases)) == 390
