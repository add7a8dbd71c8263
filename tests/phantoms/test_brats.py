import numpy as np
import pytest
from scipy import ndimage

from medcontext.data.datasets import BRATS_CHANNELS, BRATS_LABELS
from medcontext.phantoms.brats import make_brats_phantom

FLAIR, T1, T1GD, T2 = range(4)
EDEMA, CORE, ENHANCING = 1, 2, 3


@pytest.fixture(scope="module")
def brains():
    return [make_brats_phantom(seed, case) for seed, case in ((0, 1), (0, 4), (0, 5), (3, 12))]


def levels(phantom, mask):
    """Median of each channel where the mask is, edges aside, as a share of the brain's median."""
    core = ndimage.binary_erosion(mask)
    brain = phantom.image[..., 0] > 0
    return np.median(phantom.image[core if core.sum() > 20 else mask], axis=0) / np.median(phantom.image[brain], axis=0)


def test_labels_and_channels_are_those_of_the_decathlon():
    assert BRATS_LABELS == {0: "background", 1: "edema", 2: "non_enhancing_tumor", 3: "enhancing_tumor"}
    assert BRATS_CHANNELS == {0: "FLAIR", 1: "T1w", 2: "T1gd", 3: "T2w"}


def test_outside_the_brain_every_channel_is_zero(brains):
    for phantom in brains:
        assert phantom.image.shape == (96, 96, 80, 4)
        assert (phantom.image.dtype, phantom.label.dtype) == (np.int16, np.uint8)
        brain = phantom.image > 0
        assert (brain == brain[..., :1]).all()
        assert 0.1 < brain.mean() < 0.45
        count = ndimage.label(brain[..., 0])[1]
        assert count == 1
        assert not phantom.label[~brain[..., 0]].any()
        edges = [brain.take(i, axis).any() for axis in (0, 1) for i in (0, -1)]
        assert not any(edges)


def test_tumour_is_nested(brains):
    for phantom in brains:
        assert set(np.unique(phantom.label)) == {0, 1, 2, 3}
        whole, core = phantom.label > 0, phantom.label >= CORE
        assert 3000 < 8 * core.sum() < 90_000  # mm³
        parts, _ = ndimage.label(whole, np.ones((3, 3, 3)))
        assert np.bincount(parts.ravel())[1:].max() > 0.9 * whole.sum()
        # Almost all of the core lies within the oedema rather than at the healthy brain.
        rim = ndimage.binary_dilation(core) & ~core
        assert (phantom.label[rim] == EDEMA).mean() > 0.75
        middle = ndimage.binary_erosion(core, iterations=2)
        assert (phantom.label[middle] == CORE).any()


def test_enhancement_is_a_rim_in_most_cases_and_spots_in_the_others():
    shares = []
    for case in range(1, 25):
        phantom = make_brats_phantom(0, case, (48, 48, 40), (4.0, 4.0, 4.0))
        core = phantom.label >= CORE
        shell = core & ~ndimage.binary_erosion(core)
        shares.append((phantom.label[shell] == ENHANCING).mean())
    rims, spots = sum(share > 0.6 for share in shares), sum(share < 0.3 for share in shares)
    assert rims + spots == 24
    assert 2 <= spots <= 11


def test_contrast_of_the_channels(brains):
    for phantom in brains:
        edema, core, enhancing = (levels(phantom, phantom.label == i) for i in (EDEMA, CORE, ENHANCING))
        brain = phantom.image[..., 0] > 0
        healthy = levels(phantom, brain & (phantom.label == 0) & ndimage.binary_erosion(brain, iterations=4))
        assert edema[FLAIR] > 1.5 * healthy[FLAIR]
        assert edema[T2] > 1.4 * healthy[T2]
        assert edema[T1] < 0.9 * healthy[T1]
        assert core[T1] < edema[T1]
        assert enhancing[T1GD] > 1.25 * healthy[T1GD]
        assert enhancing[T1] < healthy[T1]


def test_fluid_is_dark_on_flair_and_bright_on_t2(brains):
    for phantom in brains:
        image = phantom.image / np.median(phantom.image[phantom.image[..., 0] > 0], axis=0)
        fluid = (image[..., T2] > 1.7) & (phantom.label == 0) & (image[..., FLAIR] > 0)
        fluid &= ndimage.binary_erosion(phantom.image[..., 0] > 0, iterations=8)
        dark = fluid & (image[..., FLAIR] < 0.5)
        assert dark.sum() > 250  # the ventricles


def test_look_alikes_have_no_label(brains):
    for phantom in brains:
        away = ndimage.maximum_filter(phantom.label, 5) == 0
        for label, channel in ((EDEMA, FLAIR), (ENHANCING, T1GD)):
            level = np.median(phantom.image[..., channel][phantom.label == label])
            alike = (phantom.image[..., channel] > 0.85 * level) & away
            parts, _ = ndimage.label(alike)
            assert (np.bincount(parts.ravel())[1:] >= 5).sum() >= 3, channel


def test_no_channel_has_a_threshold_that_finds_its_region(brains):
    for phantom in brains:
        for mask, channel in ((phantom.label == ENHANCING, T1GD), (phantom.label >= CORE, FLAIR)):
            image = phantom.image[..., channel]
            found = [image > t for t in np.percentile(image[image > 0], np.arange(50, 100, 1))]
            assert max(2 * (mask & f).sum() / (mask.sum() + f.sum()) for f in found) < 0.85


def test_scales_differ_by_case_and_channel(brains):
    medians = np.array([np.median(p.image[p.image[..., 0] > 0], axis=0) for p in brains])
    assert (medians.max(axis=0) > 1.3 * medians.min(axis=0)).all()
    assert (medians.max(axis=1) > 1.3 * medians.min(axis=1)).all()


def test_tumours_lie_in_both_hemispheres_at_many_places():
    places = []
    for case in range(1, 17):
        phantom = make_brats_phantom(1, case, (32, 32, 32), (6.0, 6.0, 5.0))
        places.append(np.argwhere(phantom.label > 0).mean(axis=0))
    assert 3 <= sum(p[0] > 16 for p in places) <= 13
    assert (np.ptp(places, axis=0) > 5).all()
