"""Folders in nnU-Net's raw format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from downloads import volume
from medcontext.data import case_name, label_mapping, load_cases
from medcontext.providers import import_dataset
from own_data import described, nnunet


def read(source: Path, output: Path, **options: Any) -> dict[str, Any]:
    return json.loads(import_dataset("nnunet", output, source=source, **options).read_text())


def test_every_channel_is_a_file_and_tests_with_labels_are_test_cases(tmp_path: Path) -> None:
    content = read(nnunet(tmp_path / "Dataset007_X", channels=2, labelled_tests="d"), tmp_path / "out")
    assert content["name"] == "Dataset007_X"
    assert content["modality"] == {"0": "T1", "1": "FLAIR"}
    assert content["labels"] == {"0": "background", "1": "liver", "2": "spleen"}
    assert content["training"][0] == {
        "image": ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"],
        "label": "labelsTr/a.nii.gz",
    }
    assert [entry["label"] for entry in content["test"]] == ["labelsTs/d.nii.gz"]
    assert content["unlabeled"] == [{"image": ["imagesTs/e_0000.nii.gz", "imagesTs/e_0001.nii.gz"]}]
    assert case_name(load_cases(tmp_path / "out" / "dataset.json", "test")[0]) == "d"


def test_version_1_and_folders_above_the_dataset(tmp_path: Path) -> None:
    source = nnunet(
        tmp_path / "nnUNet_raw" / "Task007_X",
        labels={"0": "background", "2": "spleen", "1": "liver"},
        channel_names=None,
        modality={"0": "CT"},
        name="Abdomen",
        license="CC BY 4.0",
    )
    content = json.loads((source / "dataset.json").read_text())
    del content["channel_names"], content["file_ending"]
    described(source, **content)
    prepared = read(tmp_path / "nnUNet_raw", tmp_path / "out")
    assert (prepared["name"], prepared["license"], prepared["modality"]) == ("Abdomen", "CC BY 4.0", {"0": "CT"})
    assert list(prepared["labels"].items()) == [("0", "background"), ("1", "liver"), ("2", "spleen")]
    assert prepared["training"][0] == {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}


def test_ignored_voxels(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "source", labels={"background": 0, "liver": 1, "ignore": 2})
    assert read(source, tmp_path / "out")["labels"] == {"0": "background", "1": "liver", "2": "ignore"}
    assert label_mapping(tmp_path / "out" / "dataset.json", {"liver": 1}) == [[0, 1, 2], [0, 1, -1]]


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_other_endings_are_listed_as_they_are(tmp_path: Path, ending: str) -> None:
    source = nnunet(tmp_path / "source", file_ending=ending)
    for path in list(source.rglob("*.nii.gz")):
        path.rename(path.with_name(path.name.removesuffix(".nii.gz") + ending))
    volume(source / "imagesTr" / "f_0000.nii.gz")
    content = read(source, tmp_path / "out")
    assert content["training"][2] == {"image": f"imagesTr/c{ending}", "label": f"labelsTr/c{ending}"}
    assert content["prepared"]["left_out"] == ["imagesTr/f_0000.nii.gz: belongs to no case"]


def test_all_that_is_missing_is_named(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "source", channels=2)
    (source / "imagesTr" / "a_0001.nii.gz").unlink()
    (source / "imagesTs" / "e_0000.nii.gz").unlink()
    volume(source / "labelsTr" / "f.nii.gz", labels=(1,))
    with pytest.raises(FileNotFoundError) as refusal:
        read(source, tmp_path / "out")
    assert str(refusal.value).splitlines() == [
        f"{source} has 3 incomplete cases:",
        "  a lacks imagesTr/a_0001.nii.gz",
        "  f lacks imagesTr/f_0000.nii.gz, imagesTr/f_0001.nii.gz",
        "  e lacks imagesTs/e_0000.nii.gz",
        "Add or rename files or leave these cases out with --allow_missing True.",
    ]
    content = read(source, tmp_path / "out", allow_missing=True)
    assert [content[f"num{part}"] for part in ("Training", "Unlabeled")] == [2, 1]


def test_contradictions_are_all_named(tmp_path: Path) -> None:
    source = nnunet(tmp_path / "source")
    volume(source / "imagesTr" / "b_0001.nii.gz")
    volume(source / "imagesTs" / "c_0000.nii.gz")
    with pytest.raises(ValueError, match="contradicts itself") as refusal:
        read(source, tmp_path / "out")
    assert [line.strip() for line in str(refusal.value).splitlines()[1:]] == [
        "imagesTr/b_0001.nii.gz is a channel that channel_names, which has 1, does not name; name or remove it.",
        "c is in imagesTr and in imagesTs; remove one.",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": {"background": 0, "tumor": [1, 2]}}, r"makes 'tumor' a region of the ids \[1, 2\]; .* `reported`"),
        (
            {"labels": {"background": 0, "ignore": 1, "liver": 2}},
            "'ignore' the id 1, but ids go up to 2; its id must",
        ),
        ({"labels": {"background": 0, "ignore": 1}}, "names no structure beside the background"),
        ({"labels": {"background": 0, "liver": "1"}}, "gives 'liver' the id '1'; an id is a whole number"),
        ({"labels": {"background": 0, "liver": -1}}, "gives 'liver' the id -1; an id is a whole number"),
        ({"labels": {"background": 0, "liver": 10**30}}, "gives 'liver' the id 10+; an id is a whole number"),
        ({"labels": {"background": 0, "li\x1bver": 1}}, r"names 'li\\x1bver', which has control characters; rename it"),
        ({"labels": {"background": 1, "liver": 2}}, "gives 'background' the id 1; the background must have the id 0"),
        ({"labels": {"background": 0, "liver": 1, "spleen": 1}}, "gives one name or one id twice"),
        ({"labels": {"0": "background", "1": "liver", "2": "liver"}}, "gives one name or one id twice"),
        ({"labels": {"background": 0}}, "names no structure beside the background"),
        ({"labels": ["liver"]}, r"labels of dataset.json .* must name the label ids.*got \['liver'\]"),
        ({"channel_names": ["CT"]}, r"channel_names of .* must name the channels.*got \['CT'\]"),
        ({"channel_names": {"1": "CT"}}, r"must number the channels from 0 to 0, got \['1'\]"),
        ({"file_ending": ".png"}, "file_ending of .* must be one of .nii.gz, .nii, .nrrd.*got '.png'; convert"),
        ({"file_ending": ".nrrd"}, r"has no file imagesTr/CASE_0000.nrrd .*it holds imagesTr/a_0000.nii.gz"),
        ({"dataset": {"a": {}}}, "lists files elsewhere, under 'dataset'; put them into imagesTr and labelsTr"),
    ],
)
def test_descriptions_that_cannot_be_used(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(nnunet(tmp_path / "source", **content), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no dataset.json, which describes an nnU-Net or Decathlon dataset; give the folder that has one"),
        ("{", r"dataset.json of .* is not valid JSON \(.*\); repair it"),
        ("[1]", "dataset.json of .* must be a JSON object, got list"),
    ],
)
def test_sources_of_something_else(tmp_path: Path, text: str | None, message: str) -> None:
    (tmp_path / "source").mkdir()
    if text:
        (tmp_path / "source" / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "source", tmp_path / "out")


def test_several_datasets_in_one_folder(tmp_path: Path) -> None:
    for name in ("Dataset001_A", "Dataset002_B"):
        nnunet(tmp_path / "raw" / name)
    with pytest.raises(ValueError, match=r"several datasets \(Dataset001_A/dataset.json, Dataset002_B/dataset.json\)"):
        read(tmp_path / "raw", tmp_path / "out")
