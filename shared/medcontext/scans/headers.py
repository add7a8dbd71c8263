"""Headers of volumes: the one decision where a volume lies, and what of it a NIfTI file of the same grid takes over."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
from monai.data.utils import orientation_ras_lps

from medcontext.dicom import is_dicom
from medcontext.scans.formats import VolumeError, is_itk_file, open_itk, open_nibabel
from medcontext.scans.geometry import SHIFT_TOLERANCE_MM, corner_distance, voxel_sizes

__all__ = ["VolumeHeader", "check_voxel_type", "header_of", "nifti_header", "read_header"]

Array: TypeAlias = npt.NDArray[np.float64]

_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # NIfTI's metres and micrometres; everything else is taken for mm
_SPACE_UNIT = 7  # bits of NIfTI's xyzt_units that are about space
_PLACE = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_PIXDIM_TOLERANCE = 1e-5  # relative, with which MONAI compares


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """What a file says about its voxels.

    Attributes:
        shape: number of voxels along each axis, without axes of length 1 behind the third.
        affine: affine (4, 4) from voxels to mm in RAS.
        bytes: size of the voxels as they are stored, without compression.
        doubts: clauses about entries that contradict each other, with what was believed.
    """

    shape: tuple[int, ...]
    affine: Array
    bytes: int
    doubts: tuple[str, ...] = ()


def read_header(path: str) -> VolumeHeader:
    """Read the header of a volume.

    Raises:
        ImportError: If a library for the format is missing.
        VolumeError: If the format is unknown, or voxels are of no type that can be used; nibabel and ITK raise further
            errors for files that they cannot read.
    """
    return header_of(open_itk(path) if is_itk_file(path) else open_nibabel(path))


def header_of(opened: Any) -> VolumeHeader:
    """Return the header of an image that nibabel opened, or of a file reader of SimpleITK.

    Raises:
        VolumeError: If voxels are colours or complex numbers, or their slope or intercept is infinite.
    """
    if not hasattr(opened, "affine"):  # a reader of ITK
        shape = _without_single(_itk_shape(opened))
        return VolumeHeader(shape, _itk_affine(opened), math.prod(shape) * _itk_voxel_bytes(opened))
    header, affine = opened.header, np.array(opened.affine, dtype=float)
    dtype = opened.get_data_dtype()
    check_voxel_type(dtype)
    shape = _without_single(opened.shape)
    size = math.prod(shape) * dtype.itemsize
    if not isinstance(header, nib.Nifti1Header):
        return VolumeHeader(shape, affine, size)
    _check_written(opened)
    scale = _MM_PER_UNIT.get(int(header["xyzt_units"]) & _SPACE_UNIT, 1.0)
    doubts = _doubts(header, shape, affine, scale) if len(shape) >= 3 and np.isfinite(affine).all() else ()
    affine[:3] *= scale
    return VolumeHeader(shape, affine, size, doubts)


def check_voxel_type(dtype: np.dtype[Any]) -> None:
    """Raise VolumeError if voxels are colours or complex numbers."""
    if dtype.kind not in "biuf":
        raise VolumeError(f"has voxels of type {dtype}, neither intensities nor labels; convert them")


def _check_written(opened: Any) -> None:
    """Raise VolumeError for an infinite scaling or a lack of voxel sizes, which nibabel replaces and does not keep."""
    with opened.file_map.get("header", opened.file_map["image"]).get_prepare_fileobj("rb") as stream:
        written = type(opened.header).from_fileobj(stream, check=False)
    scaling = float(written["scl_slope"]), float(written["scl_inter"])
    if any(map(math.isinf, scaling)):
        raise VolumeError("has values with slope {:g} and intercept {:g}; repair the header".format(*scaling))
    if max(written["sform_code"], written["qform_code"]) <= 0 and not (np.abs(written["pixdim"][1:4]) > 0).all():
        raise VolumeError(
            "has no voxel sizes, as pixdim is not above 0 and neither sform nor qform is valid; repair the header"
        )


def nifti_header(path: str, affine: npt.ArrayLike) -> nib.Nifti1Header:
    """Return a NIfTI header with the geometry of a volume, for a file of the same grid.

    Of a NIfTI file it takes over qform, sform, both codes, voxel sizes and units as they are, so that every program
    places both files alike, whichever entries it believes.

    Args:
        path: file of the volume, for DICOM any of its files.
        affine: affine (4, 4) in mm, taken for other formats.
    """
    header = nib.Nifti1Header()
    original = None if is_itk_file(path) or is_dicom(path) else open_nibabel(path).header
    if not isinstance(original, nib.Nifti1Header):
        header.set_xyzt_units("mm")
        header.set_qform(np.asarray(affine, dtype=float), code="scanner")
        header.set_sform(np.asarray(affine, dtype=float), code="scanner")
        return header
    for field in _PLACE:
        header[field] = original[field]
    header["pixdim"][:4] = original["pixdim"][:4]
    header["xyzt_units"] = int(original["xyzt_units"]) & _SPACE_UNIT
    return header


def _without_single(shape: Sequence[int]) -> tuple[int, ...]:
    return (*map(int, shape[:3]), *(int(size) for size in shape[3:] if size != 1))


def _doubts(header: nib.Nifti1Header, shape: Sequence[int], affine: Array, scale: float) -> tuple[str, ...]:
    """Return what contradicts the affine, in a header of NIfTI."""
    sizes, written = voxel_sizes(affine), np.array(header.get_zooms()[:3], dtype=float)
    doubts = []
    if not np.allclose(written, sizes, rtol=_PIXDIM_TOLERANCE, atol=0):
        doubts.append(
            f"has voxels of {_lengths(written * scale)} mm by pixdim and of {_lengths(sizes * scale)} mm by its "
            "affine, which is used; correct the header if pixdim is right"
        )
    codes = int(header["sform_code"]), int(header["qform_code"])
    if min(codes) > 0:
        apart = corner_distance(shape, affine, header.get_qform()) * scale
        if apart > SHIFT_TOLERANCE_MM:
            doubts.append(
                f"lies up to {apart:.3g} mm elsewhere by its qform (code {codes[1]}) than by its sform (code "
                f"{codes[0]}), which is used; other programs may show it at the other place"
            )
    return tuple(doubts)


def _lengths(values: Array) -> str:
    return " × ".join(f"{value:.6g}" for value in values)


def _itk_shape(reader: Any) -> tuple[int, ...]:
    channels = reader.GetNumberOfComponents()
    return (*reader.GetSize(), *([channels] if channels > 1 else []))


def _itk_voxel_bytes(reader: Any) -> int:
    """Return the size of a component in bytes by the name of its type, such as ``16-bit signed integer``."""
    import SimpleITK

    found = re.match(r"\d+", SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()).removeprefix("vector of "))
    return int(found[0]) // 8 if found else 1


def _itk_affine(reader: Any) -> Array:
    """Return the affine (4, 4) in RAS; ITK's own is in LPS."""
    rank, axes = reader.GetDimension(), min(reader.GetDimension(), 3)
    affine = np.eye(4)
    direction = np.array(reader.GetDirection()).reshape(rank, rank)[:axes, :axes]
    affine[:axes, :axes] = direction * np.array(reader.GetSpacing())[:axes]
    affine[:axes, 3] = reader.GetOrigin()[:axes]
    return np.asarray(orientation_ras_lps(affine))
