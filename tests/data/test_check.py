from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import downloads
from dicom_scans import OBLIQUE, phantom, write_series
from medcontext.data import Problem, check_cases, check_dataset, check_images, problems_table
from medcontext.providers.prepare import prepare_dataset
from medcontext.storage.file_memory import FileMemory

LABELS = {"liver": 1, "spleen": 2}
Case = dict[str, Any]


def volume(path: Path, values: Any, affine: Any = None) -> str:
    nib.save(nib.Nifti1Image(np.asarray(values), np.eye(4) if affine is None else affine), path)
    return str(path)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    label = np.zeros((4, 5, 6), np.uint8)
    label[0], label[1] = 1, 2
    return {
        "image": volume(tmp_path / "img.nii.gz", np.zeros((4, 5, 6), np.int16)),
        "label": volume(tmp_path / "label.nii.gz", label),
    }


def problems(case: Case, **kwargs: Any) -> list[str]:
    found = check_cases({"training": [case]}, **{"in_channels": 1, "labels": LABELS, **kwargs})
    assert {(one.case, one.section) for one in found} <= {("img", "training")}
    return [str(one) for one in found]


def test_a_sound_case(case: Case) -> None:
    assert problems(case) == []


def other_shape(case: Case) -> None:
    volume(Path(case["label"]), np.ones((4, 5, 7), np.uint8))


def other_place(case: Case) -> None:
    volume(Path(case["label"]), np.ones((4, 5, 6), np.uint8), np.diag([1, 1, 2, 1]))


def surplus_label(case: Case) -> None:
    volume(Path(case["label"]), np.full((4, 5, 6), 7, np.uint8))


def sheared(case: Case) -> None:
    affine = np.eye(4)
    affine[0, 2] = 0.3
    volume(Path(case["image"]), np.zeros((4, 5, 6), np.int16), affine)


def four_axes(case: Case) -> None:
    volume(Path(case["image"]), np.zeros((4, 5, 6, 2), np.int16))


def truncated(case: Case) -> None:
    Path(case["image"]).write_bytes(Path(case["image"]).read_bytes()[:20])


def truncated_voxels(case: Case) -> None:
    volume = nib.Nifti1Image(np.random.default_rng(0).integers(0, 99, (4, 5, 6), np.int16), np.eye(4))
    Path(case["image"]).write_bytes(gzip.compress(volume.to_bytes())[:-30])


def fractions(case: Case) -> None:
    volume(Path(case["label"]), np.linspace(0, 2, 120).reshape(4, 5, 6))


def half(case: Case) -> None:
    volume(Path(case["label"]), np.full((4, 5, 6), 0.5))


def half_labelled(case: Case) -> None:
    volume(Path(case["label"]), np.repeat([0.0, 1.0, 2.0, np.nan], 30).reshape(4, 5, 6))


def not_finite(case: Case) -> None:
    values = np.zeros((4, 5, 6), np.float32)
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    volume(Path(case["image"]), values)


def nowhere(case: Case) -> None:
    label = nib.load(case["label"])
    label.header.set_sform(np.full((4, 4), np.nan), code=1)
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), None, label.header), case["label"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_shape, "label.nii.gz has shape (4, 5, 7), its image (4, 5, 6)"),
        (other_place, "img.nii.gz (their affines place a corner 5 mm apart); resample it onto the image"),
        (surplus_label, "holds the values 7, which `labels` does not declare"),
        (sheared, "img.nii.gz has a sheared grid, as by a tilted gantry"),
        (four_axes, "img.nii.gz has shape (4, 5, 6, 2); in_channels 1 asks for three axes"),
        (truncated, "img.nii.gz cannot be read"),
        (truncated_voxels, "img.nii.gz cannot be read"),
        (half, "label.nii.gz holds the values 0.5, which"),
        (fractions, "label.nii.gz holds the values 0.0168067, 0.0336134, 0.0504202, 0.0672269, 0.0840336, …, which"),
        (half_labelled, "label.nii.gz holds the values NaN, which"),
        (not_finite, "img.nii.gz has 3 voxels that are NaN or infinite"),
        (nowhere, "label.nii.gz has an affine that is not finite; repair the header"),
        (lambda case: Path(case["label"]).unlink(), "label.nii.gz is missing"),
        (lambda case: case.pop("label"), "img.nii.gz has no label"),
    ],
)
def test_what_is_found(case: Case, spoil: Callable[[Case], Any], message: str) -> None:
    spoil(case)
    (found,) = problems(case)
    assert message in found


