from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.apps
import pytest

import downloads
from downloads import MAKERS, prepare_slowly, tarred, volume, zipped
from forks import forked
from medcontext.data import case_files, load_cases, load_split
from medcontext.phantoms.cohort import write_phantoms
from medcontext.providers.prepare import prepare_dataset
from medcontext.storage import transfer
from medcontext.storage.archives import open_source
from medcontext.storage.file_memory import FileMemory
from platforms import posix_only

Make = Callable[[Path], Path]


@pytest.fixture(scope="module")
def btcv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What unpacking RawData.zip gives; not to be changed."""
    return downloads.btcv(tmp_path_factory.mktemp("btcv"))


@pytest.fixture
def own_btcv(btcv: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(btcv, tmp_path / "download"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def visible(folder: Path) -> set[str]:
    return {name for name in contents(folder) if not Path(name).name.startswith(".")}


def read(datalist: Path) -> dict[str, Any]:
    return json.loads(datalist.read_text())


def paths_in(content: dict[str, Any]) -> list[str]:
    cases = [case for part in ("training", "validation", "test", "unlabeled") for case in content.get(part, [])]
    return [path for case in cases for path in case_files(case)]


# --- what the providers hand out ---


@pytest.mark.parametrize("edition", MAKERS)
def test_every_edition_as_folder_and_as_archive(edition: str, tmp_path: Path) -> None:
    dataset, make = MAKERS[edition]
    download = make(tmp_path / "download")
    before = contents(download)
    datalist = prepare_dataset(dataset, download, tmp_path / "out")
    assert contents(download) == before
    content = read(datalist)
    assert content["prepared"]["edition"] == edition
    files = {name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() for name in paths_in(content)}
    assert content["sha256"] == files
    assert visible(tmp_path / "out") == {"dataset.json", *files}
    assert content["spacing"] == {name: [1, 2, 3] for name in ("median", "min", "max")}

    pack = tarred if dataset in ("brats", "hippocampus") else zipped
    archive = pack(download, tmp_path / ("a.tar.gz" if edition == "BraTS 2021" else "a.bin"))
    assert read(prepare_dataset(dataset, archive, tmp_path / "from_archive")) == content
    linked = prepare_dataset(dataset, download, tmp_path / "linked", link=True)
    assert read(linked) == content | {"prepared": content["prepared"] | {"files": "links"}}
    assert all((tmp_path / "linked" / name).stat().st_nlink == 2 for name in files)
    assert contents(download) == before


@pytest.mark.parametrize("edition", list(MAKERS)[:4])
def test_published_splits(edition: str, tmp_path: Path) -> None:
    dataset, make = MAKERS[edition]
    content = read(prepare_dataset(dataset, make(tmp_path / "download"), tmp_path / "out", link=True))
    for part, cases in load_split(dataset).items():
        assert [case in entry["image"] for case, entry in zip(cases, content[part], strict=True)] == [True] * len(cases)
        assert content[f"num{part.capitalize()}"] == len(cases)
    assert content["prepared"]["split"] == "published"
    patients = {entry.get("patient") for entry in content["training"]}
    assert len(patients) == (70 if dataset == "acdc" else 1)


def test_seeded_split_of_brats_2021(tmp_path: Path) -> None:
    download = downloads.brats_2021(tmp_path / "download", count=40)
    content = read(prepare_dataset("brats", download, tmp_path / "out"))
    # 80:15:5 of 40
    assert [content[f"num{part}"] for part in ("Training", "Validation", "Test")] == [32, 6, 2]
    assert content["prepared"]["split"] == "80:15:5 by patient, seed 0"
    names = ("flair", "t1", "t1ce", "t2")
    assert content["training"][0]["image"] == [f"BraTS2021_00000/BraTS2021_00000_{name}.nii.gz" for name in names]
    assert content["labels"] == {"0": "background", "1": "non_enhancing_tumor", "2": "edema", "4": "enhancing_tumor"}
    assert read(prepare_dataset("brats", download, tmp_path / "again")) == content


def test_no_patient_of_brats_2023_is_in_two_parts(tmp_path: Path) -> None:
    content = read(prepare_dataset("brats", downloads.brats_2023(tmp_path / "download"), tmp_path / "out"))
    parts = [{entry["patient"] for entry in content[part]} for part in ("training", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10
    # ten patients of two cases each: 1 to test and, by rounding 1.5 to even, 2 to validate
    assert [len(part) for part in parts] == [7, 2, 1]
    assert len(content["training"]) == 14
    assert content["labels"]["3"] == "enhancing_tumor"


def test_label_ids_of_the_decathlon(tmp_path: Path) -> None:
    download = downloads.brats_of_decathlon(tmp_path / "download")
    content = read(prepare_dataset("brats", download, tmp_path / "out", link=True))
    assert content["labels"] == {"0": "background", "1": "edema", "2": "non_enhancing_tumor", "3": "enhancing_tumor"}
    assert content["modality"] == {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"}


@pytest.mark.parametrize("level", ["", "RawData", "RawData/Training"])
def test_any_folder_above_the_files(btcv: Path, tmp_path: Path, level: str) -> None:
    datalist = prepare_dataset("btcv", btcv / level, tmp_path / "out")
    assert len(load_cases(datalist, "training")) == 18


def test_folders_that_are_links(btcv: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "Training").symlink_to(btcv / "RawData" / "Training")
    (tmp_path / "source" / "loop").symlink_to(tmp_path / "source")
    assert len(load_cases(prepare_dataset("btcv", tmp_path / "source", tmp_path / "out"), "test")) == 12


def test_surplus_cases_are_listed_and_left_out(
    own_btcv: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume(own_btcv / "RawData" / "Training" / "img" / "img0011.nii.gz")
    volume(own_btcv / "RawData" / "Training" / "img" / "scout.nii.gz")
    content = read(prepare_dataset("btcv", own_btcv, tmp_path / "out"))
    expected = ["0011: not in the split", "RawData/Training/img/scout.nii.gz: belongs to no case"]
    assert content["prepared"]["left_out"] == expected
    assert all(line in caplog.text for line in expected)
    assert not (tmp_path / "out" / "Training" / "img" / "img0011.nii.gz").exists()


# --- what is wrong with a source ---


def test_all_missing_files_are_named(own_btcv: Path, tmp_path: Path) -> None:
    training = own_btcv / "RawData" / "Training"
    (training / "img" / "img0005.nii.gz").unlink()
    (training / "label" / "label0030.nii.gz").rename(training / "label" / "label30.nii.gz")
    with pytest.raises(FileNotFoundError) as refusal:
        prepare_dataset("btcv", own_btcv, tmp_path / "out")
    lines = str(refusal.value).splitlines()
    assert "lacks 2 files of BTCV" in lines[0]
    assert lines[1:5] == [
        "  Training/img/img0005.nii.gz",
        "  Training/label/label0030.nii.gz",
        "It has files of unknown names:",
        "  RawData/Training/label/label30.nii.gz",
    ]
    assert "Expected for each case, in any folder: Training/img/img*.nii.gz, Training/label/label*.nii.gz" in lines[5]
    assert "leave the 2 incomplete cases out with --allow_missing True" in lines[5]
    assert not (tmp_path / "out").exists()

    content = read(prepare_dataset("btcv", own_btcv, tmp_path / "out", allow_missing=True))
    assert content["numTraining"] == 16
    assert content["prepared"]["left_out"][0] == "0005: lacks Training/img/img0005.nii.gz"


def test_a_channel_that_is_missing(tmp_path: Path) -> None:
    download = downloads.brats_2021(tmp_path / "download")
    (download / "BraTS2021_00003" / "BraTS2021_00003_t1ce.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 files of BraTS 2021:\n  BraTS2021_00003/.*_t1ce.nii.gz\n"):
        prepare_dataset("brats", download, tmp_path / "out")
    assert len(read(prepare_dataset("brats", download, tmp_path / "out", allow_missing=True))["sha256"]) == 19 * 5


@pytest.mark.parametrize(
    ("dataset", "makers", "message"),
    [
        ("brats", (downloads.brats_2021, downloads.brats_2023), r"mixes editions \(BraTS 2021: 20 .*BraTS 2023: 20"),
        ("acdc", (downloads.acdc, downloads.acdc_of_nnunet), r"mixes editions \(ACDC: 202 .*ACDC in nnU-Net's"),
        ("acdc", (downloads.btcv,), "holds none of the files.*ACDC: training/.*_gt.nii.gz.*It holds RawData/"),
        ("brats", (), "holds none of the files.*BraTS 2023: .*It holds no NIfTI file"),
    ],
)
def test_sources_of_something_else(dataset: str, makers: tuple[Make, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "download").mkdir()
    for make in makers:
        make(tmp_path / "download")
    with pytest.raises(ValueError, match="(?s)" + message):
        prepare_dataset(dataset, tmp_path / "download", tmp_path / "out")


def test_folders_that_hold_the_archive(btcv: Path, tmp_path: Path) -> None:
    (tmp_path / "download").mkdir()
    zipped(btcv, tmp_path / "download" / "RawData.zip")
    with pytest.raises(ValueError, match=r"It holds archives \(RawData.zip\); give one of them"):
        prepare_dataset("btcv", tmp_path / "download", tmp_path / "out")


def test_cases_that_are_there_twice(own_btcv: Path, tmp_path: Path) -> None:
    shutil.copytree(own_btcv / "RawData" / "Training" / "img", own_btcv / "copy")
    with pytest.raises(
        ValueError, match="img0001.nii.gz and copy/img0001.nii.gz are the same|copy/img0001.* and RawData"
    ):
        prepare_dataset("btcv", own_btcv, tmp_path / "out")


def test_frames_that_info_cfg_does_not_name(tmp_path: Path) -> None:
    download = downloads.acdc(tmp_path / "download")
    (download / "training" / "patient001" / "Info.cfg").write_text("ED: 2\nES: 12\n")
    message = (
        "training/patient001/Info.cfg names patient001_frame02 and patient001_frame12, the split patient001_frame01"
    )
    with pytest.raises(ValueError, match=message):
        prepare_dataset("acdc", download, tmp_path / "out")


def test_files_that_cannot_be_read_are_all_named(own_btcv: Path, tmp_path: Path) -> None:
    for case in ("0005", "0008"):
        path = own_btcv / "RawData" / "Training" / "img" / f"img{case}.nii.gz"
        path.write_bytes(gzip.compress(b"no volume"))
    with pytest.raises(ValueError, match=r"(?s)cannot be read; .*img0005.nii.gz: .*img0008.nii.gz: "):
        prepare_dataset("btcv", own_btcv, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"dataset": "lits"},
            ValueError,
            r"dataset must be one of \['acdc', 'brats', 'btcv', 'hippocampus'\], got 'lits'",
        ),
        ({"source": "absent"}, FileNotFoundError, "There is no absent; give the downloaded archive"),
        ({"source": __file__}, ValueError, "is neither a folder nor a complete zip or tar archive"),
        ({"source": __file__, "link": True}, ValueError, "files in an archive cannot be linked"),
        ({"link": "no"}, ValueError, "link must be True or False, got 'no'"),
        ({"download": True}, ValueError, "download works for brats and hippocampus alone; btcv requires"),
        ({"dataset": "brats", "download": True, "link": True}, ValueError, "files in an archive cannot be linked"),
    ],
)
def test_arguments(btcv: Path, tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        prepare_dataset(**{"dataset": "btcv", "source": btcv, "output_dir": tmp_path / "out", **arguments})


# --- where it goes ---


def test_outputs_that_would_touch_the_source(own_btcv: Path) -> None:
    for inside in (own_btcv, own_btcv / "prepared"):
        with pytest.raises(ValueError, match="is inside the source .*, which must not be changed"):
            prepare_dataset("btcv", own_btcv, inside)
    assert not (own_btcv / "prepared").exists()


def test_outputs_that_cannot_be_written(btcv: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="output_dir .*file/out cannot be written .*; choose another"):
        prepare_dataset("btcv", btcv, tmp_path / "file" / "out")


def test_outputs_that_hold_something_else(btcv: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "phantoms", num_cases=2, size=(32, 32, 32), progress=False)
    with pytest.raises(ValueError, match="holds generated phantoms; give another folder"):
        prepare_dataset("btcv", btcv, tmp_path / "phantoms")
    prepare_dataset("brats", downloads.brats_2021(tmp_path / "brats"), tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds another dataset \(BraTS 2021\); give another folder"):
        prepare_dataset("btcv", btcv, tmp_path / "out")


def test_outputs_with_a_damaged_dataset_json(btcv: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match="dataset.json is not valid JSON"):
        prepare_dataset("btcv", btcv, tmp_path)


def test_prepared_phantoms_stay_phantoms(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "cohort", num_cases=3, size=(32, 32, 32), progress=False)
    content = read(prepare_dataset("btcv", tmp_path / "cohort", tmp_path / "out", allow_missing=True))
    assert content["name"] == "BTCV phantoms"
    assert content["phantom"]["num_cases"] == 3
    assert prepare_dataset("btcv", tmp_path / "cohort", tmp_path / "out", allow_missing=True).is_file()


# --- again ---


def stamps(folder: Path) -> dict[str, int]:
    return {name: (folder / name).lstat().st_mtime_ns for name in visible(folder) if name != "dataset.json"}


@pytest.mark.parametrize("link", [False, True])
def test_a_second_call_reads_and_writes_nothing_again(
    btcv: Path, tmp_path: Path, link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    datalist = prepare_dataset("btcv", btcv, tmp_path, link=link)
    before, kept = datalist.read_bytes(), stamps(tmp_path)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("a file was hashed again"))
    assert prepare_dataset("btcv", btcv, tmp_path, link=link).read_bytes() == before
    assert stamps(tmp_path) == kept


def test_lost_files_are_brought_again(btcv: Path, tmp_path: Path) -> None:
    before = prepare_dataset("btcv", btcv, tmp_path).read_bytes()
    kept, lost = stamps(tmp_path), "Training/img/img0005.nii.gz"
    (tmp_path / lost).unlink()
    assert prepare_dataset("btcv", btcv, tmp_path).read_bytes() == before
    assert {name for name, stamp in stamps(tmp_path).items() if kept[name] != stamp} == {lost}


@pytest.mark.parametrize("link", [False, True])
def test_a_changed_source_is_brought_again(own_btcv: Path, tmp_path: Path, link: bool) -> None:
    datalist = prepare_dataset("btcv", own_btcv, tmp_path / "out", link=link)
    before = read(datalist)["sha256"]
    name = "Training/img/img0005.nii.gz"
    source = own_btcv / "RawData" / name
    content = bytearray(source.read_bytes())
    content[4] ^= 1  # gzip's time stamp: the size stays
    source.write_bytes(content)
    after = read(prepare_dataset("btcv", own_btcv, tmp_path / "out", link=link))["sha256"]
    assert {path for path in after if after[path] != before[path]} == {name}
    assert (tmp_path / "out" / name).read_bytes() == content


def test_copies_replace_links_and_leave_the_source_alone(own_btcv: Path, tmp_path: Path) -> None:
    before = contents(own_btcv)
    prepare_dataset("btcv", own_btcv, tmp_path / "out", link=True)
    prepare_dataset("btcv", own_btcv, tmp_path / "out")
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "out").rglob("*.nii.gz"))
    assert contents(own_btcv) == before


def test_a_full_disk_leaves_nothing_half_written(btcv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = transfer._copy
    calls: list[Path] = []

    def fill(source: Any, file: Any, part: Path) -> str:
        calls.append(part)
        if len(calls) == 5:
            part.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return copy(source, file, part)

    monkeypatch.setattr(transfer, "_copy", fill)
    with pytest.raises(OSError, match="could not be transferred to .*No space left on device.*finished files are kept"):
        prepare_dataset("btcv", btcv, tmp_path)
    assert len(visible(tmp_path)) == 4
    assert not list(tmp_path.rglob("*.part"))
    monkeypatch.undo()
    kept = stamps(tmp_path)
    prepare_dataset("btcv", btcv, tmp_path)
    assert len(visible(tmp_path)) == 61
    assert kept.items() <= stamps(tmp_path).items()


def test_sources_that_are_still_being_written(own_btcv: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with open_source(own_btcv) as source:
        name = "RawData/Training/img/img0005.nii.gz"
        with (own_btcv / name).open("ab") as stream:
            stream.write(b"more")
        with pytest.raises(ValueError, match="img0005.nii.gz in .* changed while it was read; call again"):
            transfer.transfer_files(source, {"a.nii.gz": name}, tmp_path / "out", FileMemory(tmp_path / "memory"))
    assert visible(tmp_path / "out") == set()


def test_too_little_room_is_reported_beforehand(btcv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match="needs 0.0 GB and has 0.0 GB free; make room, or link"):
        prepare_dataset("btcv", btcv, tmp_path / "out")
    assert visible(tmp_path / "out") == set()


@posix_only
@pytest.mark.xdist_group("forks")
def test_a_killed_call_is_completed_by_the_next(btcv: Path, tmp_path: Path) -> None:
    process = forked(prepare_slowly, str(btcv), str(tmp_path))
    deadline = time.monotonic() + 60
    while len(visible(tmp_path)) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert 5 <= len(visible(tmp_path)) < 60
    assert "dataset.json" not in visible(tmp_path)
    content = read(prepare_dataset("btcv", btcv, tmp_path))
    original = btcv / "RawData"
    assert all((tmp_path / path).read_bytes() == (original / path).read_bytes() for path in content["sha256"])
    assert len(content["sha256"]) == 60
    assert not list(tmp_path.rglob("*.part"))


# --- download ---

TASKS = {"brats": "Task01_BrainTumour", "hippocampus": "Task04_Hippocampus"}


@pytest.fixture(params=TASKS)
def served(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A dataset, and a small archive of it where MONAI would look for the Decathlon's."""
    makers = {"brats": downloads.brats_of_decathlon, "hippocampus": downloads.hippocampus}
    archive = tarred(makers[request.param](tmp_path / "download"), tmp_path / "served.tar")
    decathlon, task = monai.apps.DecathlonDataset, TASKS[request.param]
    assert {task} <= decathlon.resource.keys() & decathlon.md5.keys()
    monkeypatch.setitem(decathlon.resource, task, archive.as_uri())
    monkeypatch.setitem(decathlon.md5, task, hashlib.md5(archive.read_bytes()).hexdigest())
    return request.param, archive


def test_the_decathlons_archive_is_downloaded_once(served: tuple[str, Path], tmp_path: Path) -> None:
    (dataset, archive), folder = served, tmp_path / "archives"
    content = read(prepare_dataset(dataset, folder, folder / dataset, download=True))
    assert content["numTraining"] == {"brats": 387, "hippocampus": 6}[dataset]
    archive.unlink()
    assert prepare_dataset(dataset, folder, folder / dataset, download=True).is_file()


def test_downloads_that_fail(served: tuple[str, Path], tmp_path: Path) -> None:
    (dataset, archive), folder = served, tmp_path / "archives"
    folder.mkdir()
    (folder / f"{TASKS[dataset]}.tar").write_bytes(b"other")
    with pytest.raises(ValueError, match="is not the published archive .*; remove it, and try again"):
        prepare_dataset(dataset, folder, tmp_path / "out", download=True)
    (folder / f"{TASKS[dataset]}.tar").unlink()
    archive.unlink()
    with pytest.raises(OSError, match="could not be downloaded .*; get it elsewhere and give it as the source"):
        prepare_dataset(dataset, folder, tmp_path / "out", download=True)
