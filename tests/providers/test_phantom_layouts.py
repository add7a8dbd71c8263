import gzip
import json
import re
import tarfile
import zipfile

import nibabel as nib
import numpy as np
import pytest

from medcontext.phantoms.cohort import write_phantoms
from phantom_layouts import PHANTOM_LAYOUTS, pack_phantoms

COHORTS = {
    "btcv": {"num_cases": 2, "size": (32, 32, 32), "spacing": (4.5, 4.5, 6)},
    "acdc": {"num_cases": 6, "size": (32, 32, 4), "spacing": (7.5, 7.5, 25)},
    "brats": {"num_cases": 3, "size": (32, 32, 32), "spacing": (6, 6, 5)},
    "hippocampus": {"num_cases": 5, "size": (24, 32, 24), "spacing": (1.5, 1.5, 1.5)},
}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return {
        dataset: write_phantoms(tmp_path_factory.mktemp(dataset), dataset=dataset, progress=False, **arguments).parent
        for dataset, arguments in COHORTS.items()
    }


@pytest.fixture(scope="module")
def packed(cohorts, tmp_path_factory):
    """Paths and contents of every layout, archives as they come out of their tool."""
    folder, found = tmp_path_factory.mktemp("packed"), {}
    for layout, form in PHANTOM_LAYOUTS.items():
        path = pack_phantoms(cohorts[form.dataset], layout, folder / f"{layout}.out")
        if form.archive == "zip":
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
                found[layout] = {name: archive.read(name) for name in archive.namelist()}
        elif form.archive == "tar":
            with tarfile.open(path) as archive:
                found[layout] = {member.name: archive.extractfile(member).read() for member in archive}
        else:
            files = [file for file in path.rglob("*") if file.is_file()]
            found[layout] = {str(file.relative_to(path)): file.read_bytes() for file in files}
    return found


def load(content):
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def test_btcv_has_training_labels_and_unlabelled_test_images(cohorts, packed):
    expected = {
        "RawData/Training/img/img0005.nii.gz",
        "RawData/Training/label/label0005.nii.gz",
        "RawData/Training/img/img0001.nii.gz",
        "RawData/Training/label/label0001.nii.gz",
        "RawData/Testing/img/img0061.nii.gz",
        "RawData/Testing/img/img0062.nii.gz",
    }
    assert set(packed["btcv_zip"]) == expected
    assert packed["btcv_zip"] == packed["btcv_folder"]
    for name in expected:
        if "Training" in name:
            assert packed["btcv_zip"][name] == (cohorts["btcv"] / name.removeprefix("RawData/")).read_bytes()
    assert load(packed["btcv_zip"]["RawData/Testing/img/img0061.nii.gz"]).shape == (32, 32, 32)


@pytest.mark.parametrize(
    ("layout", "top", "note"), [("acdc_zip", "training", False), ("acdc_folder", "ACDC/database/training", True)]
)
def test_acdc_has_a_folder_for_every_patient(cohorts, packed, layout, top, note):
    files = packed[layout]
    names = {name.removeprefix(f"{top}/patient089/") for name in files if "/patient089/" in name}
    volumes = {f"patient089_{part}.nii.gz" for part in ("4d", "frame01", "frame01_gt", "frame10", "frame10_gt")}
    assert names == volumes | {"Info.cfg"} | ({"MANDATORY_CITATION.md"} if note else set())
    assert {name.split("/patient")[1][:3] for name in files if "/patient" in name} == {"001", "089", "002"}
    for name in volumes - {"patient089_4d.nii.gz"}:
        assert files[f"{top}/patient089/{name}"] == (cohorts["acdc"] / "training/patient089" / name).read_bytes()


def test_acdc_cine_passes_through_both_frames(packed):
    files = {name.split("/")[-1]: content for name, content in packed["acdc_zip"].items() if "patient089" in name}
    length = int(re.search(r"NbFrame: (\d+)", files["Info.cfg"].decode())[1])
    cine = load(files["patient089_4d.nii.gz"])
    first, tenth = (load(files[f"patient089_frame{n}.nii.gz"]) for n in ("01", "10"))
    assert cine.shape == (*first.shape, length)
    np.testing.assert_array_equal(cine.affine, first.affine)
    values = np.asarray(cine.dataobj)
    np.testing.assert_array_equal(values[..., 0], first.dataobj)
    np.testing.assert_array_equal(values[..., 9], tenth.dataobj)
    between = (np.asarray(first.dataobj, float) * 5 + np.asarray(tenth.dataobj, float) * 4) / 9
    np.testing.assert_allclose(values[..., 4], between, atol=0.51)


def test_acdc_as_nnunet_lays_it_out(cohorts, packed):
    files = packed["acdc_nnunet"]
    content = json.loads(files.pop("Dataset027_ACDC/dataset.json"))
    assert content["labels"] == {"background": 0, "RV": 1, "MLV": 2, "LVC": 3}
    assert (content["numTraining"], len(files)) == (6, 12)
    source = cohorts["acdc"] / "training/patient002"
    image = files["Dataset027_ACDC/imagesTr/patient002_frame12_0000.nii.gz"]
    assert image == (source / "patient002_frame12.nii.gz").read_bytes()
    label = files["Dataset027_ACDC/labelsTr/patient002_frame12.nii.gz"]
    assert label == (source / "patient002_frame12_gt.nii.gz").read_bytes()


