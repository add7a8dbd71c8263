import dataclasses
import gzip
import json
import re

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medcontext.data.datasets import BTCV_LABELS, load_split
from medcontext.phantoms import cohort as cohorts
from medcontext.phantoms.brats import make_brats_phantom
from medcontext.phantoms.btcv import make_btcv_phantom
from medcontext.phantoms.cohort import phantom_split, store_phantom, write_phantoms

SMALL = {"size": (32, 32, 32), "spacing": (4.5, 4.5, 6.0), "progress": False}
LABEL = {name: index for index, name in BTCV_LABELS.items()}
RIGHT, FRONT, UP = 0, 1, 2


@pytest.fixture(scope="module")
def cases():
    return [make_btcv_phantom(seed, case) for seed in (0, 7) for case in (1, 5, 33)]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("cohort"), **SMALL)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def break_off_at(monkeypatch, case):
    """Make the generator fail at one case, as if the process had been stopped there."""
    kind = cohorts.PHANTOM_DATASETS["btcv"]

    def make(seed, case_id, size, spacing):
        if case is None or case_id == case:
            raise KeyboardInterrupt
        return kind.make(seed, case_id, size, spacing)

    monkeypatch.setitem(cohorts.PHANTOM_DATASETS, "btcv", dataclasses.replace(kind, make=make))


# The cohort on disk


def test_whole_cohort_has_the_published_split_and_layout(cohort):
    content = json.loads(cohort.read_text())
    published = load_split("btcv")
    assert [re.search(r"(\d{4})", c["image"])[1] for c in content["training"]] == published["training"]
    assert [re.search(r"(\d{4})", c["image"])[1] for c in content["test"]] == published["test"]
    assert (content["numTraining"], content["numTest"], content["validation"]) == (18, 12, [])
    assert content["training"][0] == {
        "image": "Training/img/img0005.nii.gz",
        "label": "Training/label/label0005.nii.gz",
    }
    assert content["tensorImageSize"] == "3D"
    assert content["modality"] == {"0": "CT"}
    assert content["labels"] == {str(index): name for index, name in BTCV_LABELS.items()}
    files = {case[key] for case in content["training"] + content["test"] for key in ("image", "label")}
    assert set(contents(cohort.parent)) == files | {"dataset.json"}


def test_labels_are_those_of_btcv():
    assert list(BTCV_LABELS) == list(range(14))
    assert (BTCV_LABELS[1], BTCV_LABELS[6], BTCV_LABELS[13]) == ("spleen", "liver", "left_adrenal_gland")


@pytest.mark.parametrize(("num_cases", "training", "test"), [(2, 1, 1), (3, 2, 1), (5, 3, 2), (8, 5, 3)])
def test_smaller_cohorts_keep_the_proportion(tmp_path, num_cases, training, test):
    content = json.loads(write_phantoms(tmp_path, num_cases=num_cases, **SMALL).read_text())
    assert (len(content["training"]), len(content["test"])) == (training, test)


def test_same_seed_gives_same_bytes_whatever_the_number_of_cases(tmp_path, cohort):
    few = contents(write_phantoms(tmp_path / "few", num_cases=3, **SMALL).parent)
    again = contents(write_phantoms(tmp_path / "again", num_cases=3, **SMALL).parent)
    assert few == again
    whole = contents(cohort.parent)
    volumes = [name for name in few if name.endswith(".nii.gz")]
    assert len(volumes) == 6
    assert all(few[name] == whole[name] for name in volumes)


def test_seed_and_case_change_every_volume(tmp_path, cohort):
    other = contents(write_phantoms(tmp_path, num_cases=3, seed=1, **SMALL).parent)
    whole = contents(cohort.parent)
    volumes = [name for name in other if name.endswith(".nii.gz")]
    assert all(other[name] != whole[name] for name in volumes)
    assert len({whole[name] for name in volumes}) == len(volumes)