def stale_pixdim(case: Case) -> None:
    label = nib.load(case["label"])
    label.header["pixdim"][1] = 1.0003
    Path(case["label"]).write_bytes(gzip.compress(label.to_bytes()))


def two_forms(case: Case) -> None:
    image = nib.load(case["image"])
    image.header.set_qform(np.diag([1, 1, -1, 1]), code=1)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), case["image"])


def healthy(case: Case) -> None:
    volume(Path(case["label"]), np.zeros((4, 5, 6), np.uint8))


@pytest.mark.parametrize(
    ("doubt", "message"),
    [
        (stale_pixdim, "label.nii.gz has voxels of 1.0003 × 1 × 1 mm by pixdim and of 1 × 1 × 1 mm by its affine"),
        (two_forms, "img.nii.gz lies up to 10 mm elsewhere by its qform (code 1) than by its sform (code 2)"),
        (healthy, "label.nii.gz holds no labelled voxel; leave the case out unless it is healthy."),
    ],
)
def test_what_is_doubtful_is_a_warning(case: Case, doubt: Callable[[Case], Any], message: str) -> None:
    doubt(case)
    (found,) = check_cases({"training": [case]}, in_channels=1, labels=LABELS)
    assert found.is_warning
    assert message in str(found)


def test_doubts_are_logged_before_a_prediction(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    two_forms(case)
    assert check_images([case], in_channels=1) == []
    assert "img.nii.gz lies up to 10 mm elsewhere by its qform" in caplog.text


def big_endian(path: str, values: Any) -> None:
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(values.astype(">i2"), np.eye(4), header), path)


@pytest.mark.parametrize(
    "write",
    [
        big_endian,
        lambda path, values: volume(Path(path), values[..., None]),
        lambda path, values: volume(Path(path), values[..., None, None]),
        lambda path, values: volume(Path(path), values - np.float32(1e-6)),
    ],
    ids=["big_endian", "trailing axis", "trailing axes", "noise"],
)
def test_labels_that_are_right_are_taken(case: Case, write: Callable[[str, Any], Any]) -> None:
    write(case["label"], np.asarray(nib.load(case["label"]).dataobj))
    assert problems(case) == []


def test_several_channels_are_the_fourth_axis(case: Case) -> None:
    volume(Path(case["image"]), np.zeros((4, 5, 6, 4), np.int16))
    assert problems(case, in_channels=4) == []
    assert "four axes, the last with 3 channels" in problems(case, in_channels=3)[0]


def test_a_fourth_axis_of_one_is_no_second_channel(case: Case) -> None:
    volume(Path(case["image"]), np.zeros((4, 5, 6, 1), np.int16))
    assert problems(case) == []


def test_images_to_predict(case: Case, tmp_path: Path) -> None:
    several = {"image": volume(tmp_path / "several.nii.gz", np.zeros((4, 5, 6, 3), np.int16))}
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    cases = [case, several, *({"image": str(tmp_path / name)} for name in ("broken.nii.gz", "photo.png"))]
    wrong, broken, picture = check_images(cases, in_channels=1)
    assert "photo.png is a picture (PNG), not a volume; give NIfTI" in picture
    assert wrong.endswith("several.nii.gz has shape (4, 5, 6, 3); in_channels 1 asks for three axes.")
    assert "broken.nii.gz cannot be read (" in broken
    assert check_images([several], in_channels=3) == []
    series = {"image": ["/ct/1", "/ct/2"], "series_instance_uid": "1.2"}
    assert check_images([series], in_channels=1) == []
    assert check_images([series], in_channels=2) == [
        "/ct holds a DICOM series, one channel; in_channels 2 asks for files of another format."
    ]


def test_labels_of_floating_point_are_whole_numbers_all_the_same(case: Case) -> None:
    volume(Path(case["label"]), np.repeat([0.0, 1.0, 2.0], 40).reshape(4, 5, 6))
    assert problems(case) == []


