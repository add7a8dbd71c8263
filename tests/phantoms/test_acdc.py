import numpy as np
import pytest
from scipy import ndimage

from medcontext.data.datasets import ACDC_LABELS, load_split
from medcontext.phantoms.acdc import GROUPS, acdc_frames, acdc_info, make_acdc_phantom

RIGHT, MUSCLE, LEFT = (next(i for i, name in ACDC_LABELS.items() if name.startswith(n)) for n in ("ri", "my", "le"))
PATIENTS = (1, 22, 45, 61, 83)
"""One of each group."""


@pytest.fixture(scope="module")
def hearts():
    return {(n, phase): make_acdc_phantom(0, n, phase) for n in PATIENTS for phase in ("ED", "ES")}


def volume(phantom, label):
    return (phantom.label == label).sum() * abs(np.linalg.det(phantom.affine[:3, :3])) / 1000


def full_slices(phantom):
    """Slices between base and apex: not the outermost ones with muscle, which the base's plane may cut."""
    found = np.flatnonzero((phantom.label == LEFT).any(axis=(0, 1)))
    return found[:-2]


def test_labels_are_those_of_acdc():
    assert ACDC_LABELS == {0: "background", 1: "right_ventricle", 2: "myocardium", 3: "left_ventricle"}


def test_both_phases_show_the_same_slices_of_the_same_chest(hearts):
    for patient in PATIENTS:
        rest, contracted = hearts[patient, "ED"], hearts[patient, "ES"]
        assert rest.image.shape == contracted.image.shape
        np.testing.assert_array_equal(rest.affine, contracted.affine)
        far = ndimage.distance_transform_edt(rest.label == 0, sampling=(1.5, 1.5, 1000)) > 45
        values = [ndimage.uniform_filter(p.image.astype(float), (5, 5, 1))[far] for p in (rest, contracted)]
        assert np.corrcoef(values)[0, 1] > 0.99
        assert (rest.image != contracted.image).mean() > 0.8


def test_the_heart_contracts_by_its_group(hearts):
    fractions = {}
    for patient, group in zip(PATIENTS, GROUPS, strict=True):
        rest, contracted = hearts[patient, "ED"], hearts[patient, "ES"]
        for cavity in (LEFT, RIGHT):
            assert volume(contracted, cavity) < 0.95 * volume(rest, cavity)
        assert volume(contracted, MUSCLE) == pytest.approx(volume(rest, MUSCLE), rel=0.3)
        fractions[group] = 1 - volume(contracted, LEFT) / volume(rest, LEFT)
    assert fractions["DCM"] < 0.4
    assert fractions["MINF"] < fractions["NOR"] < fractions["HCM"]
    assert volume(hearts[1, "ED"], LEFT) > 1.3 * volume(hearts[61, "ED"], LEFT)  # dilated
    assert volume(hearts[83, "ED"], RIGHT) > 1.15 * volume(hearts[61, "ED"], RIGHT)


def test_muscle_encloses_the_left_ventricle_and_thickens(hearts):
    for (patient, phase), phantom in hearts.items():
        for z in full_slices(phantom):
            around = ndimage.binary_dilation(phantom.label[..., z] == LEFT) & (phantom.label[..., z] != LEFT)
            assert set(np.unique(phantom.label[..., z][around])) == {MUSCLE}, (patient, phase, z)
    for patient in PATIENTS:
        thickness = []
        for phase in ("ED", "ES"):
            areas = [
                (hearts[patient, phase].label[..., full_slices(hearts[patient, phase])[1:]] == i).sum()
                for i in (LEFT, MUSCLE)
            ]
            slices = len(full_slices(hearts[patient, phase])) - 1
            thickness.append(np.sqrt(sum(areas) / slices) - np.sqrt(areas[0] / slices))
        assert thickness[1] > 1.05 * thickness[0]


def test_right_ventricle_lies_on_the_patients_right_beside_the_muscle(hearts):
    for phantom in hearts.values():
        right, left = (np.argwhere(phantom.label == i).mean(axis=0) @ phantom.affine[:3, :3].T for i in (RIGHT, LEFT))
        assert right[0] > left[0] + 20
        touched = ndimage.binary_dilation(phantom.label == RIGHT, np.ones((3, 3, 1))) & (phantom.label == MUSCLE)
        assert touched.sum() > 60


