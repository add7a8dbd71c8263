"""Which formats are read, by which library, and what a file is that is none of these."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib

from medcontext.dicom import is_dicom
from medcontext.storage.parts import parts_of

__all__ = [
    "VolumeError",
    "is_itk_file",
    "is_volume_file",
    "open_itk",
    "open_nibabel",
    "unreadable",
    "volume_name",
]

NIBABEL_ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img")
ITK_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
FORMATS = "NIfTI, MGH, Analyze, NRRD, MetaImage or DICOM"

# the first bytes of what users give by mistake
_SIGNATURES = (
    (b"\x89PNG", "a picture (PNG), not a volume"),
    (b"\xff\xd8\xff", "a picture (JPEG), not a volume"),
    (b"GIF8", "a picture (GIF), not a volume"),
    (b"BM", "a picture (BMP), not a volume"),
    (b"II*\0", "a picture (TIFF) without a place in the patient"),
    (b"MM\0*", "a picture (TIFF) without a place in the patient"),
    (b"\x93NUMPY", "a NumPy array without a place in the patient"),
    (b"%PDF", "a document (PDF), not a volume"),
    (b"PK\x03\x04", "an archive (zip); unpack it first"),
    (b"\x89HDF", "HDF5 (MINC 2, or MATLAB from version 7.3)"),
    (b"CDF", "MINC or NetCDF"),
    (b"MATLAB", "a MATLAB file"),
    (b"<!DOCTYPE", "a web page, as of a failed download"),
    (b"<html", "a web page, as of a failed download"),
    (b"version https://git-lfs", "a pointer of Git LFS; get the file itself (git lfs pull)"),
    (b"NRRD", "NRRD, unlike its name; let it end in .nrrd"),
    (b"ObjectType", "MetaImage, unlike its name; let it end in .mha"),
    (b"\x08\x00", "DICOM without its preamble; convert it to NIfTI, for example with dcm2niix"),
)


def is_volume_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file's name ends like that of a volume that can be read, DICOM apart; hidden files do not."""
    name = Path(path).name.lower()
    return name.endswith(NIBABEL_ENDINGS + ITK_ENDINGS) and not name.startswith(".")


def is_itk_file(path: str | os.PathLike[str]) -> bool:
    """Return whether ITK reads a file of this name: NRRD and MetaImage."""
    return Path(path).name.lower().endswith(ITK_ENDINGS)


def volume_name(path: str | os.PathLike[str]) -> str:
    """Return the name of a volume's file without its ending, which may be double.

    Example:
        >>> volume_name("scans/a.b.nii.gz"), volume_name("c.mha"), volume_name("d.dcm")
        ('a.b', 'c', 'd.dcm')
    """
    name = Path(path).name
    ending = next((each for each in NIBABEL_ENDINGS + ITK_ENDINGS if name.lower().endswith(each)), "")
    return name[: len(name) - len(ending)]


class VolumeError(ValueError):
    """Why a file is no volume that can be used, as a clause that follows its name and says what to do."""


def open_nibabel(path: str) -> Any:
    """Open a volume by nibabel, without reading its voxels.

    Raises:
        VolumeError: If its name is of no format that can be read, or if it is DICOM.
    """
    if is_dicom(path):
        raise VolumeError(
            "is DICOM, which is read for prediction and as unlabelled scans only; convert the series to NIfTI, for "
            "example with dcm2niix"
        )
    if not path.lower().endswith(NIBABEL_ENDINGS):
        raise VolumeError(f"has a name of no format that is read; give {FORMATS}")
    return nib.load(path)


def open_itk(path: str) -> Any:
    """Open a volume by ITK and return its reader, which knows the header and reads the voxels when executed.

    Raises:
        ImportError: If SimpleITK is missing; the message says what to install.
        VolumeError: If its header names voxels in another folder, which might be any file.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError(
            'NRRD and MetaImage require SimpleITK, which is missing: pip install SimpleITK, or "medcontext[itk]"'
        ) from error
    folder = Path(path).absolute().parent
    if any(not Path(os.path.normpath(part.absolute())).is_relative_to(folder) for part in parts_of(path)):
        raise VolumeError("names voxels in another folder; put them beside it")
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    return reader


def unreadable(name: str, path: str, error: Exception) -> str:
    """Say in one sentence why a file cannot be read as a volume, and what to do.

    Args:
        name: the file as the user knows it.
        path: the file.
        error: what reading it raised.
    """
    known = isinstance(error, VolumeError)
    what = None if known and is_volume_file(path) else _what_it_is(path)
    if what is not None or known:
        return f"{name} {error if what is None else f'is {what}'}."
    if isinstance(error, ImportError):
        return f"{name} cannot be read: {error}."
    reason = " ".join(str(error).rpartition("ERROR: ")[2].split()).rstrip(".") or type(error).__name__
    return f"{name} cannot be read ({reason}); repair it or leave it out."


def _what_it_is(path: str) -> str | None:
    """Return what a file is instead of a volume and what to do, ``None`` if that is not known."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(64)
    except OSError:
        return None
    if not start:
        return "empty; get it again"
    if is_itk_file(path) and start.startswith((b"NRRD", b"ObjectType")):
        return None
    if start.startswith(b"\x1f\x8b") and not path.lower().endswith((".gz", ".mgz")):
        return "compressed, unlike its name; add .gz to it"
    for signature, what in _SIGNATURES:
        by_chance = len(signature) < 4 and is_volume_file(path)
        if start.startswith(signature) and not by_chance:
            return what if ";" in what else f"{what}; give {FORMATS}"
    return None