def test_several_channels_are_several_files(case: Case, tmp_path: Path) -> None:
    files = [volume(tmp_path / f"c{i}.nii.gz", np.full((4, 5, 6), i, np.int16)) for i in range(4)]
    case["image"] = files
    check: dict[str, Any] = {"in_channels": 4, "labels": LABELS}
    assert check_cases({"training": [case]}, **check) == []
    (found,) = check_cases({"training": [case]}, **check | {"in_channels": 3})
    assert "c0.nii.gz is one of 4 files; in_channels 3 asks for as many" in str(found)
    for shape, message in (
        ((4, 5, 7), "c2.nii.gz has shape (4, 5, 7), its image (4, 5, 6)"),
        ((4, 5, 6, 2), "c2.nii.gz has shape (4, 5, 6, 2); in_channels 4 asks for three axes"),
    ):
        volume(tmp_path / "c2.nii.gz", np.ones(shape))
        (found,) = check_cases({"training": [case]}, **check)
        assert message in str(found)
    shifted = np.eye(4)
    shifted[0, 3] = 0.01
    volume(tmp_path / "c2.nii.gz", np.full((4, 5, 6), 2, np.int16), shifted)
    (found,) = check_cases({"training": [case]}, **check)
    assert "c2.nii.gz and " in str(found)
    assert "have different affines, so they cannot be stacked as channels; make them equal" in str(found)
    Path(files[2]).unlink()
    (found,) = check_cases({"training": [case]}, **check)
    assert "c2.nii.gz is missing" in str(found)


def test_headers_may_differ_by_rounding(case: Case) -> None:
    label = np.ones((4, 5, 6), np.uint8)
    volume(Path(case["label"]), label, np.diag([1, 1, 1 + 1e-5, 1]))
    assert problems(case) == []
    volume(Path(case["label"]), label, np.diag([1, 1, 1 + 0.09 / 5, 1]))  # the last slice is 0.09 mm away
    assert problems(case) == []
    volume(Path(case["label"]), label, np.diag([1, 1, 1 + 0.11 / 5, 1]))
    assert "lies elsewhere" in problems(case)[0]


def test_all_problems_at_once_and_cases_listed_twice(case: Case, tmp_path: Path) -> None:
    missing = {"image": str(tmp_path / "a.nii"), "label": str(tmp_path / "b.nii")}
    found = check_cases({"training": [case, missing], "test": [case]}, in_channels=1, labels=LABELS)
    assert [(one.case, one.section) for one in found] == [("a", "training"), ("a", "training"), ("img", "test")]
    assert "is listed under training and test; list each case once" in str(found[-1])
    (found_twice,) = check_cases({"test": [case, case]}, in_channels=1, labels=LABELS)
    assert "is listed twice under test" in str(found_twice)


def test_cases_that_leak_under_another_name(case: Case, tmp_path: Path) -> None:
    (tmp_path / "link.nii.gz").symlink_to(case["image"])
    shutil.copy(case["image"], tmp_path / "copy.nii.gz")
    for name, message in (
        ("link", "listed under training and test"),
        ("copy", "has the same contents as .*.nii.gz"),
    ):
        leak = case | {"image": str(tmp_path / f"{name}.nii.gz")}
        (found,) = check_cases({"training": [case], "test": [leak]}, in_channels=1, labels=LABELS)
        assert (found.case, found.section) == (name, "test")
        assert re.search(message, str(found))
        (found,) = check_cases({"training": [leak], "test": [case]}, in_channels=1, labels=LABELS)
        assert (found.case, found.section) == ("img", "test")
        assert re.search(message, str(found))


def test_patients_in_two_sections(case: Case, tmp_path: Path) -> None:
    other = case | {"image": volume(tmp_path / "other.nii.gz", np.ones((4, 5, 6), np.int16)), "patient": "p1"}
    (found,) = check_cases({"training": [case | {"patient": "p1"}], "test": [other]}, in_channels=1, labels=LABELS)
    assert str(found) == "The patient p1 is in training too; keep all cases of a patient in one section."
    sections = {"training": [case | {"patient": "p1"}, other], "test": []}
    assert check_cases(sections, in_channels=1, labels=LABELS) == []


