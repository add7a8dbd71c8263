from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medcontext.data import check_cases, load_cases, load_split
from medcontext.data.phantoms import write_phantoms
from medcontext.data.prepare import prepare_dataset


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What unpacking RawData.zip gives."""
    folder = tmp_path_factory.mktemp("download")
    write_phantoms(folder / "cohort", size=(32, 32, 32), progress=False)
    shutil.move(folder / "cohort" / "Training", folder / "RawData" / "Training")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("link", [False, True])
def test_the_published_split_and_an_untouched_source(download: Path, tmp_path: Path, link: bool) -> None:
    before = contents(download)
    datalist = prepare_dataset("btcv", download, tmp_path / "btcv", link=link)
    assert contents(download) == before
    split = load_split("btcv")
    for section in ("training", "test"):
        cases = load_cases(datalist, section)
        assert [Path(case["image"]).name for case in cases] == [f"img{case}.nii.gz" for case in split[section]]
        assert all(Path(case["label"]).is_symlink() == link for case in cases)
        assert check_cases({section: cases}, in_channels=1, labels={str(i): i for i in range(1, 14)}) == []


def test_an_interrupted_copy_goes_on(download: Path, tmp_path: Path) -> None:
    prepare_dataset("btcv", download, tmp_path)
    lost = tmp_path / "Training" / "img" / "img0005.nii.gz"
    kept = tmp_path / "Training" / "img" / "img0006.nii.gz"
    lost.unlink()
    stamp = kept.stat().st_mtime_ns
    prepare_dataset("btcv", download, tmp_path)
    assert lost.is_file()
    assert kept.stat().st_mtime_ns == stamp


def test_missing_cases_are_named(download: Path, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    shutil.copytree(download, partial)
    for case in ("img0005", "img0030"):
        (partial / "RawData" / "Training" / "img" / f"{case}.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks .*img0005.nii.gz, .*img0030.nii.gz; unpack the whole"):
        prepare_dataset("btcv", partial, tmp_path / "btcv")
    assert not (tmp_path / "btcv").exists()


def test_phantoms_are_never_taken_for_patients(download: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path, num_cases=2, size=(32, 32, 32), progress=False)
    with pytest.raises(ValueError, match="holds generated phantoms; give another folder"):
        prepare_dataset("btcv", download, tmp_path)


def test_wrong_sources_and_datasets(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No Training/img folder at or below"):
        prepare_dataset("btcv", tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="dataset must be 'btcv', got 'lits'"):
        prepare_dataset("lits", tmp_path, tmp_path / "out")
