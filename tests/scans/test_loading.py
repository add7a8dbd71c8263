from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (as its documentation does)
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from dicom_scans import OBLIQUE, phantom
from medcontext.scans import ImageReadError, LoadImageScand, LoadLabelMapd, read_volume


def save(path: Path, values: Any = None, affine: Any = OBLIQUE) -> str:
    nib.save(nib.Nifti1Image(phantom() if values is None else np.asarray(values), affine), path)
    return str(path)


def load(image: str | list[str]) -> Any:
    return Compose([LoadImageScand("image"), EnsureChannelFirstd("image")])({"image": image})["image"]


@pytest.mark.parametrize("channels", [1, 2])
def test_nifti_files_are_loaded_as_by_monai(tmp_path: Path, channels: int) -> None:
    files = [save(tmp_path / f"{name}.nii.gz") for name in "ab"][:channels]
    ours, theirs = (loader("image")({"image": files})["image"] for loader in (LoadImageScand, LoadImaged))
    np.testing.assert_array_equal(ours, theirs)
    for key in ("affine", "original_affine", "spatial_shape"):
        np.testing.assert_array_equal(ours.meta[key], theirs.meta[key])
    assert ours.meta["filename_or_obj"] == theirs.meta["filename_or_obj"] == files[0]
    assert load(files).shape == (channels, *phantom().shape)


def test_the_affine_is_that_of_nibabel_whatever_pixdim_says(tmp_path: Path) -> None:
    image = nib.Nifti1Image(phantom(), np.diag([-2.0, 2, 5, 1]))
    image.header["pixdim"][1:4] = 1
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    np.testing.assert_array_equal(load(str(tmp_path / "a.nii")).affine, image.affine)
    # what this is about: MONAI believes pixdim, and takes a qform that is declared invalid
    theirs = LoadImaged("image")({"image": str(tmp_path / "a.nii")})["image"].affine
    np.testing.assert_array_equal(np.abs(np.diag(theirs)), [1, 1, 1, 1])


def big_endian(path: Path) -> str:
    image = nib.Nifti1Image(phantom().astype(">i2"), OBLIQUE, nib.Nifti1Header(endianness=">"))
    nib.save(image, path)
    assert nib.load(path).header.endianness == ">"
    return str(path)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (big_endian, "a.nii"),
        (lambda path: save(path, phantom()[..., None]), "a.nii.gz"),
        (lambda path: save(path, phantom()[..., None, None]), "a.nii.gz"),
        (lambda path: nib.save(nib.MGHImage(phantom(), OBLIQUE), path), "a.mgz"),
        (lambda path: nib.save(nib.Nifti1Pair(phantom(), OBLIQUE), path), "a.img"),
        *((lambda path: sitk.WriteImage(itk_image(), str(path)), f"a.{end}") for end in ("nrrd", "mha", "mhd", "nhdr")),
    ],
)
def test_one_volume_in_every_form(tmp_path: Path, write: Callable[[Path], Any], name: str) -> None:
    write(tmp_path / name)
    image = load(str(tmp_path / name))
    np.testing.assert_array_equal(image, phantom()[None])
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-4)
    np.testing.assert_array_equal(read_volume(str(tmp_path / name)).dataobj, phantom())


def itk_image() -> sitk.Image:
    """The phantom as ITK has it: axes reversed in the array, directions in LPS."""
    image = sitk.GetImageFromArray(phantom().T)
    affine = np.diag([-1, -1, 1, 1]) @ OBLIQUE
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(sizes.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / sizes).ravel().tolist())
    return image


def test_channels_come_first_from_every_format(tmp_path: Path) -> None:
    values = np.stack([phantom(), -phantom()], axis=-1).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values.transpose(2, 1, 0, 3), isVector=True), tmp_path / "a.nrrd")
    for file in (str(tmp_path / "a.nrrd"), save(tmp_path / "a.nii.gz", values)):
        np.testing.assert_array_equal(load(file), [phantom(), -phantom()])


@pytest.mark.parametrize("channels", [1, 2])
def test_what_cannot_be_read_is_named(tmp_path: Path, channels: int) -> None:
    files = [save(tmp_path / f"{name}.nii.gz") for name in "ab"][:channels]
    Path(files[-1]).write_bytes(Path(files[-1]).read_bytes()[:900])
    others = ", or another of its 2 files," if channels == 2 else ""
    with pytest.raises(ImageReadError, match=rf"^\S*a.nii.gz{others} cannot be read \(.+\); repair it or leave it out"):
        LoadImageScand("image")({"image": files})


SHEARED = np.diag([3.0, 3, 3, 1])
SHEARED[0, 2] = 0.9


@pytest.mark.parametrize(
    ("values", "affine", "message"),
    [
        (phantom(), SHEARED, "a.nii.gz has a sheared grid, as by a tilted gantry .*; resample it first"),
        (phantom().astype(np.complex64), OBLIQUE, "a.nii.gz has voxels of type complex64, neither intensities nor"),
        (phantom()[:, :, 0], OBLIQUE, r"a.nii.gz has shape \(11, 9\), which is not that of a volume; give three axes"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, values: Any, affine: Any, message: str) -> None:
    with pytest.raises(ImageReadError, match=message):
        LoadImageScand("image")({"image": save(tmp_path / "a.nii.gz", values, affine)})


def test_channels_that_lie_elsewhere(tmp_path: Path) -> None:
    files = [save(tmp_path / "a.nii.gz"), save(tmp_path / "b.nii.gz", affine=OBLIQUE @ np.diag([-1, 1, 1, 1]))]
    with pytest.raises(ImageReadError, match="differs in shape or affine from the files of the other channels"):
        LoadImageScand("image")({"image": files})


def test_label_maps_are_whole_numbers_again(tmp_path: Path) -> None:
    label = save(tmp_path / "a.nii.gz", np.array([0, 12.999999, 3.0000458, 1.9992, -0.0]).reshape(5, 1, 1))
    loaded = LoadLabelMapd("label")({"label": label})["label"]
    np.testing.assert_array_equal(loaded.ravel(), [0, 13, 3, 2, 0])
    np.testing.assert_allclose(loaded.affine, OBLIQUE, atol=1e-4)


@pytest.mark.parametrize("value", [0.5, 12.99, np.nan, np.inf])
def test_what_is_no_label_map(tmp_path: Path, value: float) -> None:
    label = save(tmp_path / "a.nii.gz", np.array([0.0, 1.0, value]).reshape(3, 1, 1))
    with pytest.raises(
        ImageReadError, match=rf"a.nii.gz is no label map: it holds values such as {value:g}; give whole"
    ):
        LoadLabelMapd("label")({"label": label})
