from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from highdicom.uid import UID
from monai.transforms import LoadImaged
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from dicom_scans import LPS, OBLIQUE, phantom, write_series
from medcontext.data.check import check_images, check_memory
from medcontext.dicom import find_series, grid_of
from medcontext.scans import LoadImageScand


def as_axes(axes: str) -> np.ndarray:
    """Affine of an array whose axes run as named, with voxels of 1.5 × 1.2 × 4 mm."""
    turn = nib.orientations.axcodes2ornt(axes)
    rotation = np.zeros((3, 3))
    rotation[turn[:, 0].astype(int), range(3)] = turn[:, 1]
    return nib.affines.from_matvec(rotation @ np.diag([1.5, 1.2, 4.0]), (9, -80, 300))


def save_nifti(path: Path, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(phantom().astype(np.float32), affine), path)
    return path


@pytest.mark.parametrize(
    "affine",
    [OBLIQUE, OBLIQUE @ np.diag([1, 1, -1, 1]), *map(as_axes, ("LPS", "RAI", "PSR", "LIP", "SLA"))],
    ids=["oblique", "oblique_downwards", "LPS", "RAI", "PSR", "LIP", "SLA"],
)
def test_a_series_is_the_nifti_of_the_same_volume(tmp_path: Path, affine: np.ndarray) -> None:
    """Values and places equal, up to the direction in which the slices are counted."""
    order = [6, 2, 0, 5, 1, 4, 3]
    ((series,), _) = find_series(write_series(tmp_path / "ct", phantom(), affine, name="IM{}", order=order))
    image = LoadImageScand("image")({"image": list(series.files)})["image"]
    converted = nib.as_closest_canonical(nib.Nifti1Image(image.numpy(), image.affine.numpy()))
    expected = nib.as_closest_canonical(nib.Nifti1Image(phantom().astype(np.float32), affine))
    np.testing.assert_array_equal(converted.get_fdata(), expected.get_fdata())
    np.testing.assert_allclose(converted.affine, expected.affine, atol=1e-5)
    assert np.linalg.det(image.affine[:3, :3]) > 0


def test_metadata_is_that_of_a_nifti_file(tmp_path: Path) -> None:
    affine = as_axes("LPS")
    ((series,), _) = find_series(write_series(tmp_path / "ct", phantom(), affine))
    files = {"image": list(series.files)}
    dicom = LoadImageScand("image")(files)["image"]
    nifti = LoadImaged("image")({"image": str(save_nifti(tmp_path / "a.nii.gz", affine))})["image"]
    np.testing.assert_array_equal(dicom, nifti)
    for key in ("affine", "original_affine", "spatial_shape"):
        np.testing.assert_allclose(dicom.meta[key], nifti.meta[key], atol=1e-5)
    assert dicom.meta["space"] == nifti.meta["space"]
    assert np.isnan(dicom.meta["original_channel_dim"])
    assert dicom.meta["filename_or_obj"] == series.files[0]


def test_values_are_rescaled_slice_by_slice(tmp_path: Path) -> None:
    """PET has a slope for each slice."""

    def slope(k: int) -> float:
        return 0.5 * (k + 1)

    paths = write_series(tmp_path, phantom(), OBLIQUE, slope=0.5, intercept=-400.0, RescaleSlope=slope)
    ((series,), _) = find_series(paths)
    image = LoadImageScand("image")({"image": list(series.files)})["image"]
    np.testing.assert_array_equal(image, (phantom() + 400) * np.arange(1, 8) - 400)


def test_deflated_files(tmp_path: Path) -> None:
    paths = write_series(tmp_path, phantom(), OBLIQUE)
    for path in paths:
        image = dcmread(path)
        image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        image.save_as(path)
    ((series,), _) = find_series(paths)
    np.testing.assert_array_equal(LoadImageScand("image")({"image": list(series.files)})["image"], phantom())


def test_one_file_of_many_frames(tmp_path: Path) -> None:
    slices = [dcmread(path) for path in write_series(tmp_path / "ct", phantom(), OBLIQUE, order=[4, 0, 6, 2, 5, 1, 3])]
    LegacyConvertedEnhancedCTImage(slices, UID(), 5, UID(), 1).save_as(tmp_path / "frames")
    ((series,), _) = find_series([tmp_path / "frames"])
    image = LoadImageScand("image")({"image": list(series.files)})["image"]
    np.testing.assert_array_equal(image, phantom())
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    shape, affine = grid_of(series.files)
    assert shape == phantom().shape
    np.testing.assert_allclose(LPS @ affine, OBLIQUE, atol=1e-5)


def test_frames_that_claim_more_than_memory_holds(tmp_path: Path) -> None:
    slices = [dcmread(path) for path in write_series(tmp_path / "ct", phantom(), OBLIQUE)]
    frames = LegacyConvertedEnhancedCTImage(slices, UID(), 5, UID(), 1)
    frames.Rows = frames.Columns = 65535
    frames.PixelData, frames.file_meta.TransferSyntaxUID = encapsulate([b"\0" * 64] * 7), RLELossless
    frames["PixelData"].VR = "OB"
    frames.save_as(tmp_path / "frames")
    assert (tmp_path / "frames").stat().st_size < 100_000
    case = {"image": str(tmp_path / "frames")}
    (problem,) = check_images([case], in_channels=1)
    assert "mm large, as no scan is" in problem
    (problem,) = check_memory([case], (0.01, 0.01, 0.01), "RAS", 14).values()
    assert "of memory, and" in problem


@pytest.mark.parametrize("number", [1, None])
def test_slices_that_are_of_one_frame(tmp_path: Path, number: int | None) -> None:
    ((series,), _) = find_series(write_series(tmp_path, phantom(), OBLIQUE, NumberOfFrames=number))
    image = LoadImageScand("image")({"image": list(series.files)})["image"]
    np.testing.assert_array_equal(image, phantom())


def test_frames_that_are_no_volume(tmp_path: Path) -> None:
    slices = [dcmread(path) for path in write_series(tmp_path / "ct", phantom(), OBLIQUE)]
    LegacyConvertedEnhancedCTImage([*slices[:3], *slices[4:]], UID(), 5, UID(), 1).save_as(tmp_path / "gap")
    LegacyConvertedEnhancedCTImage(slices[:1], UID(), 5, UID(), 1).save_as(tmp_path / "single")
    _, reasons = find_series([tmp_path / "gap", tmp_path / "single"])
    assert ["not a stack of evenly spaced slices" in str(reason) for reason in reasons] == [True, False]
    assert reasons[1].reason.endswith("is one slice only")