def test_voxels_are_read_once_while_files_do_not_change(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, read = FileMemory(tmp_path / "memory"), []
    load = nib.load
    monkeypatch.setattr(nib, "load", lambda file: (read.append(Path(file).name), load(file))[1])

    def reads(**kwargs: Any) -> list[str]:
        read.clear()
        assert problems(case, memory=FileMemory(memory.path), **kwargs) == []
        assert read[:2] == ["img.nii.gz", "label.nii.gz"]  # the headers
        return sorted(read[2:])

    assert reads(voxels=False) == []
    assert reads() == ["img.nii.gz", "label.nii.gz"]
    assert reads() == []
    assert reads(voxels=True) == ["img.nii.gz", "label.nii.gz"]
    volume(Path(case["label"]), np.full((4, 5, 6), 2, np.uint16))
    assert reads() == ["label.nii.gz"]
    surplus_label(case)
    for _ in range(2):
        assert "holds the values 7" in problems(case, memory=memory)[0]
    assert problems(case, memory=memory, labels={"other": 7}) == []


@pytest.mark.parametrize("key", ["image", "label"])
def test_a_flipped_bit_is_noticed_by_the_checksum_at_the_end(tmp_path: Path, key: str) -> None:
    values = np.random.default_rng(0).integers(1, 3, (16, 16, 16), np.uint8)
    case = {name: volume(tmp_path / f"{name}.nii.gz", values) for name in ("image", "label")}
    content = bytearray(Path(case[key]).read_bytes())
    content[-6] ^= 1  # of the checksum, so that nothing else tells
    Path(case[key]).write_bytes(content)
    ((found,)) = [str(one) for one in check_cases({"training": [case]}, in_channels=1, labels=LABELS)]
    assert re.search(f"{key}.nii.gz cannot be read .CRC check failed", found)


def test_voxels_are_not_read_where_headers_are_enough(case: Case) -> None:
    surplus_label(case)
    assert problems(case, voxels=False) == []


# --- whole datasets ---


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return prepare_dataset("brats", downloads.brats_2021(tmp_path / "download"), tmp_path / "out")


TUMOR: dict[str, Any] = {"in_channels": 4, "labels": {"non_enhancing_tumor": 1, "edema": 2, "enhancing_tumor": 4}}


def test_prepared_datasets(prepared: Path) -> None:
    assert check_dataset(prepared, **TUMOR, hashes=True) == []
    found = check_dataset(prepared, in_channels=4, labels={"edema": 1, "core": 2, "enhancing": 3})
    assert len(found) == 20
    assert "_seg.nii.gz holds the values 4, which" in str(found[0])


def test_changed_files(prepared: Path) -> None:
    case = json.loads(prepared.read_text())["test"][0]
    volume(prepared.parent / case["image"][2], np.ones((4, 5, 6)), np.diag([1, 2, 3, 1]))
    assert check_dataset(prepared, **TUMOR) == []
    (found,) = check_dataset(prepared, **TUMOR, hashes=True)
    assert found.section == "test"
    assert str(found) == f"{case['image'][2]} has changed since it was prepared (SHA-256 differs); prepare it again."


def test_hashes_that_nobody_recorded(prepared: Path) -> None:
    content = json.loads(prepared.read_text())
    del content["sha256"]
    prepared.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="gives no SHA-256 to compare with; only prepared datasets have them"):
        check_dataset(prepared, **TUMOR, hashes=True)


def test_leaks_are_looked_for_beyond_what_a_run_uses(prepared: Path) -> None:
    content = json.loads(prepared.read_text())
    content["test"].append(content["training"][0])
    prepared.write_text(json.dumps(content))
    (found,) = check_dataset(prepared, {"validation": []}, **TUMOR)
    assert (found.section, found.case) == ("test", "BraTS2021_00000_flair")
    assert len(check_dataset(prepared, **TUMOR)) == 1


