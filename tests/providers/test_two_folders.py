"""Images and label maps in two folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from downloads import volume
from medcontext.providers import import_dataset
from own_data import two_folders


def read(folder: Path, output: Path, **options: Any) -> dict[str, Any]:
    given = {"images": folder / "images", "labels": folder / "labels", "modality": "CT", **options}
    return json.loads(import_dataset("folder", output, **given).read_text())


def pairs(content: dict[str, Any]) -> list[tuple[Any, str]]:
    return [(entry["image"], entry["label"]) for entry in content["training"]]


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (
            ["b.nii.gz", "a.nii"],
            ["a.nii.gz", "b.nii.gz"],
            [("images/a.nii", "labels/a.nii.gz"), ("images/b.nii.gz", "labels/b.nii.gz")],
        ),
        (
            ["a.nii.gz", "b.nii.gz", "c.nii", "d_mask.nii"],
            ["a_seg.nii.gz", "b-Label.nii.gz", "c_gt.nii", "d_mask.nii"],
            [
                ("images/a.nii.gz", "labels/a.nii.gz"),
                ("images/b.nii.gz", "labels/b.nii.gz"),
                ("images/c.nii", "labels/c.nii"),
                ("images/d_mask.nii", "labels/d_mask.nii"),
            ],
        ),
        (
            ["a_0000.nii.gz", "b_0000.nii.gz"],
            ["a.nii.gz", "b_seg.nii.gz"],
            [("images/a.nii.gz", "labels/a.nii.gz"), ("images/b.nii.gz", "labels/b.nii.gz")],
        ),
        (  # numbers of cases, not of channels
            ["ct_0000.nii.gz", "ct_0001.nii.gz"],
            ["ct_0000.nii.gz", "ct_0001.nii.gz"],
            [(f"images/ct_000{i}.nii.gz", f"labels/ct_000{i}.nii.gz") for i in (0, 1)],
        ),
    ],
)
def test_pairs_by_name(tmp_path: Path, images: list[str], labels: list[str], expected: list[Any]) -> None:
    content = read(two_folders(tmp_path, images, labels), tmp_path / "out")
    assert pairs(content) == expected


def test_several_channels(tmp_path: Path) -> None:
    names = [f"{case}_{channel:04d}.nii.gz" for case in "ab" for channel in range(2)]
    two_folders(tmp_path, names, ["a.nii.gz", "b.nii.gz"])
    content = read(tmp_path, tmp_path / "out", modality=("T1", "FLAIR"))
    assert content["modality"] == {"0": "T1", "1": "FLAIR"}
    assert pairs(content)[0] == (["images/a_0000.nii.gz", "images/a_0001.nii.gz"], "labels/a.nii.gz")
    with pytest.raises(ValueError, match="images/a_0001.nii.gz is channel 1, but modality names 1; name all or remove"):
        read(tmp_path, tmp_path / "other")
    (tmp_path / "images" / "b_0001.nii.gz").unlink()
    (tmp_path / "images" / "a_0000.nii.gz").unlink()
    message = r"(?s)a_0001.nii.gz lacks the channels a_0000\n.*b_0000.nii.gz lacks the channels b_0001\n"
    with pytest.raises(FileNotFoundError, match=message):
        read(tmp_path, tmp_path / "other", modality="T1,FLAIR")


def test_a_file_of_four_axes_has_all_channels(tmp_path: Path) -> None:
    two_folders(tmp_path, (), ["a.nii.gz", "b.nii.gz"])
    for case in "ab":
        volume(tmp_path / "images" / f"{case}.nii.gz", channels=2)
    assert pairs(read(tmp_path, tmp_path / "out", modality="T1,FLAIR"))[0][0] == "images/a.nii.gz"


def test_one_folder_for_both(tmp_path: Path) -> None:
    two_folders(tmp_path, ["a.nii.gz", "b.nii.gz"], ["a_seg.nii.gz", "b_seg.nii.gz"])
    for path in (tmp_path / "labels").iterdir():
        shutil.move(path, tmp_path / "images")
    content = read(tmp_path, tmp_path / "out", labels=tmp_path / "images")
    assert pairs(content) == [(f"images/{case}.nii.gz", f"labels/{case}.nii.gz") for case in "ab"]


def test_names_of_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    two_folders(tmp_path, ["a.nii", "b.nii"], ["a.nii", "b.nii"])
    assert read(tmp_path, tmp_path / "out")["labels"] == {"0": "background", "1": "label_1", "3": "label_3"}
    assert "The labels are called label_1, label_3; name them with --label_names '{\"liver\": 1}'." in caplog.text
    caplog.clear()
    named = read(tmp_path, tmp_path / "out", label_names={"liver": 1, "spleen": 3})
    assert named["labels"] == {"0": "background", "1": "liver", "3": "spleen"}
    assert caplog.text == ""


def test_every_file_without_a_partner_is_named(tmp_path: Path) -> None:
    two_folders(tmp_path, ["a.nii", "b.nii", "c.nii", "d.nii"], ["a.nii", "b.nii", "x.nii", "y_seg.nii"])
    with pytest.raises(FileNotFoundError) as refusal:
        read(tmp_path, tmp_path / "out")
    assert [line.strip() for line in str(refusal.value).splitlines()] == [
        f"{tmp_path / 'images'} has 4 incomplete cases:",
        "labels/x.nii has no image",
        "labels/y_seg.nii has no image",
        "images/c.nii has no label",
        "images/d.nii has no label",
        "Add or rename files, list the images without a label as unlabelled scans with --keep_unlabeled True, or leave "
        "these cases out with --allow_missing True.",
    ]
    with pytest.raises(FileNotFoundError, match="has 2 incomplete cases:\n  labels/x.nii has no image"):
        read(tmp_path, tmp_path / "out", keep_unlabeled=True)
    content = read(tmp_path, tmp_path / "out", keep_unlabeled=True, allow_missing=True)
    assert content["unlabeled"] == [{"image": "images/c.nii"}, {"image": "images/d.nii"}]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["a.nii", "a.nii.gz"], ["a.nii"], "images/a.nii and images/a.nii.gz are the same image of a; remove one"),
        (["a.nii"], ["a.nii", "a_seg.nii"], "labels/a.nii and labels/a_seg.nii are both labels of a; remove one"),
        (["a.nii"], ["a.nii"], "images has 1 labelled cases to train on; at least 2 are needed"),
        (
            ["p1/a.nii"],
            ["a.nii"],
            r"images holds no volume \(.nii.gz, .*\); it holds p1/a.nii. Put the volumes directly",
        ),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, images: list[str], labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(two_folders(tmp_path, images, labels), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_that_are_missing_or_hold_other_files(tmp_path: Path) -> None:
    two_folders(tmp_path, ["a.nii", "b.nii"], ["a.nii", "b.nii"])
    (tmp_path / "images" / "notes.txt").touch()
    content = read(tmp_path, tmp_path / "out")
    assert [line.split(":")[0] for line in content["prepared"]["left_out"]] == ["images/notes.txt"]
    with pytest.raises(
        FileNotFoundError, match="There is no folder .*absent; give the folder of the labels as --labels"
    ):
        read(tmp_path, tmp_path / "out", labels=tmp_path / "absent")


def test_images_are_no_label_maps(tmp_path: Path) -> None:
    two_folders(tmp_path, ["a.nii", "b.nii"], ["a.nii"])
    volume(tmp_path / "labels" / "b.nii", labels=(1, 2)).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"labels/b.nii cannot be read \(.*\); repair it or leave it out"):
        read(tmp_path, tmp_path / "out")
    air = nib.Nifti1Image(np.full((4, 5, 6), -1024, np.int16), np.eye(4))
    nib.save(air, tmp_path / "labels" / "b.nii")
    with pytest.raises(ValueError, match=r"labels/b.nii holds the value -1024(.0)?, so it is no label map"):
        read(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("modality", [("T1", 3), ",", ("",)])
def test_channels_need_names(tmp_path: Path, modality: Any) -> None:
    two_folders(tmp_path, ["a.nii", "b.nii"], ["a.nii", "b.nii"])
    with pytest.raises(ValueError, match="modality must name the channels, such as CT or 'T1,FLAIR', got"):
        read(tmp_path, tmp_path / "out", modality=modality)
