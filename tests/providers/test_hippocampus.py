"""How the Decathlon's hippocampus is divided, and what speaks against a download of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import downloads
from downloads import tarred, volume
from medcontext.data import check_dataset, load_cases, load_split
from medcontext.providers.prepare import prepare_dataset

TRAINING = [f"hippocampus_{number:03d}" for number in (2, 3, 5, 6, 7, 8)]
SCANS = [f"hippocampus_{number:03d}" for number in (233, 235, 236)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What unpacking the archive gives; not to be changed."""
    return downloads.hippocampus(tmp_path_factory.mktemp("hippocampus"))


@pytest.fixture
def download(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "download")) / "Task04_Hippocampus"


def prepared(download: Path, tmp_path: Path, **arguments: Any) -> dict[str, Any]:
    return json.loads(prepare_dataset("hippocampus", download, tmp_path / "out", **arguments).read_text())


def names(cases: list[dict[str, Any]]) -> list[str]:
    return [Path(case["image"]).name.removesuffix(".nii.gz") for case in cases]


def rewrite(download: Path, **changes: Any) -> None:
    content = json.loads((download / "dataset.json").read_text()) | changes
    (download / "dataset.json").write_text(json.dumps(content))


def entries(cases: list[str]) -> list[dict[str, str]]:
    return [{"image": f"imagesTr/{case}.nii.gz", "label": f"labelsTr/{case}.nii.gz"} for case in cases]


@pytest.mark.parametrize("form", ["tar", "folder", "folder without dataset.json"])
def test_sixty_cases_test_by_name_and_unlabelled_scans_stay_unlabelled(
    download: Path, tmp_path: Path, form: str
) -> None:
    if form == "folder without dataset.json":
        (download / "dataset.json").unlink()
    source = tarred(download.parent, tmp_path / "Task04_Hippocampus.tar") if form == "tar" else download
    content = prepared(source, tmp_path)
    assert names(content["test"]) == load_split("hippocampus")["test"]
    assert len(set(names(content["test"]))) == 60
    assert names(content["training"]) == TRAINING
    assert content["unlabeled"] == [{"image": f"imagesTs/{case}.nii.gz"} for case in SCANS]
    assert [content[f"num{part}"] for part in ("Training", "Validation", "Test", "Unlabeled")] == [6, 0, 60, 3]
    assert content["labels"] == {"0": "background", "1": "anterior", "2": "posterior"}
    assert content["prepared"]["split"] == "60 test cases by name"
    assert content["prepared"]["left_out"] == []
    assert (tmp_path / "out" / "imagesTs" / f"{SCANS[0]}.nii.gz").is_file()


def test_a_split_of_the_sources_own_is_kept(download: Path, tmp_path: Path) -> None:
    tests = load_split("hippocampus")["test"]
    parts = {"training": tests[:5], "validation": tests[5:7], "test": TRAINING}
    rewrite(download, **{part: entries(cases) for part, cases in parts.items()})
    for case in tests[7:]:
        for folder in ("imagesTr", "labelsTr"):
            (download / folder / f"{case}.nii.gz").unlink()
    content = prepared(download, tmp_path)
    assert {part: names(content[part]) for part in parts} == parts
    assert names(content["unlabeled"]) == SCANS  # listed nowhere now, but there
    assert content["prepared"]["split"] == "that of the source's dataset.json"


def test_a_prepared_dataset_can_be_prepared_again(download: Path, tmp_path: Path) -> None:
    first = prepared(download, tmp_path)
    second = json.loads(prepare_dataset("hippocampus", tmp_path / "out", tmp_path / "again").read_text())
    for part in ("training", "validation", "test", "unlabeled", "sha256"):
        assert second[part] == first[part]


def test_readers_take_what_is_labelled_and_leave_the_rest_alone(download: Path, tmp_path: Path) -> None:
    prepared(download, tmp_path)
    datalist = tmp_path / "out" / "dataset.json"
    assert [len(load_cases(datalist, part)) for part in ("training", "validation", "test")] == [6, 0, 60]
    labels = {"anterior": 1, "posterior": 2}
    assert check_dataset(datalist, in_channels=1, labels=labels, voxels=True, hashes=True) == []