def test_from_base_to_apex(hearts):
    for phantom in hearts.values():
        present = {i: np.flatnonzero((phantom.label == i).any(axis=(0, 1))) for i in (RIGHT, MUSCLE, LEFT)}
        assert present[MUSCLE].min() < present[RIGHT].min()
        assert phantom.image.shape[2] - 1 > present[MUSCLE].max()  # slices above the base
        areas = (phantom.label == LEFT).sum(axis=(0, 1))[full_slices(phantom)]
        assert areas[0] < 0.7 * areas.max()
    assert any(not (p.label[..., 0] > 0).any() for p in hearts.values())  # below the apex


def test_geometry_varies_by_patient_and_is_anisotropic():
    shapes, sizes = [], []
    for patient in range(1, 25):
        phantom = make_acdc_phantom(0, patient, "ED", (32, 32, 10), (7.5, 7.5, 10.0))
        assert phantom.label.max() == 3
        shapes.append(phantom.label.shape)
        sizes.append(np.diag(phantom.affine)[:3])
    slices, thickness = {s[2] for s in shapes}, {round(s[2], 3) for s in sizes}
    assert {s[:2] for s in shapes} == {(32, 32)}
    assert {8, 10, 12} <= slices <= set(range(8, 19))
    assert thickness == {10.0, 8.0, 6.5}
    assert 0.2 < np.ptp([s[0] for s in sizes]) < 1


def test_blood_and_muscle_look_alike_with_and_without_a_label(hearts):
    for phantom in hearts.values():
        inside = {i: ndimage.binary_erosion(phantom.label == i, np.ones((3, 3, 1))) for i in (RIGHT, MUSCLE, LEFT)}
        levels = {i: np.median(phantom.image[core]) for i, core in inside.items()}
        assert levels[RIGHT] == pytest.approx(levels[LEFT], rel=0.2)
        assert levels[MUSCLE] < 0.65 * levels[LEFT]
        smooth = ndimage.uniform_filter(phantom.image.astype(float), (3, 3, 1))
        away = ndimage.maximum_filter(phantom.label, (5, 5, 1)) == 0
        for label in (LEFT, MUSCLE):
            alike = (np.abs(smooth - levels[label]) < 0.12 * levels[label]) & away
            assert alike.sum() > (phantom.label == label).sum(), label


def test_no_threshold_finds_the_left_ventricle(hearts):
    for phantom in hearts.values():
        truth = phantom.label == LEFT
        dice = [
            2 * (truth & (phantom.image > t)).sum() / (truth.sum() + (phantom.image > t).sum())
            for t in np.percentile(phantom.image, np.arange(50, 100, 2.5))
        ]
        assert max(dice) < 0.6


def test_intensities_have_no_unit(hearts):
    scales = [np.percentile(hearts[patient, "ED"].image, 99) for patient in PATIENTS]
    assert max(scales) > 1.5 * min(scales)
    assert all(p.image.dtype == np.int16 and p.image.min() >= 0 for p in hearts.values())


def test_frames_and_info_are_those_of_the_case_ids():
    frames = acdc_frames()
    assert len(frames) == 100
    assert frames["patient001"] == {"ED": 1, "ES": 12}
    assert frames["patient090"] == {"ED": 11, "ES": 4}  # the only one whose cine does not start at end-diastole
    cases = [case for part in load_split("acdc").values() for case in part]
    assert sorted(cases) == sorted(f"{p}_frame{n:02d}" for p, pair in frames.items() for n in pair.values())
    info = acdc_info(0, 90)
    assert list(info) == ["ED", "ES", "Group", "Height", "NbFrame", "Weight"]
    assert (info["ED"], info["ES"], info["Group"]) == (11, 4, "RV")
    assert [acdc_info(0, n)["Group"] for n in (1, 20, 21, 41, 80)] == ["DCM", "DCM", "HCM", "MINF", "NOR"]
    assert acdc_info(0, 5) == acdc_info(0, 5) != acdc_info(1, 5)
    assert all(acdc_info(0, n)["NbFrame"] >= 16 for n in range(1, 101))
