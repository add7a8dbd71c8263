"""Datasets that a ``dataset.json`` in the Decathlon's format lists."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import monai.apps
import pytest

from downloads import tarred, volume
from medcontext.providers import import_dataset
from own_data import decathlon, entries, nnunet


def read(source: Path, output: Path, **options: Any) -> dict[str, Any]:
    return json.loads(import_dataset("decathlon", output, source=source, **options).read_text())


def test_tests_without_labels_are_unlabelled_scans(tmp_path: Path) -> None:
    content = read(decathlon(tmp_path / "Task09_Spleen"), tmp_path / "out")
    assert (content["name"], content["licence"]) == ("Spleen", "CC-BY-SA 4.0")
    assert content["labels"] == {"0": "background", "1": "spleen"}
    assert content["training"][1] == {"image": "imagesTr/b.nii.gz", "label": "labelsTr/b.nii.gz"}
    assert content["test"] == []
    assert content["unlabeled"] == [{"image": "imagesTs/d.nii.gz"}]


def test_sections_folds_and_patients_are_kept(tmp_path: Path) -> None:
    first, second, third = entries("a", "b", "c")
    lists = {
        "training": [first | {"fold": 0, "patient": "p", "unannotated": ["spleen"], "weight": 2}, second | {"fold": 1}],
        "validation": [],
        "test": [third],
        "unlabeled": [{"image": "imagesTs/d.nii.gz"}],
    }
    content = read(decathlon(tmp_path / "source", **lists), tmp_path / "out")
    assert [sorted(entry) for entry in content["training"]] == [
        ["fold", "image", "label", "patient", "unannotated"],
        ["fold", "image", "label"],
    ]
    assert [entry["image"] for entry in content["test"]] == ["imagesTr/c.nii.gz"]
    assert content["unlabeled"] == [{"image": "imagesTs/d.nii.gz"}]


def test_cases_that_lack_files(tmp_path: Path) -> None:
    source = decathlon(
        tmp_path / "source", training=[*entries("a", "b", "c", "x"), {"image": "imagesTs/d.nii.gz"}], test=[]
    )
    with pytest.raises(FileNotFoundError) as refusal:
        read(source, tmp_path / "out")
    assert [line.strip() for line in str(refusal.value).splitlines()[1:3]] == [
        "a training case lacks imagesTr/x.nii.gz, labelsTr/x.nii.gz",
        "imagesTs/d.nii.gz has no label",
    ]
    kept = read(source, tmp_path / "out", keep_unlabeled=True, allow_missing=True)
    assert [kept[f"num{part}"] for part in ("Training", "Unlabeled")] == [3, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": entries("a", "a", "b")}, "imagesTr/a.nii.gz is listed under training and under training"),
        ({"validation": entries("a")}, "imagesTr/a.nii.gz is listed under training and under validation"),
        (
            {"training": [{"image": ["imagesTr/a.nii.gz", "imagesTr/b.nii.gz"]}]},
            "is one of 2 files, but modality names 1",
        ),
        ({"training": [{"image": "a.nii", "label": ["b.nii", "c.nii"]}]}, "a.nii has 2 labels; list one"),
        ({"training": [{"image": "../a.nii.gz"}]}, "training of .* names '../a.nii.gz', which leads out of its folder"),
        ({"training": [{"image": "a.nii", "label": "/etc/b.nii"}]}, "names '/etc/b.nii', which leads out"),
        ({"test": ["..\\\\d.nii.gz"]}, "test of .* names .*, which leads out of its folder"),
        ({"training": "abc"}, "training of .* must be a list of cases, got str"),
        ({"training": [3]}, "training of .* must give each case a path under 'image', got 3"),
        ({"training": [{"image": 3}]}, "training of .* must give a path under 'image', got 3"),
        ({"training": []}, "lists no cases under 'training'; an nnU-Net dataset takes --dataset nnunet"),
        ({"testing": []}, "lists cases under 'testing', which is not read; call it 'test' if the cases have labels"),
        ({"modality": "CT"}, "modality of .* must name the channels, such as .*, got 'CT'"),
        ({"labels": None}, "labels of .* must name the label ids.*got None"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(decathlon(tmp_path / "source", **content), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_each_form_names_the_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an nnU-Net dataset takes --dataset nnunet"):
        read(nnunet(tmp_path / "nnunet"), tmp_path / "out")
    with pytest.raises(ValueError, match=r"imagesTr/CASE_0000.nii.gz .*A Decathlon folder takes --dataset decathlon"):
        import_dataset("nnunet", tmp_path / "out", source=decathlon(tmp_path / "decathlon"))


def test_a_task_is_downloaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decathlon(tmp_path / "made" / "Task09_Spleen")
    volume(tmp_path / "made" / "Task09_Spleen" / "imagesTr" / "._a.nii.gz")
    archive = tarred(tmp_path / "made", tmp_path / "served.tar")
    known = monai.apps.DecathlonDataset
    monkeypatch.setitem(known.resource, "Task09_Spleen", archive.as_uri())
    monkeypatch.setitem(known.md5, "Task09_Spleen", hashlib.md5(archive.read_bytes()).hexdigest())
    content = read(tmp_path / "data" / "Task09_Spleen.tar", tmp_path / "out", download=True)
    assert content["numTraining"] == 3
    assert (tmp_path / "data" / "Task09_Spleen.tar").read_bytes() == archive.read_bytes()
    with pytest.raises(ValueError, match="the name of source must be one of .*got 'Task09_Spleeen'.* 'Task09_Spleen'"):
        read(tmp_path / "data" / "Task09_Spleeen", tmp_path / "out", download=True)
