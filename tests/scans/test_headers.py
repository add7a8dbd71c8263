from __future__ import annotations

import gzip
import struct
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (as its documentation does)

from dicom_scans import OBLIQUE, TURN
from medcontext.scans import nifti_header, read_header

SHAPE = (5, 4, 3)
PLACED = nib.affines.from_matvec(np.diag([-2.0, 2, 5]), (40, -30, 99))


def nifti(affine: Any = None, *, qform: Any = None, codes: tuple[int, int] = (0, 2), units: str = "mm") -> Any:
    """Image with the given sform, the same qform unless another is given, and the codes of qform and sform."""
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), PLACED if affine is None else affine)
    image.header.set_qform(image.affine if qform is None else qform, code=codes[0])
    image.header.set_sform(image.affine, code=codes[1])
    image.header.set_xyzt_units(units)
    return nib.Nifti1Image(image.dataobj, None, image.header)  # an affine would replace the forms


def save(image: Any, path: Path, *, pixdim: tuple[float, float, float] | None = None) -> str:
    """Save an image, with another voxel size in its header if one is given, as MATLAB and others write them."""
    content = bytearray(image.to_bytes())
    if pixdim is not None:
        content[80:92] = struct.pack("<3f", *pixdim)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.mark.parametrize("pixdim", [None, (1, 1, 1), (2.0003, 2, 5)])
def test_the_sform_is_believed_whatever_pixdim_says(tmp_path: Path, pixdim: Any) -> None:
    header = read_header(save(nifti(), tmp_path / "a.nii.gz", pixdim=pixdim))
    np.testing.assert_allclose(header.affine, PLACED)
    assert (len(header.doubts) == 0) == (pixdim is None)


def test_what_pixdim_says_instead(tmp_path: Path) -> None:
    (doubt,) = read_header(save(nifti(), tmp_path / "a.nii.gz", pixdim=(1, 1, 1))).doubts
    assert doubt.startswith("has voxels of 1 × 1 × 1 mm by pixdim and of 2 × 2 × 5 mm by its affine, which is used")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((1, 2), 40.0), ((0, 2), 40.0), ((1, 0), 41.0), ((0, 0), 4.0)],  # the fallback is centred: (5 - 1) / 2 × 2 mm
)
def test_sform_before_qform_before_the_fallback(tmp_path: Path, codes: tuple[int, int], expected: float) -> None:
    elsewhere = PLACED.copy()
    elsewhere[0, 3] += 1
    header = read_header(save(nifti(qform=elsewhere, codes=codes), tmp_path / "a.nii.gz"))
    assert header.affine[0, 3] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shift", "codes", "doubted"),
    [(0.09, (1, 2), False), (0.11, (1, 2), True), (0.11, (0, 2), False), (0.11, (1, 0), False)],
)
def test_forms_that_both_claim_to_be_valid(tmp_path: Path, shift: float, codes: tuple[int, int], doubted: bool) -> None:
    elsewhere = PLACED.copy()
    elsewhere[1, 3] += shift
    doubts = read_header(save(nifti(qform=elsewhere, codes=codes), tmp_path / "a.nii.gz")).doubts
    expected = "lies up to 0.11 mm elsewhere by its qform (code 1) than by its sform (code 2), which is used"
    assert [doubt.startswith(expected) for doubt in doubts] == [True] * doubted


@pytest.mark.parametrize(("units", "scale"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_lengths_are_in_millimetres(tmp_path: Path, units: str, scale: float) -> None:
    header = read_header(save(nifti(units=units), tmp_path / "a.nii.gz"))
    np.testing.assert_allclose(header.affine[:3], PLACED[:3] * scale)
    assert header.doubts == ()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5, 4, 3, 1, 1), SHAPE), ((5, 4, 1), (5, 4, 1)), ((5, 4, 3, 1, 2), (5, 4, 3, 2)), ((5, 4), (5, 4))],
)
def test_axes_of_one_behind_the_third_do_not_count(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), PLACED), tmp_path / "a.nii.gz")
    assert read_header(str(tmp_path / "a.nii.gz")).shape == expected


TURNS = [np.eye(3)[list(order)] * signs for order, signs in product(permutations(range(3)), product((1, -1), repeat=3))]
"""All 48 orientations of a grid."""


