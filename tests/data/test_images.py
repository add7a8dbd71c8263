from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from dicom_scans import OBLIQUE, phantom, write_series
from medcontext.data import list_images


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(source: Path | str | list[str]) -> dict[str, str]:
    """Path of each image below the working directory, by the case's name."""
    return {case["case"]: os.path.relpath(case["image"]) for case in list_images(source)}


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("scans", {"a": "scans/a.nii", "b": "scans/b.nii.gz"}),
        ("scans/a.nii", {"a": "scans/a.nii"}),
        ("scans/b_seg.nii.gz", {"b_seg": "scans/b_seg.nii.gz"}),
        ("scans/notes.txt", {"notes.txt": "scans/notes.txt"}),  # refused when it is checked, by what it is
        ("scans/*.gz", {"b": "scans/b.nii.gz"}),
        ("scans/**/*.nii.gz", {"b": "scans/b.nii.gz", "p1_ct": "scans/p1/ct.nii.gz", "p2_ct": "scans/p2/ct.nii.gz"}),
        ("scans/p?", {"p1_ct": "scans/p1/ct.nii.gz", "p2_ct": "scans/p2/ct.nii.gz"}),
    ],
)
def test_files_folders_and_patterns(source: str, expected: dict[str, str]) -> None:
    names = ["a.nii", "b.nii.gz", "notes.txt", ".b.nii.gz.1.tmp", ".hidden.nii.gz", "b_seg.nii.gz"]
    touched(Path("scans"), *names, "b_probabilities.nii.gz", "p1/ct.nii.gz", "p2/ct.nii.gz")
    if "**" in source:  # where one name occurs twice, all have their folders
        expected = {"scans_b" if name == "b" else name: path for name, path in expected.items()}
    assert found(source) == expected


def test_volumes_of_all_formats_in_a_folder() -> None:
    volumes = ["a.nrrd", "b.mha", "c.mhd", "d.mgz", "e.img", "f.NII"]
    touched(Path("scans"), *volumes, "c.raw", "e.hdr", "a_seg.nii.gz", "d_probabilities.nii.gz", "photo.png")
    assert found("scans") == {name.split(".")[0]: f"scans/{name}" for name in volumes}
    assert found("scans/e.hdr") == {"e": "scans/e.img"}


def test_a_folder_whose_name_is_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    touched(Path("scans [1]"), "a.nii")
    assert found("scans [1]") == {"a": "scans [1]/a.nii"}
    monkeypatch.chdir("scans [1]")
    assert found("*.nii") == {"a": "a.nii"}


def test_the_test_cases_of_a_dataset() -> None:
    case = {"image": ["a_t1.nii", "a_t2.nii"], "label": "a_seg.nii"}
    touched(Path("data"), *case["image"], case["label"])
    Path("data/dataset.json").write_text(json.dumps({"test": [case], "training": ["b.nii"]}))
    files = [str(Path("data").absolute() / file) for file in case["image"]]
    assert list_images("data") == list_images("data/dataset.json") == [{"image": files, "case": "a_t1"}]


@pytest.mark.parametrize("source", ["data_*", "data_*/dataset.json", "data_[12]/f*.json", "data_1/fold0.json"])
def test_datalists_of_any_name_and_by_a_pattern(source: str) -> None:
    expected = {}
    for number in (1, 2):
        folder = touched(Path(f"data_{number}"), f"images/{number}.nii")
        for name in ("dataset.json", "fold0.json"):
            (folder / name).write_text(json.dumps({"test": [{"image": f"images/{number}.nii"}]}))
        expected[str(number)] = f"data_{number}/images/{number}.nii"
    assert found(source) == ({"1": expected["1"]} if source == "data_1/fold0.json" else expected)


def test_json_that_lies_beside_images_is_no_datalist() -> None:
    touched(Path("scans"), "a.nii")
    Path("scans/a.json").write_text("{}")
    assert found("scans/*") == found("scans") == {"a": "scans/a.nii"}
    with pytest.raises(ValueError, match="a.json must be an object with lists of cases"):
        list_images("scans/a.json")


def test_what_is_named_twice_is_listed_once(tmp_path: Path) -> None:
    touched(Path("scans"), "a.nii", "b.nii")
    assert list(found(["scans/b.nii", "scans", "scans/../scans/a.nii", "scans/b.nii"])) == ["b", "a"]
    write_series(tmp_path / "ct", phantom(), OBLIQUE)
    assert len(list_images(["ct", "ct/*"])) == 1


@pytest.mark.parametrize("nothing", ["empty", "absent.nii", "scans/*.nii"])
def test_nothing_to_predict(nothing: str) -> None:
    Path("empty").mkdir()
    touched(Path("scans"), "notes.txt")
    with pytest.raises(FileNotFoundError, match="There is nothing to predict at .*--dataset_dir"):
        list_images(nothing)


def test_several_sources_in_their_order() -> None:
    touched(Path("scans"), "b.nii", "a.nii")
    touched(Path("more"), "a.nii")
    assert list(found(["scans/b.nii", "more", "scans/a.nii"])) == ["scans_b", "more_a", "scans_a"]
    with pytest.raises(FileNotFoundError, match="There is nothing to predict in an empty list"):
        list_images([])


def test_predictions_that_would_be_one_file() -> None:
    touched(Path("scans"), "a.nii", "a.nii.gz")
    with pytest.raises(ValueError, match="scans holds several images called a, whose predictions would be one file"):
        list_images("scans")


def test_series_in_one_folder_and_in_folders_below(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = tmp_path / "study"
    write_series(study, phantom(), OBLIQUE, name="IM{}", description="Arterial")
    write_series(study, phantom(), OBLIQUE, name="{}.x", description="Ärzte^ venös")
    write_series(study / "deep" / "er", phantom(), OBLIQUE, description="", SeriesNumber=None)
    write_series(study, phantom()[:, :, :1], OBLIQUE, name="scout{}", description="Topogram")
    touched(study, "readme.txt")
    with caplog.at_level(logging.WARNING, "medcontext"):
        cases = list_images(study)
    names = [case["case"].rsplit("_", 1)[0] for case in cases]
    assert names == ["3_Arterial", "3_Ärzte_venös", "ct"]
    assert [len(case["image"]) for case in cases] == [7, 7, 7]
    assert not any("Doe" in case["case"] for case in cases)
    assert all(case["series_instance_uid"] for case in cases)
    assert len({case["case"][-8:] for case in cases}) == 3
    assert [message.split("_")[1] for message in caplog.messages] == ["Topogram"]
    assert "is one slice only" in caplog.text
    assert len(list_images(f"{study}/deep/*/*.dcm")) == 1


def test_dicom_without_any_volume(tmp_path: Path) -> None:
    write_series(tmp_path / "scout", phantom()[:, :, :1], np.eye(4), description="Topogram")
    with pytest.raises(ValueError, match=r"no volume among the DICOM files at .*: 3_Topogram_\w{8} is one slice only"):
        list_images(tmp_path / "scout")


def test_dicom_without_its_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "ct", phantom(), OBLIQUE)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ImportError, match=r"DICOM requires .*highdicom is missing.*pip install pydicom highdicom"):
        list_images(tmp_path / "ct")
