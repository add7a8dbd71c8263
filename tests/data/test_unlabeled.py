from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.data.utils import set_rnd
from monai.transforms import Compose, CopyItemsd, RandGaussianNoised

from dicom_scans import OBLIQUE, phantom, write_series
from medcontext.data import PairedDataset, load_cases, load_unlabeled, pair_unlabeled


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    """Ten cases to train on and two unlabelled scans, one of which brings what is no image."""
    content = {
        "training": [{"image": f"img{i}.nii", "label": f"label{i}.nii"} for i in range(10)],
        "test": [{"image": "test.nii", "label": "test_label.nii"}],
        "unlabeled": [{"image": "more0.nii", "label": "more0_label.nii"}, "more1.nii"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path / "dataset.json"


def names(cases: list[dict[str, Any]]) -> list[str]:
    assert all(case.keys() == {"image"} for case in cases)
    return [Path(case["image"]).name for case in cases]


def test_those_that_the_dataset_lists(datalist: Path) -> None:
    assert names(load_unlabeled(datalist, "dataset")) == ["more0.nii", "more1.nii"]
    assert load_unlabeled(datalist) == []


@pytest.mark.parametrize("chosen", [{"train_cases": 5}, {"train_fraction": 0.2}])
def test_the_rest_are_images_alone_of_cases_that_no_part_uses(datalist: Path, chosen: dict[str, Any]) -> None:
    split = {"num_validation": 3, "seed": 4, **chosen}
    rest = names(load_unlabeled(datalist, "rest", **split))
    labelled = load_cases(datalist, "training", **split) + load_cases(datalist, "validation", num_validation=3, seed=4)
    assert sorted(rest + [Path(case["image"]).name for case in labelled]) == [f"img{i}.nii" for i in range(10)]
    assert len(rest) == 5


def test_the_rest_of_a_fold(datalist: Path) -> None:
    rest = names(load_unlabeled(datalist, "rest", fold=1, train_cases=2))
    validation = load_cases(datalist, "validation", fold=1)
    assert len(rest) == 10 - 2 - 2
    assert not set(rest) & {Path(case["image"]).name for case in validation}


def test_a_folder_beside_the_others(datalist: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("b", "a"):
        nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), tmp_path / "scans" / f"{name}.nii.gz")
    folder = str(tmp_path / "scans")
    assert names(load_unlabeled(datalist, unlabeled_dir=folder)) == ["a.nii.gz", "b.nii.gz"]
    assert names(load_unlabeled(datalist, "dataset", folder)) == ["more0.nii", "more1.nii", "a.nii.gz", "b.nii.gz"]


def test_series_in_dicom(datalist: Path, tmp_path: Path) -> None:
    files = write_series(tmp_path / "scans" / "one", phantom(), OBLIQUE)
    write_series(tmp_path / "scans" / "two", phantom(), OBLIQUE)
    cases = load_unlabeled(datalist, unlabeled_dir=tmp_path / "scans")
    assert [case.keys() for case in cases] == [{"image"}] * 2
    assert sorted(map(str, files)) in [sorted(case["image"]) for case in cases]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"unlabeled": "all"}, ValueError, "unlabeled must be 'dataset', 'rest' or null, got 'all'; .* unlabeled_dir"),
        ({"unlabeled": "rest"}, ValueError, "unlabeled rest needs training cases that are left out, but all are"),
        (
            {"unlabeled": "rest", "train_cases": 10},
            ValueError,
            "unlabeled rest needs training .* lower train_cas",
        ),
        ({"unlabeled_dir": "{tmp}/empty"}, FileNotFoundError, "There is nothing to predict at .*empty"),
        ({"unlabeled_dir": "{tmp}/nowhere"}, FileNotFoundError, "nowhere"),
    ],
)
def test_nothing_to_use(
    datalist: Path, tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    arguments = {k: v.format(tmp=tmp_path) if isinstance(v, str) else v for k, v in arguments.items()}
    with pytest.raises(error, match=message):
        load_unlabeled(datalist, **arguments)


def test_a_dataset_without_unlabelled_scans(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [{"image": "a.nii", "label": "b.nii"}]}))
    with pytest.raises(ValueError, match="lists no scans under 'unlabeled'; add them there, or give unlabeled_dir"):
        load_unlabeled(tmp_path / "dataset.json", "dataset")


# --- crops side by side ---


def noisy(items: list[dict[str, torch.Tensor]], key: str) -> CacheDataset:
    return CacheDataset(items, Compose([RandGaussianNoised(key, prob=0.5)]), progress=False)


def labeled(count: int = 4) -> CacheDataset:
    items = [{"image": torch.full((1, 2, 2), float(i)), "label": torch.full((1, 2, 2), float(i))} for i in range(count)]
    return noisy(items, "image")


def unlabeled(count: int = 3) -> CacheDataset:
    items = [{"unlabeled_image": torch.full((1, 2, 2), 10.0 + i)} for i in range(count)]
    transforms = Compose(
        [CopyItemsd("unlabeled_image", names="unlabeled_strong"), RandGaussianNoised("unlabeled_strong", prob=0.5)]
    )
    return CacheDataset(items, transforms, progress=False)


def test_as_long_and_in_the_order_of_the_labelled_cases() -> None:
    paired = pair_unlabeled(labeled(), unlabeled())
    set_rnd(paired, 0)
    assert len(paired) == 4
    crops = [crop for index in range(4) for crop in paired[index]]
    assert [int(crop["label"].mean()) for crop in crops] == [0, 1, 2, 3]
    assert all(
        crop.keys() == {"image", "label", "unlabeled_image", "unlabeled_strong"}
        and int(crop["unlabeled_image"].mean()) in (10, 11, 12)
        for crop in crops
    )


def test_every_scan_is_drawn_and_none_by_its_place() -> None:
    paired = PairedDataset(labeled(), unlabeled())
    drawn = []
    for seed in range(12):
        set_rnd(paired, seed)
        drawn.append(int(paired[0][0]["unlabeled_image"].mean()))
    assert set(drawn) == {10, 11, 12}


def test_several_crops_of_a_case_take_those_of_one_scan_in_turn() -> None:
    three = Dataset([[{"image": torch.zeros(1), "label": torch.full((1,), float(i))} for i in range(3)]])
    two = Dataset([[{k: torch.full((1,), float(i)) for k in ("unlabeled_image", "unlabeled_strong")} for i in (7, 8)]])
    crops = PairedDataset(three, two)[0]
    assert [float(crop["unlabeled_strong"]) for crop in crops] == [7, 8, 7]
    assert [float(crop["label"]) for crop in crops] == [0, 1, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_one_seed_gives_the_same_crops_again(workers: int) -> None:
    def epoch(seed: int) -> dict[str, torch.Tensor]:
        paired = pair_unlabeled(labeled(), unlabeled())
        torch.manual_seed(seed)
        set_rnd(paired, seed)
        batches = list(DataLoader(paired, batch_size=2, num_workers=workers))
        return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}

    first, again, other = epoch(1), epoch(1), epoch(2)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first["unlabeled_strong"], other["unlabeled_strong"])


def test_without_unlabelled_scans_the_dataset_is_the_labelled_one() -> None:
    dataset = labeled()
    assert pair_unlabeled(dataset, None) is dataset
    assert pair_unlabeled(dataset, Dataset([])) is dataset