def positions(path: Path) -> dict[str, np.ndarray]:
    """Where nibabel and SimpleITK place three voxels, in RAS."""
    voxels = np.array([(0, 0, 0), (4, 0, 2), (1, 3, 1)])
    image = sitk.ReadImage(str(path))
    by_itk = np.array([image.TransformIndexToPhysicalPoint(voxel.tolist()) for voxel in voxels])
    return {"nibabel": nib.affines.apply_affine(nib.load(path).affine, voxels), "itk": by_itk * (-1, -1, 1)}


def written(path: Path) -> dict[str, np.ndarray]:
    """Places of a label map that is written for the image at ``path``."""
    header = nifti_header(str(path), read_header(str(path)).affine)
    header.set_data_dtype(np.uint8)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), None, header), path.with_name("seg.nii"))
    return positions(path.with_name("seg.nii"))


@pytest.mark.parametrize(
    "codes", [(1, 1), (1, 4), *[pytest.param(codes, marks=pytest.mark.slow) for codes in ((0, 2), (1, 0), (0, 0))]]
)
def test_a_label_map_lies_where_its_image_does_for_every_program(tmp_path: Path, codes: tuple[int, int]) -> None:
    """In all orientations, upright and oblique, with a qform of its own where one is claimed beside the sform."""
    path = tmp_path / "image.nii"
    for turn, tilt in product(TURNS, (np.eye(3), TURN)):
        affine = nib.affines.from_matvec(tilt @ turn @ np.diag([1.5, 1.2, 4.0]), (40.5, 80.25, -310.75))
        qform = nib.affines.from_matvec(turn @ np.diag([1.5, 1.2, 4.0]), (7, 8, 9)) if codes == (1, 4) else affine
        save(nifti(affine, qform=qform, codes=codes), path)
        places = written(path)
        for library, expected in positions(path).items():
            np.testing.assert_allclose(places[library], expected, atol=1e-3)


@pytest.mark.parametrize("units", ["meter", "micron", "unknown"])
def test_a_label_map_has_forms_codes_voxel_sizes_and_units_of_its_image(tmp_path: Path, units: str) -> None:
    elsewhere = PLACED @ np.diag([1, -1, 1, 1])
    path = tmp_path / "image.nii.gz"
    save(nifti(qform=elsewhere, codes=(1, 3), units=units), path, pixdim=(2.1, 2, 5))
    image, header = nib.load(path).header, nifti_header(str(path), np.eye(4))
    np.testing.assert_array_equal(header.get_sform(), image.get_sform())
    np.testing.assert_array_equal(header.get_qform(), image.get_qform())
    assert [int(header[code]) for code in ("qform_code", "sform_code")] == [1, 3]
    np.testing.assert_array_equal(header["pixdim"][:4], image["pixdim"][:4])
    assert header.get_xyzt_units()[0] == units


@pytest.mark.parametrize("ending", ["nii", "mgz", "mgh", "img", "nrrd", "nhdr", "mha", "mhd"])
def test_one_grid_lies_in_one_place_in_every_format(tmp_path: Path, ending: str) -> None:
    """And the label map of each lies there too, for nibabel and for ITK."""
    source, path = tmp_path / "source.nii.gz", tmp_path / f"image.{ending}"
    save(nifti(OBLIQUE, codes=(1, 1)), source)
    image = nib.load(source)
    if ending in ("mgz", "mgh"):
        nib.save(nib.MGHImage(np.zeros(SHAPE, np.int16), OBLIQUE), path)
    elif ending in ("nii", "img"):
        kind = nib.Nifti1Pair if ending == "img" else nib.Nifti2Image
        nib.save(kind(np.asarray(image.dataobj), OBLIQUE, image.header), path)
    else:
        sitk.WriteImage(sitk.ReadImage(str(source)), str(path))
    header = read_header(str(path))
    assert header.shape == SHAPE
    np.testing.assert_allclose(header.affine, OBLIQUE, atol=1e-4)
    for library, expected in positions(source).items():
        np.testing.assert_allclose(written(path)[library], expected, atol=1e-3, err_msg=library)


def test_channels_of_nrrd_are_the_last_axis(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5, 2), np.float32), isVector=True), tmp_path / "a.nrrd")
    assert read_header(str(tmp_path / "a.nrrd")).shape == (5, 4, 3, 2)