def test_volumes_share_their_geometry_and_some_are_not_ras(cohort):
    orientations = []
    for case in (c for part in ("training", "test") for c in json.loads(cohort.read_text())[part]):
        image, label = (nib.load(cohort.parent / case[key]) for key in ("image", "label"))
        assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
        assert image.shape == label.shape == (32, 32, 32)
        np.testing.assert_array_equal(image.affine, label.affine)
        for volume in (image, label):
            assert volume.header["qform_code"] > 0
            assert volume.header["sform_code"] > 0
            np.testing.assert_allclose(volume.get_qform(), volume.get_sform(), atol=1e-4)
        assert np.abs(image.affine[:3, 3]).min() > 1
        assert nib.affines.voxel_sizes(nib.as_closest_canonical(image).affine) == pytest.approx((4.5, 4.5, 6.0))
        assert set(np.unique(label.dataobj)) == set(BTCV_LABELS)
        orientations.append("".join(nib.aff2axcodes(image.affine)))
    assert orientations.count("RAS") == 20
    assert set(orientations) == {"RAS", "LPS", "LAS", "ASR", "LIA"}


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "ASR", "LIA"])
def test_stored_orientation_leaves_the_anatomy_in_place(orientation):
    phantom = make_btcv_phantom(3, 5, (32, 36, 40), (4.5, 4.0, 5.0))
    image, label = (nib.Nifti1Image.from_bytes(_unzip(data)) for data in store_phantom(phantom, orientation))
    assert "".join(nib.aff2axcodes(image.affine)) == orientation
    canonical_image, canonical_label = nib.as_closest_canonical(image), nib.as_closest_canonical(label)
    np.testing.assert_array_equal(canonical_image.dataobj, phantom.image)
    np.testing.assert_array_equal(canonical_label.dataobj, phantom.label)
    np.testing.assert_allclose(canonical_image.affine, phantom.affine, atol=1e-4)


def _unzip(data):
    assert data[:3] == b"\x1f\x8b\x08"
    assert data[3:8] == bytes(5), "gzip's header holds a file name or a time"
    return gzip.decompress(data)


# The twins of the other datasets

TINY = {
    "acdc": {"size": (32, 32, 4), "spacing": (7.5, 7.5, 25.0)},
    "brats": {"size": (32, 32, 32), "spacing": (6, 6, 5)},
    "hippocampus": {"size": (24, 32, 24), "spacing": (1.5, 1.5, 1.5)},
}
LABELS = {"acdc": {0, 1, 2, 3}, "brats": {0, 1, 2, 3}, "hippocampus": {0, 1, 2}}


