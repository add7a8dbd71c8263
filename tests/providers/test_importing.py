"""One's own data becomes a dataset to train on, linked and never changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import own_data
from downloads import tarred
from medcontext.data import case_files, case_name, load_cases
from medcontext.providers import import_dataset
from medcontext.providers.importing import FORMATS
from medcontext.providers.output import reserved
from medcontext.storage import locks, transfer


def source_of(form: str, folder: Path) -> dict[str, Any]:
    """A dataset in one of the forms, as the options that name it."""
    if form != "folder":
        return {"source": getattr(own_data, form)(folder)}
    names = [f"{case}.nii.gz" for case in "abc"]
    own_data.two_folders(folder, names, names)
    return {"images": folder / "images", "labels": folder / "labels", "modality": "CT"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(datalist: Path) -> dict[str, Any]:
    return json.loads(datalist.read_text())


@pytest.mark.parametrize("form", FORMATS)
def test_files_are_linked_once_and_the_source_is_never_changed(form: str, tmp_path: Path) -> None:
    options = source_of(form, tmp_path / "source")
    before = contents(tmp_path / "source")
    datalist = import_dataset(form, tmp_path / "out", **options)
    first = datalist.read_bytes()
    cases = load_cases(datalist, "training")
    assert [case_name(case) for case in cases] == ["a", "b", "c"]
    assert all(os.stat(file).st_nlink == 2 for case in cases for file in case_files(case))
    times = {path: path.stat().st_ctime_ns for path in (tmp_path / "out").rglob("*.nii.gz")}
    assert import_dataset(form, tmp_path / "out", **options).read_bytes() == first
    assert {path: path.stat().st_ctime_ns for path in times} == times
    assert contents(tmp_path / "source") == before
    shutil.move(tmp_path / "source", tmp_path / "moved")
    assert contents(tmp_path / "moved") == before
    assert all(Path(file).is_file() for case in cases for file in case_files(case))


def test_two_processes_do_not_prepare_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = source_of("nnunet", tmp_path / "source")
    with reserved(tmp_path / "out"), monkeypatch.context() as patch:
        patch.setattr(locks, "_held", {})  # as another process, which does not hold it
        with pytest.raises(ValueError, match="Another process is preparing .*out; wait for it, or choose another"):
            import_dataset("nnunet", tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()


def test_another_disk_takes_symbolic_links_and_a_system_without_any_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    source = own_data.decathlon(tmp_path / "source")
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    import_dataset("decathlon", tmp_path / "links", source=source)
    assert (tmp_path / "links" / "imagesTr" / "a.nii.gz").readlink() == source / "imagesTr" / "a.nii.gz"
    monkeypatch.setattr(Path, "symlink_to", refuse)
    import_dataset("decathlon", tmp_path / "copies", source=source)
    copy = tmp_path / "copies" / "imagesTr" / "a.nii.gz"
    assert copy.stat().st_nlink == 1
    assert not copy.is_symlink()
    assert copy.read_bytes() == (source / "imagesTr" / "a.nii.gz").read_bytes()
    monkeypatch.setattr(transfer, "_copy", lambda *_: pytest.fail("a file was copied again"))
    import_dataset("decathlon", tmp_path / "copies", source=source)


@pytest.mark.parametrize("form", ["nnunet", "decathlon"])
def test_archives_are_copied(form: str, tmp_path: Path) -> None:
    folder = source_of(form, tmp_path / "source" / "Task09")["source"]
    archive = tarred(tmp_path / "source", tmp_path / "Task09.tar")
    content = read(import_dataset(form, tmp_path / "out", source=archive))
    linked = read(import_dataset(form, tmp_path / "linked", source=folder))
    assert (content["prepared"]["files"], linked["prepared"]["files"]) == ("copies", "links")
    for key in ("labels", "modality", "training", "unlabeled", "sha256"):
        assert content[key] == linked[key]


def test_an_interrupted_call_is_completed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = own_data.decathlon(tmp_path / "source")
    complete = import_dataset("decathlon", tmp_path / "out", source=source)
    expected = complete.read_bytes()
    (tmp_path / "out" / "labelsTr" / "c.nii.gz").unlink()
    monkeypatch.setattr(transfer, "_link", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        import_dataset("decathlon", tmp_path / "out", source=source)
    assert not complete.exists()
    assert not list((tmp_path / "out").rglob("*.part"))
    monkeypatch.undo()
    assert import_dataset("decathlon", tmp_path / "out", source=source).read_bytes() == expected


def test_test_cases_are_drawn_once_and_for_good(tmp_path: Path) -> None:
    options = source_of("nnunet", tmp_path / "source")
    drawn = [read(import_dataset("nnunet", tmp_path / name, **options, test_cases=1)) for name in ("one", "two")]
    assert drawn[0]["test"] == drawn[1]["test"]
    assert [drawn[0][f"num{part}"] for part in ("Training", "Validation", "Test", "Unlabeled")] == [2, 0, 1, 2]
    held = drawn[0]["test"][0]
    assert held not in drawn[0]["training"]
    assert held["label"].startswith("labelsTr/")


def test_prepared_phantoms_stay_phantoms(tmp_path: Path) -> None:
    source = own_data.decathlon(tmp_path / "source", phantom={"seed": 0})
    assert read(import_dataset("decathlon", tmp_path / "out", source=source))["phantom"] == {"seed": 0}


def test_a_dataset_beside_its_own_folders_needs_no_links(tmp_path: Path) -> None:
    options = source_of("folder", tmp_path)
    before = contents(tmp_path)
    content = read(import_dataset("folder", tmp_path, **options))
    assert content["training"][0] == {"image": "images/a.nii.gz", "label": "labels/a.nii.gz"}
    assert {name: value for name, value in contents(tmp_path).items() if name in before} == before
    assert all((tmp_path / name).stat().st_nlink == 1 for name in before)


def test_no_file_of_the_source_is_replaced(tmp_path: Path) -> None:
    options = source_of("folder", tmp_path)
    shutil.move(tmp_path / "images", tmp_path / "scans")
    shutil.move(tmp_path / "labels", tmp_path / "images")
    before = contents(tmp_path)
    options |= {"images": tmp_path / "scans", "labels": tmp_path / "images"}
    with pytest.raises(ValueError, match=r"images/a.nii.gz is a file of the source, which must not be changed"):
        import_dataset("folder", tmp_path, **options)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_cases": 2}, "has 1 labelled cases to train on; at least 2 are needed, one of them for validation"),
        ({"test_cases": 3}, "test_cases 3 cannot be held out of 3 training cases; hold out fewer"),
        ({"test_cases": -1}, "test_cases must be a whole number of cases to hold out, 0 or more, got -1"),
        ({"test_cases": "two"}, "test_cases must be a whole number of cases to hold out, 0 or more, got 'two'"),
        ({"keep_unlabeled": "no"}, "keep_unlabeled must be True or False, got 'no'"),
    ],
)
def test_arguments(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_dataset("nnunet", tmp_path / "out", **source_of("nnunet", tmp_path / "source"), **options)
    assert not (tmp_path / "out").exists()


def test_a_source_with_test_cases_of_its_own_draws_none(tmp_path: Path) -> None:
    source = own_data.nnunet(tmp_path / "source", labelled_tests="d")
    with pytest.raises(ValueError, match="has test cases with labels of its own; leave test_cases out"):
        import_dataset("nnunet", tmp_path / "out", source=source, test_cases=1)


def test_outputs_that_hold_something_else(tmp_path: Path) -> None:
    import_dataset("nnunet", tmp_path / "out", source=own_data.nnunet(tmp_path / "Dataset007_X"))
    with pytest.raises(ValueError, match=r"holds another dataset \(Dataset007_X\); give another folder"):
        import_dataset("nnunet", tmp_path / "out", source=own_data.nnunet(tmp_path / "Dataset008_Y"))
    with pytest.raises(ValueError, match="is inside the source .*, which must not be changed"):
        import_dataset("nnunet", tmp_path / "Dataset007_X" / "out", source=tmp_path / "Dataset007_X")
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand" / "dataset.json").write_text('{"training": [{}], "prepared": "by hand"}')
    with pytest.raises(ValueError, match=r"holds another dataset \(unnamed\)"):
        import_dataset("nnunet", tmp_path / "hand", source=tmp_path / "Dataset007_X")


def test_cases_without_labels_are_kept_by_the_users_word_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = own_data.nnunet(tmp_path / "source")
    (source / "labelsTr" / "b.nii.gz").unlink()
    message = r"(?s)has 1 incomplete cases:\n  imagesTr/b.nii.gz has no label\n.*--keep_unlabeled True, or leave"
    with pytest.raises(FileNotFoundError, match=message):
        import_dataset("nnunet", tmp_path / "out", source=source)
    assert not (tmp_path / "out").exists()
    kept = read(import_dataset("nnunet", tmp_path / "kept", source=source, keep_unlabeled=True))
    assert [entry["image"] for entry in kept["unlabeled"]] == [
        f"images{name}.nii.gz" for name in ("Ts/d", "Ts/e", "Tr/b")
    ]
    less = read(import_dataset("nnunet", tmp_path / "less", source=source, allow_missing=True))
    assert [entry["image"] for entry in less["training"]] == ["imagesTr/a.nii.gz", "imagesTr/c.nii.gz"]
    assert less["prepared"]["left_out"] == ["imagesTr/b.nii.gz has no label"]
    assert "imagesTr/b.nii.gz has no label" in caplog.text
    assert not (tmp_path / "less" / "imagesTr" / "b.nii.gz").exists()
