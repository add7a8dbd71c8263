from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, NormalizeIntensityd, ScaleIntensityRanged

from dicom_scans import write_series
from medcontext.data import CheckImaged, ImageValueError

WINDOW = ScaleIntensityRanged("image", a_min=-175, a_max=250, b_min=0, b_max=1, clip=True)
UNITS = "which are no CT in Hounsfield units"


def checked(values: list[float], intensity: Any = WINDOW, file: str = "scan.nii.gz") -> Any:
    image = MetaTensor(torch.tensor(values).view(1, -1, 1, 1), meta={"filename_or_obj": file})
    return CheckImaged("image", intensity)({"image": image})


@pytest.mark.parametrize(
    ("values", "intensity"),
    [
        ([-1000, -900, 40, 1200], WINDOW),  # with air
        ([-110, -60, 40, 70], WINDOW),  # cropped to an organ and fat
        ([-2000, 0, 40], WINDOW),  # with the scanner's padding
        ([-1, 55, 60], WINDOW),  # noise in the liver alone
        ([0, 100, 4095], NormalizeIntensityd("image")),  # MR
        ([0, 100, 4095], ScaleIntensityRanged("image", a_min=0, a_max=4095, b_min=0, b_max=1)),
        ([0, 100, 4095], None),
    ],
)
def test_images_that_are_taken(values: list[float], intensity: Any) -> None:
    assert checked(values, intensity)["image"].flatten().tolist() == values


@pytest.mark.parametrize(
    ("values", "intensity", "message"),
    [
        ([0, 1024, 4095], WINDOW, f"scan.nii.gz has values from 0 to 4095, {UNITS}.*--intensity_check False"),
        ([0, 1024], Compose([NormalizeIntensityd("image"), WINDOW]), f"values from 0 to 1024, {UNITS}"),
        ([0, 0.5, 1], WINDOW, f"scan.nii.gz has values from 0 to 1, {UNITS}"),
        ([-1, 0.5, 1], WINDOW, f"scan.nii.gz has values from -1 to 1, {UNITS}"),
        ([0, 0], WINDOW, f"scan.nii.gz has values from 0 to 0, {UNITS}"),
        (
            [-1000, float("nan"), 40],
            WINDOW,
            "scan.nii.gz has 1 voxels that are NaN or infinite, or beyond ",
        ),
        ([0, float("inf"), float("nan")], None, "scan.nii.gz has 2 voxels that are NaN or infinite"),
    ],
)
def test_images_that_are_refused(values: list[float], intensity: Any, message: str) -> None:
    with pytest.raises(ImageValueError, match=message):
        checked(values, intensity)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("dropped", [[], ["RescaleSlope", "RescaleIntercept"], ["RescaleIntercept"]])
def test_dicom_without_the_tags_that_make_hounsfield_units(tmp_path: Path, modality: str, dropped: list[str]) -> None:
    (path,) = write_series(tmp_path, np.zeros((4, 4, 1)), np.eye(4), Modality=modality)
    dataset = pydicom.dcmread(path)
    for keyword in dropped:
        delattr(dataset, keyword)
    dataset.save_as(path)
    if dropped and modality == "CT":
        with pytest.raises(ImageValueError, match=f"{path} is CT without Rescale Slope and Intercept"):
            checked([-1000, 40], file=str(path))
    else:
        assert checked([-1000, 40], file=str(path))
