from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset
from monai.transforms import (
    Compose,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    RandShiftIntensityd,
    ScaleIntensityRanged,
    Spacingd,
    Transform,
)

from forks import forked, write_key
from medcontext.data import cached_dataset
from medcontext.data.caching import case_key, transforms_key
from platforms import posix_only


class Counted(Transform):
    """Counts its calls in a file, so that caches of other processes are counted too."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        with self.log.open("a") as file:
            file.write(".")
        return data


@pytest.fixture
def case(tmp_path: Path) -> dict[str, str]:
    volume = np.arange(64, dtype=np.int16).reshape(4, 4, 4)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "image.nii.gz")
    return {"image": str(tmp_path / "image.nii.gz")}


def dataset(case: dict[str, str], tmp_path: Path, top: float = 1.0, shift: float = 0.5, **arguments: Any) -> Any:
    scale = ScaleIntensityRanged("image", 0, 63, 0, top)
    transform = Compose(
        [LoadImaged("image"), scale, Counted(tmp_path / "log"), RandShiftIntensityd("image", shift, prob=1.0)]
    )
    return cached_dataset([case], transform, progress=False, **arguments)


def prepared(tmp_path: Path) -> int:
    return len((tmp_path / "log").read_text())


@pytest.mark.parametrize("where", [{}, {"cache_dir": "cache"}])
def test_deterministic_transforms_run_once_and_random_ones_each_time(
    case: dict[str, str], tmp_path: Path, where: dict[str, str]
) -> None:
    found = dataset(case, tmp_path, **{key: tmp_path / value for key, value in where.items()})
    first, second = found[0]["image"], found[0]["image"]
    assert prepared(tmp_path) == 1
    assert not torch.equal(torch.as_tensor(first), torch.as_tensor(second))
    shift = first.as_tensor() - second.as_tensor() if hasattr(first, "as_tensor") else first - second
    assert float(shift.max() - shift.min()) == pytest.approx(0, abs=1e-6)  # the same volume, shifted otherwise


def test_memory_by_share(case: dict[str, str], tmp_path: Path) -> None:
    found = dataset(case, tmp_path, cache_rate=0.0)
    assert isinstance(found, CacheDataset)
    assert [found[0] is not None, found[0] is not None, prepared(tmp_path)] == [True, True, 2]


def test_the_disk_is_found_again_until_the_file_or_a_transform_changes(case: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    for _ in range(2):
        dataset(case, tmp_path, cache_dir=folder)[0]
    assert prepared(tmp_path) == 1
    dataset(case, tmp_path, top=2.0, cache_dir=folder)[0]
    assert prepared(tmp_path) == 2
    volume = np.zeros((4, 4, 4), dtype=np.int16)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), case["image"])
    item = dataset(case, tmp_path, cache_dir=folder)[0]["image"]
    assert prepared(tmp_path) == 3
    assert float(item.max() - item.min()) == 0


@pytest.mark.parametrize("length", [0, 10, 400])
def test_a_damaged_file_is_made_anew(case: dict[str, str], tmp_path: Path, length: int) -> None:
    folder = tmp_path / "cache"
    whole = dataset(case, tmp_path, cache_dir=folder, shift=0.0)[0]["image"]
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:length])
    again = dataset(case, tmp_path, cache_dir=folder, shift=0.0)
    for _ in range(2):
        assert torch.equal(torch.as_tensor(again[0]["image"]), torch.as_tensor(whole))
    assert prepared(tmp_path) == 2
    assert list(folder.iterdir()) == [file]


def test_a_full_disk_leaves_nothing_behind_and_the_case_is_prepared_all_the_same(
    case: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medcontext.data.caching.torch.save", full)
    assert torch.as_tensor(dataset(case, tmp_path, cache_dir=tmp_path / "cache")[0]["image"]).numel()
    assert "could not be cached and will be prepared again; free space on that disk." in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []


def test_keys_follow_time_size_and_entries(case: dict[str, str]) -> None:
    path = Path(case["image"])
    keys = [case_key(case), case_key({**case, "patient": "1"}), case_key({"image": [case["image"]]})]
    os.utime(path, ns=(0, 1))
    keys.append(case_key(case))
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(0, 1))
    keys.append(case_key(case))
    assert len(set(keys)) == 5


def test_keys_of_lists_follow_every_file(case: dict[str, str]) -> None:
    both = {"image": [case["image"], case["image"] + ".second"]}
    Path(both["image"][1]).write_bytes(b"1")
    before = case_key(both)
    Path(both["image"][1]).write_bytes(b"12")
    assert case_key(both) != before


@posix_only
@pytest.mark.xdist_group("forks")
def test_keys_are_the_same_in_every_process(tmp_path: Path) -> None:
    transforms = [LoadImaged("image"), Spacingd("image", (1, 1, 2)), NormalizeIntensityd("image", nonzero=True)]
    process = forked(write_key, transforms, str(tmp_path / "key"), str(tmp_path / "hash"))
    process.join()
    assert (tmp_path / "key").read_bytes() == transforms_key(transforms)
    assert int((tmp_path / "hash").read_text()) != hash("the image")  # Python's own, which is another in each process


def test_transforms_that_nothing_identifies() -> None:
    with pytest.raises(TypeError, match="A cache on disk needs transforms that can be pickled .* use memory instead"):
        transforms_key([Lambdad("image", lambda x: x)])