def test_decathlon_has_its_json_unlabelled_tests_and_junk(cohorts, packed):
    assert packed["brats_msd_tar"] == packed["brats_msd_folder"]
    files = {name.removeprefix("Task01_BrainTumour/"): content for name, content in packed["brats_msd_tar"].items()}
    content = json.loads(files["dataset.json"])
    listed = [entry[key] for entry in content["training"] for key in ("image", "label")] + content["test"]
    assert listed[:2] == ["./imagesTr/BRATS_001.nii.gz", "./labelsTr/BRATS_001.nii.gz"]
    assert content["test"] == ["./imagesTs/BRATS_485.nii.gz", "./imagesTs/BRATS_486.nii.gz"]
    assert content["labels"]["2"] == "non-enhancing tumor"
    junk = {name for name in files if "/._" in name}
    assert {name.replace("._", "") for name in junk} == {name.removeprefix("./") for name in listed}
    assert set(files) == junk | {name.removeprefix("./") for name in listed} | {"dataset.json"}
    assert all(files[name][:4] == b"\x00\x05\x16\x07" for name in junk)
    assert files["labelsTr/BRATS_001.nii.gz"] == (cohorts["brats"] / "labelsTr/BRATS_001.nii.gz").read_bytes()
    assert load(files["imagesTs/BRATS_485.nii.gz"]).shape == (32, 32, 32, 4)


def test_hippocampus_has_its_unlabelled_scans_as_tests(cohorts, packed):
    assert packed["hippocampus_msd_tar"] == packed["hippocampus_msd_folder"]
    files = {
        name.removeprefix("Task04_Hippocampus/"): content for name, content in packed["hippocampus_msd_tar"].items()
    }
    content = json.loads(files["dataset.json"])
    assert (
        [len(content[part]) for part in ("training", "test")] == [content["numTraining"], content["numTest"]] == [5, 2]
    )
    assert content["labels"] == {"0": "background", "1": "Anterior", "2": "Posterior"}
    assert (content["modality"], content["tensorImageSize"]) == ({"0": "MRI"}, "3D")
    listed = [entry[key] for entry in content["training"] for key in ("image", "label")] + content["test"]
    assert listed[-1].startswith("./imagesTs/")
    names = {name.removeprefix("./") for name in listed}
    assert {name for name in files if "/._" not in name} == names | {"dataset.json"}
    assert all(files[name] == (cohorts["hippocampus"] / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("layout", "stem", "channels", "numbers"),
    [
        ("brats_2021", "BraTS2021_00058/BraTS2021_00058_", ("flair", "t1", "t1ce", "t2"), (2, 1, 4)),
        (
            "brats_2023",
            "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/BraTS-GLI-00058-000/BraTS-GLI-00058-000-",
            ("t2f", "t1n", "t1c", "t2w"),
            (2, 1, 3),
        ),
    ],
)
def test_challenges_have_a_file_for_every_channel_and_their_own_label_ids(
    cohorts, packed, layout, stem, channels, numbers
):
    files = packed[layout]
    assert len(files) == 3 * 5
    source = nib.load(cohorts["brats"] / "imagesTr/BRATS_058.nii.gz")
    for channel, name in enumerate(channels):  # FLAIR, T1w, T1gd, T2w
        image = load(files[f"{stem}{name}.nii.gz"])
        np.testing.assert_array_equal(image.dataobj, source.dataobj[..., channel])
        np.testing.assert_array_equal(image.affine, source.affine)
    before = np.asarray(nib.load(cohorts["brats"] / "labelsTr/BRATS_058.nii.gz").dataobj)
    after = np.asarray(load(files[f"{stem}seg.nii.gz"]).dataobj)
    for old, new in zip((1, 2, 3), numbers, strict=True):  # oedema, core, what takes up contrast
        assert (before == old).any()
        np.testing.assert_array_equal(after == new, before == old)


@pytest.mark.parametrize("layout", ["btcv_zip", "brats_msd_tar", "hippocampus_msd_tar"])
def test_same_cohort_gives_the_same_bytes(cohorts, tmp_path, layout):
    dataset = PHANTOM_LAYOUTS[layout].dataset
    first, second = (pack_phantoms(cohorts[dataset], layout, tmp_path / name / "x").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("layout", "source", "error", "message"),
    [
        ("rawdata", "btcv", ValueError, "layout must be one of btcv_zip, .*, got 'rawdata'"),
        ("acdc_zip", "btcv", ValueError, "must hold a finished acdc cohort, got .* with btcv"),
        ("acdc_zip", None, ValueError, "with none. Write one with: python -m medcontext phantoms --dataset acdc"),
    ],
)
def test_wrong_sources_are_refused(cohorts, tmp_path, layout, source, error, message):
    with pytest.raises(error, match=message):
        pack_phantoms(cohorts.get(source, tmp_path), layout, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(cohorts, tmp_path):
    (tmp_path / "RawData.zip").write_text("mine")
    with pytest.raises(FileExistsError, match=r"RawData.zip exists already; delete it or give another output"):
        pack_phantoms(cohorts["btcv"], "btcv_zip", tmp_path / "RawData.zip")
    assert (tmp_path / "RawData.zip").read_text() == "mine"


def test_a_lost_volume_leaves_no_half_archive(cohorts, tmp_path):
    write_phantoms(tmp_path / "cohort", progress=False, **COHORTS["btcv"])
    (tmp_path / "cohort/Training/label/label0001.nii.gz").unlink()
    for layout in ("btcv_zip", "btcv_folder"):
        with pytest.raises(FileNotFoundError, match=r"label0001.nii.gz"):
            pack_phantoms(tmp_path / "cohort", layout, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]