@pytest.fixture(scope="module", params=list(TINY))
def twin(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, write_phantoms(
        folder, dataset=request.param, num_cases=12, progress=False, **TINY[request.param]
    )


def test_twins_have_the_published_split_and_layout(twin):
    dataset, path = twin
    content, published = json.loads(path.read_text()), phantom_split(dataset)
    first = {
        "acdc": {
            "image": "training/patient001/patient001_frame01.nii.gz",
            "label": "training/patient001/patient001_frame01_gt.nii.gz",
        },
        "brats": {"image": "imagesTr/BRATS_001.nii.gz", "label": "labelsTr/BRATS_001.nii.gz"},
        "hippocampus": {"image": "imagesTr/hippocampus_002.nii.gz", "label": "labelsTr/hippocampus_002.nii.gz"},
    }
    assert content["training"][0] == first[dataset]
    counts = {"acdc": (8, 2, 2), "brats": (9, 2, 1), "hippocampus": (9, 0, 3)}[dataset]
    for part, count in zip(("training", "validation", "test"), counts, strict=True):
        cases = [re.search(r"([^/]+)\.nii", case["image"])[1] for case in content[part]]
        assert cases == published[part][:count]
    assert content["tensorImageSize"] == ("4D" if dataset == "brats" else "3D")
    channels = {"acdc": ["MR"], "brats": ["FLAIR", "T1w", "T1gd", "T2w"], "hippocampus": ["MRI"]}
    assert list(content["modality"].values()) == channels[dataset]
    cases = content["training"] + content["validation"] + content["test"]
    files = {case[key] for case in cases for key in ("image", "label")} | {"dataset.json"}
    if dataset == "hippocampus":
        scans = [f"imagesTs/{case}.nii.gz" for case in published["unlabeled"][:6]]  # half as many, as in the real one
        assert content["unlabeled"] == [{"image": scan} for scan in scans]
        assert content["numUnlabeled"] == 6
        files |= set(scans)
    else:
        assert "unlabeled" not in content
    if dataset == "acdc":
        files |= {f"training/{case['image'].split('/')[1]}/Info.cfg" for case in cases}
    assert set(contents(path.parent)) == files


def test_twins_are_stored_in_several_orientations_with_one_geometry(twin):
    dataset, path = twin
    orientations = {}
    for case in (c for part in ("training", "validation", "test") for c in json.loads(path.read_text())[part]):
        image, label = (nib.load(path.parent / case[key]) for key in ("image", "label"))
        assert image.shape == label.shape + ((4,) if dataset == "brats" else ())
        np.testing.assert_array_equal(image.affine, label.affine)
        assert set(np.unique(label.dataobj)) == LABELS[dataset]
        patient = re.search(r"(patient|BRATS_|hippocampus_)\d+", case["image"])[0]
        orientations.setdefault(patient, set()).add("".join(nib.aff2axcodes(image.affine)))
    assert all(len(found) == 1 for found in orientations.values())
    assert {"RAS", "LPS"} <= set.union(*orientations.values())


def test_twins_give_the_same_bytes_whatever_the_number_of_cases(twin, tmp_path):
    dataset, path = twin
    few = write_phantoms(tmp_path, dataset=dataset, num_cases=6, progress=False, **TINY[dataset]).parent
    whole = contents(path.parent)
    volumes = {name: content for name, content in contents(few).items() if name != "dataset.json"}
    assert len(volumes) >= 12
    assert all(whole[name] == content for name, content in volumes.items())
    assert len(set(volumes.values())) == len(volumes)


@pytest.mark.parametrize("orientation", ["LPS", "ASR", "LIA"])
def test_channels_stay_last_in_every_orientation(orientation):
    phantom = make_brats_phantom(0, 1, (32, 36, 40), (6, 5, 4))
    image, label = (nib.Nifti1Image.from_bytes(_unzip(data)) for data in store_phantom(phantom, orientation))
    assert "".join(nib.aff2axcodes(image.affine)) == orientation
    np.testing.assert_array_equal(nib.as_closest_canonical(image).dataobj, phantom.image)
    np.testing.assert_array_equal(nib.as_closest_canonical(label).dataobj, phantom.label)
    np.testing.assert_allclose(nib.as_closest_canonical(image).affine, phantom.affine, atol=1e-4)


def test_info_names_the_frames_of_the_case_ids(tmp_path):
    info = tmp_path / "training" / "patient090" / "Info.cfg"
    write_phantoms(tmp_path, dataset="acdc", num_cases=40, progress=False, **TINY["acdc"])
    assert re.fullmatch(r"ED: 11\nES: 4\nGroup: RV\nHeight: \d+\.0\nNbFrame: \d+\nWeight: \d+\.0\n", info.read_text())
    info.unlink()
    write_phantoms(tmp_path, dataset="acdc", num_cases=40, progress=False, **TINY["acdc"])
    assert info.is_file()


def test_forty_cases_are_the_default_of_brats(tmp_path):
    content = json.loads(write_phantoms(tmp_path, dataset="brats", progress=False, **TINY["brats"]).read_text())
    assert [len(content[part]) for part in ("training", "validation", "test")] == [32, 6, 2]


# Writing again, breaking off, refusing


def test_finished_cohort_is_left_alone(tmp_path, monkeypatch):
    datalist = write_phantoms(tmp_path, num_cases=2, **SMALL)
    break_off_at(monkeypatch, None)
    assert write_phantoms(tmp_path, num_cases=2, **SMALL) == datalist


def test_interrupted_cohort_is_completed_without_starting_over(tmp_path, monkeypatch):
    expected = contents(write_phantoms(tmp_path / "whole", num_cases=5, **SMALL).parent)
    folder = tmp_path / "broken"
    with monkeypatch.context() as patch:
        break_off_at(patch, "0001")
        with pytest.raises(KeyboardInterrupt):
            write_phantoms(folder, num_cases=5, **SMALL)
    assert not (folder / "dataset.json").exists()
    with monkeypatch.context() as patch:
        break_off_at(patch, "0005")  # already there
        write_phantoms(folder, num_cases=5, **SMALL)
    assert contents(folder) == expected


def test_lost_volume_is_written_again(tmp_path):
    datalist = write_phantoms(tmp_path, num_cases=2, **SMALL)
    expected = contents(tmp_path)
    (tmp_path / "Training/label/label0005.nii.gz").unlink()
    assert write_phantoms(tmp_path, num_cases=2, **SMALL) == datalist
    assert contents(tmp_path) == expected


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_cases": 3}, {"spacing": (4.5, 4.5, 5.0)}])
def test_cohort_with_other_parameters_is_refused(tmp_path, monkeypatch, change):
    parameters = {"num_cases": 2, **SMALL}
    write_phantoms(tmp_path / "finished", **parameters)
    with monkeypatch.context() as patch:
        break_off_at(patch, "0001")
        with pytest.raises(KeyboardInterrupt):
            write_phantoms(tmp_path / "broken", **parameters)
    for name in ("finished", "broken"):
        before = contents(tmp_path / name)
        with pytest.raises(ValueError, match=r"other parameters: .* Delete the folder or give another one\."):
            write_phantoms(tmp_path / name, **(parameters | change))
        assert contents(tmp_path / name) == before


@pytest.mark.parametrize("name", ["img0001.nii.gz", "dataset.json", "Training/img/img0001.nii.gz"])
def test_real_data_are_never_touched(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"training": []}')
    with pytest.raises(ValueError, match="not describe a generated cohort|not a generated cohort"):
        write_phantoms(tmp_path, **SMALL)
    assert contents(tmp_path) == {name: b'{"training": []}'}


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be a folder"):
        write_phantoms(tmp_path / "file", **SMALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "lits"}, "dataset must be one of 'acdc', 'brats', 'btcv', 'hippocampus', got 'lits'"),
        ({"num_cases": 1}, r"num_cases .* from 2 \(one for each of training, test\) to 30"),
        ({"num_cases": 31}, "num_cases .* got 31"),
        ({"num_cases": 4.5}, "num_cases .* got 4.5"),
        (
            {"dataset": "acdc", "num_cases": 7},
            r"multiple of 2 from 6 \(a patient for each of training, validation, test\)",
        ),
        ({"dataset": "acdc", "num_cases": 4}, "num_cases .* got 4"),
        ({"dataset": "acdc", "size": (96, 96, 3)}, "at least 32 × 32 × 4, got"),
        ({"size": (96, 96)}, "size must be three"),
        ({"size": (96, 96, 31)}, "at least 32"),
        ({"size": 96}, "size must be three"),
        ({"spacing": (1.5, 1.5, 0)}, "spacing must be three"),
        ({"spacing": (1.5, 1.5, float("inf"))}, "spacing must be three"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_phantoms(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


# The anatomy


@pytest.mark.parametrize(
    ("organ", "axis", "other"),
    [
        ("liver", RIGHT, "spleen"),
        ("liver", RIGHT, "stomach"),
        ("right_kidney", RIGHT, "inferior_vena_cava"),
        ("inferior_vena_cava", RIGHT, "aorta"),
        ("aorta", RIGHT, "left_kidney"),
        ("right_adrenal_gland", RIGHT, "left_adrenal_gland"),
        ("gallbladder", RIGHT, "pancreas"),
        ("gallbladder", FRONT, "right_kidney"),
        ("stomach", FRONT, "left_kidney"),
        ("pancreas", FRONT, "aorta"),
        ("portal_and_splenic_vein", FRONT, "inferior_vena_cava"),
        ("stomach", FRONT, "spleen"),
        ("esophagus", UP, "stomach"),
        ("liver", UP, "gallbladder"),
        ("liver", UP, "right_kidney"),
        ("spleen", UP, "left_kidney"),
        ("right_adrenal_gland", UP, "right_kidney"),
        ("left_adrenal_gland", UP, "left_kidney"),
    ],
)
def test_organs_keep_their_relative_places_in_world_space(cases, organ, axis, other):
    for phantom in cases:
        first, second = (
            nib.affines.apply_affine(phantom.affine, np.argwhere(phantom.label == LABEL[name]).mean(axis=0))
            for name in (organ, other)
        )
        assert first[axis] > second[axis] + 3


def test_every_organ_has_a_usable_size(cases):
    smallest = {"liver": 12000, "stomach": 3000, "spleen": 1500, "right_kidney": 1400, "left_kidney": 1400}
    smallest |= {"aorta": 1000, "inferior_vena_cava": 1000}
    for phantom in cases:
        for name, index in LABEL.items():
            if index:
                assert (phantom.label == index).sum() >= smallest.get(name, 150), name


def test_labels_are_whole(cases):
    """A later organ may cover a part of an earlier one, but must not cut it up."""
    for phantom in cases:
        for name, index in LABEL.items():
            parts, count = ndimage.label(phantom.label == index, np.ones((3, 3, 3)))
            sizes = np.bincount(parts.ravel())[1:]
            assert sizes.max() >= 0.95 * sizes.sum() or count == 1, name


def test_organs_and_vessels_share_their_intensities(cases):
    for phantom in cases:
        core = {i: ndimage.binary_erosion(phantom.label == i) for i in LABEL.values()}
        hu = {name: np.median(phantom.image[core[i]]) for name, i in LABEL.items()}
        parenchyma = [hu[name] for name in ("spleen", "liver", "right_kidney", "left_kidney")]
        vessels = [hu[name] for name in ("aorta", "inferior_vena_cava")]
        assert np.ptp(parenchyma) < 22
        assert np.ptp(vessels) < 22
        assert min(parenchyma) > 70
        assert min(vessels) > max(parenchyma) + 15


def test_unlabelled_tissue_looks_like_labelled_organs(cases):
    """Intensity cannot tell the organs: solid unlabelled bodies have the spleen's and the aorta's."""
    for phantom in cases:
        smooth = ndimage.gaussian_filter(phantom.image.astype(np.float32), 0.7)
        away = ndimage.maximum_filter(phantom.label, 5) == 0
        for organ in ("spleen", "aorta"):
            hu = np.median(phantom.image[phantom.label == LABEL[organ]])
            parts, _ = ndimage.label(ndimage.binary_erosion((np.abs(smooth - hu) < 20) & away))
            assert (np.bincount(parts.ravel())[1:] >= 15).sum() >= 2, organ


def test_fat_and_air_have_their_hounsfield_units_and_moderate_noise(cases):
    levels = []
    for phantom in cases:
        assert phantom.image.min() >= -1024
        corner = phantom.image[:6, -6:]
        assert corner.mean() == pytest.approx(-1000, abs=6)
        fat = ndimage.binary_erosion(np.abs(ndimage.gaussian_filter(phantom.image.astype(float), 1) + 100) < 15)
        values = phantom.image[fat & (phantom.label == 0)]
        assert values.mean() == pytest.approx(-100, abs=8)
        levels.append(values.std())
    assert 8 < min(levels) < max(levels) < 22


def test_body_lies_within_the_field(cases):
    for phantom in cases:
        body = ndimage.binary_opening(phantom.image > -300, iterations=2)
        across = np.flatnonzero(body.any(axis=(1, 2)))
        deep = np.flatnonzero(body.any(axis=(0, 2)))
        assert across[0] > 0
        assert across[-1] < 95
        assert deep[0] > 0
        assert deep[-1] < 95
        assert np.ptp(across) > 70


def test_shape_size_and_intensity_vary_by_case(cases):
    volumes = [(phantom.label == LABEL["liver"]).sum() for phantom in cases]
    intensities = [np.median(phantom.image[phantom.label == LABEL["liver"]]) for phantom in cases]
    places = [np.argwhere(phantom.label == LABEL["left_kidney"]).mean(axis=0) for phantom in cases]
    assert np.std(volumes) / np.mean(volumes) > 0.04
    assert np.std(intensities) > 4
    assert (np.std(places, axis=0) > 0.8).all()


def test_volumes_of_this_generator_stay_the_same():
    """Other volumes call for another ``GENERATOR``, or finished cohorts would be taken for new ones."""
    phantom = make_btcv_phantom(3, 33, (32, 36, 40), (4.5, 4.0, 5.0))
    voxels = [43756, 159, 125, 119, 20, 33, 1302, 242, 126, 82, 24, 64, 14, 14]
    np.testing.assert_allclose(np.bincount(phantom.label.ravel()), voxels, atol=2)
    assert phantom.image.mean() == pytest.approx(-660.05, abs=0.02)
    assert phantom.image.std() == pytest.approx(455.28, abs=0.02)
    np.testing.assert_allclose(phantom.affine[:3, 3], [-63.75, -93.0, -232.5])


def test_resolution_does_not_change_what_is_shown():
    """The body fills the field: relative organ volumes depend little on the number of voxels."""
    shares = [np.bincount(make_btcv_phantom(0, 5, (n, n, n)).label.ravel(), minlength=14)[1:] / n**3 for n in (40, 96)]
    np.testing.assert_allclose(shares[0], shares[1], rtol=0.25)
