from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medcontext.data import check_cases

LABELS = {"liver": 1, "spleen": 2}
Case = dict[str, str]


def volume(path: Path, values: Any, affine: Any = None) -> str:
    nib.save(nib.Nifti1Image(np.asarray(values), np.eye(4) if affine is None else affine), path)
    return str(path)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    label = np.zeros((4, 5, 6), np.uint8)
    label[0], label[1] = 1, 2
    return {
        "image": volume(tmp_path / "img.nii.gz", np.zeros((4, 5, 6), np.int16)),
        "label": volume(tmp_path / "label.nii.gz", label),
    }


def problems(case: Case, **kwargs: Any) -> list[str]:
    return check_cases({"training": [case]}, **{"in_channels": 1, "labels": LABELS, **kwargs})


def test_a_sound_case(case: Case) -> None:
    assert problems(case) == []


def other_shape(case: Case) -> None:
    volume(Path(case["label"]), np.ones((4, 5, 7), np.uint8))


def other_place(case: Case) -> None:
    volume(Path(case["label"]), np.ones((4, 5, 6), np.uint8), np.diag([1, 1, 2, 1]))


def surplus_label(case: Case) -> None:
    volume(Path(case["label"]), np.full((4, 5, 6), 7, np.uint8))


def empty_label(case: Case) -> None:
    volume(Path(case["label"]), np.zeros((4, 5, 6), np.uint8))


def four_axes(case: Case) -> None:
    volume(Path(case["image"]), np.zeros((4, 5, 6, 2), np.int16))


def truncated(case: Case) -> None:
    Path(case["image"]).write_bytes(Path(case["image"]).read_bytes()[:20])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_shape, "label.nii.gz has shape (4, 5, 7), its image (4, 5, 6)"),
        (other_place, "lies elsewhere than its image"),
        (surplus_label, "holds the values 7, which `labels` does not declare"),
        (empty_label, "holds no labelled voxel"),
        (four_axes, "img.nii.gz has shape (4, 5, 6, 2); in_channels 1 asks for three axes"),
        (truncated, "cannot be read"),
        (lambda case: Path(case["label"]).unlink(), "label.nii.gz is missing"),
        (lambda case: case.pop("label"), "img.nii.gz has no label"),
    ],
)
def test_what_is_found(case: Case, spoil: Callable[[Case], Any], message: str) -> None:
    spoil(case)
    (found,) = problems(case)
    assert message in found


def test_several_channels_are_the_fourth_axis(case: Case) -> None:
    volume(Path(case["image"]), np.zeros((4, 5, 6, 4), np.int16))
    assert problems(case, in_channels=4) == []
    assert "four axes, the last with 3 channels" in problems(case, in_channels=3)[0]


def test_all_problems_at_once_and_cases_listed_twice(case: Case, tmp_path: Path) -> None:
    missing = {"image": str(tmp_path / "a.nii"), "label": str(tmp_path / "b.nii")}
    found = check_cases({"training": [case, missing], "test": [case]}, in_channels=1, labels=LABELS)
    assert len(found) == 3
    assert "is listed under training and test" in found[-1]


def test_voxels_are_read_on_request_only(case: Case) -> None:
    surplus_label(case)
    assert problems(case, check_labels=False) == []