def test_all_that_is_missing_surplus_or_misnamed_is_listed(download: Path, tmp_path: Path) -> None:
    (download / "imagesTs" / f"{SCANS[0]}.nii.gz").unlink()
    (download / "labelsTr" / "hippocampus_001.nii.gz").unlink()
    (download / "imagesTr" / "hippocampus_003.nii.gz").rename(download / "imagesTr" / "hippocampus_3.nii.gz")
    volume(download / "imagesTr" / "hippocampus_010.nii.gz")
    with pytest.raises(FileNotFoundError) as refusal:
        prepared(download, tmp_path)
    lines = str(refusal.value).splitlines()
    assert "lacks 3 files of Hippocampus of the Medical Segmentation Decathlon" in lines[0]
    assert lines[1:6] == [
        "  imagesTr/hippocampus_003.nii.gz",
        "  labelsTr/hippocampus_001.nii.gz",
        f"  imagesTs/{SCANS[0]}.nii.gz",
        "It has files of unknown names:",
        "  imagesTr/hippocampus_3.nii.gz",
    ]
    content = prepared(download, tmp_path, allow_missing=True)
    assert content["prepared"]["left_out"] == [
        "hippocampus_001: lacks labelsTr/hippocampus_001.nii.gz",
        "hippocampus_003: lacks imagesTr/hippocampus_003.nii.gz",
        "hippocampus_010: not in the split",
        f"{SCANS[0]}: lacks imagesTs/{SCANS[0]}.nii.gz",
        "imagesTr/hippocampus_3.nii.gz: belongs to no case",
    ]
    assert [content[f"num{part}"] for part in ("Training", "Test", "Unlabeled")] == [5, 59, 2]


def test_contradictions_are_all_named(download: Path, tmp_path: Path) -> None:
    shutil.copy(download / "imagesTr" / "hippocampus_002.nii.gz", download / "imagesTs")
    swapped = {"image": "imagesTr/hippocampus_003.nii.gz", "label": "labelsTr/hippocampus_005.nii.gz"}
    rewrite(
        download,
        labels={"0": "background", "1": "posterior", "2": "anterior"},
        training=[*entries(["hippocampus_002", "hippocampus_002", "hippocampus_005"]), swapped],
        unlabeled=["imagesTr/hippocampus_005.nii.gz"],
    )
    with pytest.raises(ValueError, match="contradicts itself") as refusal:
        prepared(download, tmp_path)
    lines = [line.strip() for line in str(refusal.value).splitlines()[1:]]
    expected = [
        "dataset.json lists hippocampus_002 twice under training; list each case once.",
        "dataset.json gives imagesTr/hippocampus_003.nii.gz the label labelsTr/hippocampus_005.nii.gz of another case.",
        "dataset.json lists hippocampus_005 under training and unlabeled; list each case once.",
        "imagesTr/hippocampus_002.nii.gz and imagesTs/hippocampus_002.nii.gz make hippocampus_002 a case with a label",
        "dataset.json calls the labels {0: 'background', 1: 'posterior', 2: 'anterior'}; of the hippocampus 1 is",
    ]
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "dataset.json of .* is not valid JSON"),
        ("[]", "dataset.json of .* must be a JSON object, got list"),
        ('{"training": {}}', "must be an object with lists of cases"),
        ('{"training": [3]}', "must list a path under 'image' for each training case"),
        ('{"test": [{"label": "a.nii.gz"}]}', "must list a path under 'image' for each test case"),
        ('{"labels": ["a"]}', "'labels' of dataset.json must map ids to names"),
    ],
)
def test_damaged_lists(download: Path, tmp_path: Path, text: str, message: str) -> None:
    (download / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        prepared(download, tmp_path)
    assert not (tmp_path / "out").exists()


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    volume(tmp_path / "Task02_Heart" / "imagesTr" / "la_003.nii.gz")
    with pytest.raises(
        ValueError, match=r"(?s)holds none of the files.*imagesTr/hippocampus_\*.nii.gz, labels.*holds .*la_003"
    ):
        prepare_dataset("hippocampus", tmp_path / "Task02_Heart", tmp_path / "out")