def test_files_outside_of_the_dataset_are_worth_a_look(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    inside = {key: shutil.copy(case[key], tmp_path / "mine") for key in ("image", "label")}
    content = {"training": [inside | {"label": case["label"]}], "test": [{**case, "image": "../img.nii.gz"}]}
    (tmp_path / "mine" / "dataset.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path / "mine")
    found = check_dataset("../mine/dataset.json", in_channels=1, labels=LABELS)
    outside = [problem for problem in found if "lies outside of the folder of dataset.json" in problem.problem]
    assert [(problem.section, problem.is_warning) for problem in outside] == [("training", True), ("test", True)]
    assert outside[1].problem.startswith(f"{tmp_path}/mine/../mine/../img.nii.gz lies")


def test_the_table_has_a_line_for_each_problem() -> None:
    table = problems_table(
        [Problem("a", "training", "x is missing."), Problem("case_2", "test", "y " * 100 + "!", is_warning=True)]
    )
    header, first, second = (line.rstrip() for line in table.splitlines())
    assert header.split() == ["case", "section", "problem"]
    assert first.split() == ["a", "training", "x", "is", "missing."]
    assert "warning: y" in second
    assert second.endswith("y !")
    assert header.index("section") == first.index("training") == second.index("test")


# --- unlabelled scans ---


@pytest.fixture
def with_unlabeled(tmp_path: Path) -> Callable[..., list[str]]:
    """Problems of a dataset of CT, one case each to train on and to test, with an unlabelled scan of one's own."""
    label = np.zeros((4, 5, 6), np.uint8)
    label[0], label[1] = 1, 2
    sections: dict[str, list[Case]] = {"training": [], "test": []}
    for number, section in enumerate(sections):
        image = volume(tmp_path / f"img{number}.nii", np.full((4, 5, 6), number - 1000, np.int16))
        sections[section].append({"image": image, "label": volume(tmp_path / f"label{number}.nii", label)})

    def check(scan: str | list[str], modality: str | None = "CT", in_channels: int = 1) -> list[str]:
        content = {**sections, "modality": {"0": modality}} if modality else sections
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        used = {"training": sections["training"], "unlabeled": [{"image": scan}]}
        found = check_dataset(tmp_path / "dataset.json", used, in_channels=in_channels, labels=LABELS)
        assert {problem.section for problem in found} <= {"unlabeled"}
        return [str(problem) for problem in found]

    return check


def test_a_sound_unlabelled_scan(with_unlabeled: Callable[..., list[str]], tmp_path: Path) -> None:
    assert with_unlabeled(volume(tmp_path / "more.nii", np.full((4, 5, 6), -900, np.int16))) == []


@pytest.mark.parametrize("copied", ["img0.nii", "img1.nii"])
def test_an_unlabelled_scan_that_is_a_labelled_or_a_test_case(
    with_unlabeled: Callable[..., list[str]], tmp_path: Path, copied: str
) -> None:
    """By its contents, whatever its name, and by its place."""
    shutil.copy(tmp_path / copied, tmp_path / "more.nii")
    section = {"img0.nii": "training", "img1.nii": "test"}[copied]
    (problem,) = with_unlabeled(str(tmp_path / "more.nii"))
    assert f"more.nii has the same contents as {copied} ({section}); remove one." in problem
    (problem,) = with_unlabeled(str(tmp_path / copied))
    assert f"{copied} is listed under {section} and unlabeled; list each case once." in problem


def test_unlabelled_scans_of_other_channels(with_unlabeled: Callable[..., list[str]], tmp_path: Path) -> None:
    (problem,) = with_unlabeled(volume(tmp_path / "more.nii", np.full((4, 5, 6, 2), -900, np.int16)))
    assert re.search("more.nii .*2", problem)


def test_unlabelled_scans_with_voxels_that_are_not_finite(
    with_unlabeled: Callable[..., list[str]], tmp_path: Path
) -> None:
    values = np.full((4, 5, 6), -900, np.float32)
    values[0, 0, 0] = np.nan
    (problem,) = with_unlabeled(volume(tmp_path / "more.nii", values))
    assert "more.nii has 1 voxels that are NaN or infinite" in problem


@pytest.mark.parametrize(
    ("lowest", "modality", "message"),
    [
        (0, "CT", "is no CT in Hounsfield units, with values from 0 to 7, while the dataset is CT; give scans of the"),
        (-1000, "MRI", "is CT, while the dataset is MRI; give scans of the same modality"),
        (-3, "CT", None),  # who can tell
        (-3, "MRI", None),
        (0, "MRI", None),
        (0, None, None),
    ],
)
def test_unlabelled_scans_of_another_modality(
    with_unlabeled: Callable[..., list[str]], tmp_path: Path, lowest: int, modality: str | None, message: str | None
) -> None:
    values = np.full((4, 5, 6), 7, np.int16)
    values[0] = lowest
    found = with_unlabeled(volume(tmp_path / "more.nii", values), modality)
    assert len(found) == (message is not None)
    assert message is None or message in found[0]


@pytest.mark.parametrize(
    ("modality", "in_channels", "message"),
    [
        ("CT", 1, None),
        ("MRI", 1, "000.dcm is CT, while the dataset is MRI; give scans of the same modality"),
    ],
)
def test_unlabelled_series(
    with_unlabeled: Callable[..., list[str]], tmp_path: Path, modality: str, in_channels: int, message: str | None
) -> None:
    files = write_series(tmp_path / "series", phantom(), OBLIQUE)
    found = with_unlabeled([str(file) for file in files], modality, in_channels)
    assert len(found) == (message is not None)
    assert message is None or message in found[0]


def test_what_a_dataset_lists_is_checked_once(tmp_path: Path, case: Case) -> None:
    shutil.copy(case["image"], tmp_path / "more.nii.gz")
    content = {"modality": {"0": "CT"}, "test": [case], "unlabeled": ["more.nii.gz"]}
    volume(Path(case["image"]), np.full((4, 5, 6), -900, np.int16))
    shutil.copy(case["image"], tmp_path / "more.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (problem,) = check_dataset(tmp_path / "dataset.json", in_channels=1, labels=LABELS)
    assert "more.nii.gz has the same contents as img.nii.gz (test); remove one." in str(problem)
