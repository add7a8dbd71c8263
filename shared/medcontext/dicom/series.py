"""Which DICOM files form a volume, in which order, and why others do not."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = [
    "ORIENTATION_TOLERANCE",
    "SPACING_TOLERANCE",
    "TILT_TOLERANCE",
    "LeftOut",
    "Series",
    "find_series",
    "grid_of",
    "is_dicom",
    "modality_of",
    "read",
    "require_dicom",
    "slice_order",
]

Array: TypeAlias = npt.NDArray[np.float64]

SPACING_TOLERANCE = 0.05
"""Share of the mean distance by which slices may be displaced, as positions are often rounded."""

ORIENTATION_TOLERANCE = 1e-5
"""Difference to 1 that the cosine of the angle between slices may have: a quarter of a degree."""

TILT_TOLERANCE = 0.01
"""Difference to 1 that the cosine of the angle between a stack and its normal may have for highdicom, which also checks
single slices, where rounded positions say little; here the whole stack may be off by half a pixel."""

_PATIENT_VOLUMES = (
    "CTImageStorage",
    "EnhancedCTImageStorage",
    "LegacyConvertedEnhancedCTImageStorage",
    "MRImageStorage",
    "EnhancedMRImageStorage",
    "LegacyConvertedEnhancedMRImageStorage",
    "PositronEmissionTomographyImageStorage",
    "EnhancedPETImageStorage",
    "LegacyConvertedEnhancedPETImageStorage",
)
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
)
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality"),
    *("SpecificCharacterSet", "FrameOfReferenceUID", "ImageType", "Rows", "Columns", "NumberOfFrames"),
    *("BitsAllocated", "InstanceNumber", "SliceThickness", "SpacingBetweenSlices"),
    *_GEOMETRY,
)


@dataclass(frozen=True)
class Series:
    """Images that form one volume.

    Attributes:
        name: the series' number and description, and eight digits of the SHA-256 of its UID, which keep the scans of
            different patients apart; nothing that identifies a patient.
        uid: ``SeriesInstanceUID``.
        files: one file for each slice, in their order along the volume, or one that holds all.
    """

    name: str
    uid: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class LeftOut:
    """DICOM files that are not a volume.

    Attributes:
        name: name of the series, see :class:`Series`, or of a file that cannot be read.
        reason: clause with its subject that says why.
        files: the files.
        is_fault: whether it may have been meant to be a volume; localisers, single slices and reports are not.
    """

    name: str
    reason: str
    files: tuple[str, ...]
    is_fault: bool = True

    def __str__(self) -> str:
        return self.reason


def require_dicom() -> None:
    """Check that the libraries for DICOM are installed.

    Raises:
        ImportError: If they are not; the message says what to install.
    """
    try:
        import highdicom  # noqa: F401
        import pydicom  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"DICOM requires pydicom and highdicom ({error.name} is missing): pip install pydicom highdicom"
        ) from error


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is in DICOM's file format, whatever its name."""
    try:
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_series(files: Iterable[str | os.PathLike[str]]) -> tuple[list[Series], list[LeftOut]]:
    """Sort DICOM files into series that are volumes.

    Localisers among a series' images are left out, as are copies of an image and a disc's ``DICOMDIR``.

    Args:
        files: DICOM files in any order, of any number of series.

    Returns:
        The series that are volumes, by name, and what is none: other series, and files that cannot be read.

    Raises:
        ImportError: If the libraries for DICOM are missing.
    """
    require_dicom()
    groups: dict[str, dict[str, tuple[str, Dataset]]] = {}
    left_out: list[LeftOut] = []
    for path in sorted(str(file) for file in files if Path(file).name.upper() != "DICOMDIR"):
        try:
            header = _read_header(path)
        except ValueError as error:
            left_out.append(LeftOut(Path(path).name, str(error).rstrip("."), (path,)))
        else:
            groups.setdefault(header.SeriesInstanceUID, {}).setdefault(header.SOPInstanceUID, (path, header))
    results = [_series_or_reason(uid, *zip(*images.values(), strict=True)) for uid, images in groups.items()]
    volumes = [series for series in results if isinstance(series, Series)]
    left_out += [reason for reason in results if isinstance(reason, LeftOut)]
    return sorted(volumes, key=lambda series: series.name), left_out


def _read_header(path: str) -> Dataset:
    """Read the tags that say what a file is, all of them converted, which pydicom postpones until they are used.

    Raises:
        ValueError: If one cannot be converted.
    """
    header = read(path, specific_tags=list(_TAGS), stop_before_pixels=True)
    try:
        for _ in header:
            pass
    except Exception as error:
        raise ValueError(f"{path} has a broken tag ({error}); repair it or leave it out.") from error
    return header


def read(path: str, **kwargs: Any) -> Dataset:
    """Read a DICOM file and complete the tags that highdicom needs; only files of several frames have a number of them.

    Args:
        path: path of the file.
        kwargs: arguments of ``pydicom.dcmread``.

    Raises:
        ValueError: If the file is damaged.
    """
    import pydicom

    try:
        dataset = pydicom.dcmread(path, **kwargs)
        lacking = [tag for tag in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID") if not dataset.get(tag)]
        number_of_frames = int(dataset.get("NumberOfFrames") or 1)
    except Exception as error:
        raise ValueError(f"{path} is not a readable DICOM file ({type(error).__name__}: {error}).") from error
    if dataset.file_meta.get("MediaStorageSOPClassUID") == pydicom.uid.MediaStorageDirectoryStorage:
        raise ValueError(f"{path} is a DICOMDIR, the list of a disc's files, under another name; leave it out.")
    if lacking:
        raise ValueError(f"{path} is not a readable DICOM file: it ends before {lacking[0]}, or never had one.")
    # highdicom needs tags that some anonymised files lack
    if not dataset.get("FrameOfReferenceUID"):
        dataset.FrameOfReferenceUID = dataset.SeriesInstanceUID
    for tag in _MAY_BE_EMPTY:
        if tag not in dataset:
            setattr(dataset, tag, None)
    if number_of_frames == 1:  # some scanners write it for ordinary slices
        dataset.pop("NumberOfFrames", None)
    return dataset


def grid_of(files: Sequence[str]) -> tuple[tuple[int, int, int], Array] | None:
    """Return shape (columns, rows, slices) and affine (4, 4) in mm, in LPS, without reading pixels.

    Args:
        files: files of one series, in their order, or the one that holds all slices, see :class:`Series`. For a file of
            one slice, or of frames that are no volume, the result is ``None``.

    Raises:
        ValueError: If a file is damaged.
    """
    if len(files) < 2:
        return _grid_of_frames(files[0])
    first, last = (read(file, stop_before_pixels=True) for file in (files[0], files[-1]))
    corner, end = (np.array(header.ImagePositionPatient, dtype=float) for header in (first, last))
    along_row, along_column = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    between_rows, between_columns = map(float, first.PixelSpacing)
    affine = np.eye(4)
    step = (end - corner) / (len(files) - 1)
    affine[:3] = np.stack([along_row * between_columns, along_column * between_rows, step, corner], axis=1)
    return (int(first.Columns), int(first.Rows), len(files)), affine


def _grid_of_frames(path: str) -> tuple[tuple[int, int, int], Array] | None:
    """Return shape and affine as :func:`grid_of`, for a file of many frames."""
    geometry = _geometry_of_frames(path) if "NumberOfFrames" in read(path, stop_before_pixels=True) else None
    if geometry is None:
        return None
    slices, rows, columns = geometry.spatial_shape
    return (columns, rows, slices), geometry.flip_spatial(0).affine[:, [2, 1, 0, 3]]


def _geometry_of_frames(path: str) -> Any:
    """Return where a file of many frames has its voxels, ``None`` if they are not one to a place, evenly spaced.

    Raises:
        ValueError: If the file is damaged.
    """
    import highdicom

    try:
        return highdicom.imread(path, lazy_frame_retrieval=True).get_volume_geometry(
            rtol=SPACING_TOLERANCE, allow_duplicate_positions=False
        )
    except Exception as error:  # for headers that contradict themselves
        raise ValueError(f"{path} cannot be understood ({type(error).__name__}: {error}).") from error


def modality_of(path: str | os.PathLike[str]) -> str:
    """Return the DICOM modality of a file, such as ``CT`` or ``MR``."""
    return str(getattr(read(str(path), stop_before_pixels=True), "Modality", "unknown"))


def _series_or_reason(uid: str, paths: Sequence[str], headers: Sequence[Dataset]) -> Series | LeftOut:
    """Return one series if it is a volume, or else the reason why it is none."""
    name = _series_name(uid, headers[0])
    images = [(path, header) for path, header in zip(paths, headers, strict=True) if not _is_localiser(header)]
    other = _other_kind([header for _, header in images])
    if other is not None:
        return LeftOut(name, f"{name} {other}", tuple(paths), is_fault=False)
    try:
        problem, order = _volume_problem(images)
    except Exception as error:  # of pydicom or highdicom, for headers that contradict themselves
        problem, order = f"cannot be understood ({type(error).__name__}: {error})", []
    if problem is not None:
        return LeftOut(name, f"{name} {problem}", tuple(paths))
    return Series(name, uid, tuple(images[i][0] for i in order))


def _other_kind(headers: Sequence[Dataset]) -> str | None:
    """Return what images are instead of a volume by their kind, if they are not."""
    if not headers:
        return "is a localiser"
    if str(headers[0].SOPClassUID) not in _volume_classes():
        return f"is not a CT, MR or PET ({headers[0].SOPClassUID.name})"
    return "is one slice only" if len(headers) == 1 and "NumberOfFrames" not in headers[0] else None


def _volume_problem(images: Sequence[tuple[str, Dataset]]) -> tuple[str | None, list[int]]:
    """Return why images are not a volume, if they are not, or else ``None`` and their order."""
    headers, has_frames = [header for _, header in images], "NumberOfFrames" in images[0][1]
    problem = _frames_problem([path for path, _ in images]) if has_frames else _slices_problem(headers)
    problem = problem or _pixels_problem(images)
    if problem is not None:
        return problem, []
    return None, [0] if has_frames else slice_order(headers)


def slice_order(headers: Sequence[Dataset]) -> list[int]:
    """Return the order of a series' images along the normal of rows and columns, as in NIfTI converters and ITK."""
    from highdicom.spatial import get_series_volume_positions

    _, positions = get_series_volume_positions(
        headers, rtol=SPACING_TOLERANCE, orientation_tol=ORIENTATION_TOLERANCE, perpendicular_tol=TILT_TOLERANCE
    )
    if positions is None:
        raise ValueError("The images are not a stack of evenly spaced, parallel slices.")
    return [int(index) for index in np.argsort(positions)[::-1]]  # highdicom stacks them the other way


def _series_name(uid: str, header: Dataset) -> str:
    words = [str(header.get(tag) or "") for tag in ("SeriesNumber", "SeriesDescription")]
    title = re.sub(r"\W+", "_", " ".join(words)).strip("_")[:60] or str(header.get("Modality") or "series").lower()
    return f"{title}_{hashlib.sha256(uid.encode()).hexdigest()[:8]}"


def _is_localiser(header: Dataset) -> bool:
    return "LOCALIZER" in (header.get("ImageType") or ())


def _volume_classes() -> set[str]:
    from pydicom import uid

    return {str(getattr(uid, name)) for name in _PATIENT_VOLUMES}


def _frames_problem(paths: Sequence[str]) -> str | None:
    """Return why files of many frames are not a volume, if they are not."""
    if len(paths) > 1:
        return f"has {len(paths)} files of several frames; give the one to predict"
    geometry = _geometry_of_frames(paths[0])
    if geometry is None:
        return "has frames that are not a stack of evenly spaced slices, one at each place"
    return "is one slice only" if geometry.spatial_shape[0] == 1 else None


def _slices_problem(headers: Sequence[Dataset]) -> str | None:
    """Return why slices are not a volume, if they are not."""
    missing = [tag for tag in _GEOMETRY if any(not header.get(tag) for header in headers)]
    if missing:
        return f"has images without {' and '.join(missing)}"
    if len({(header.Rows, header.Columns, *header.PixelSpacing) for header in headers}) > 1:
        return "has slices of different sizes"
    axes = np.array([header.ImageOrientationPatient for header in headers], dtype=float).reshape(-1, 2, 3)
    if (np.einsum("nij,ij->ni", axes, axes[0]) < 1 - ORIENTATION_TOLERANCE).any():
        return "has slices of different orientations"
    corners = np.array([header.ImagePositionPatient for header in headers], dtype=float)
    pixel = min(map(float, headers[0].PixelSpacing))
    if not np.isfinite([*corners.ravel(), *axes.ravel(), pixel]).all() or pixel <= 0:
        return "has positions, orientations or pixel sizes that are not finite, or not above 0"
    normal = np.cross(*axes[0])
    return _stack_problem(corners, normal, pixel) or _every_other_problem(headers, corners @ normal)


def _every_other_problem(headers: Sequence[Dataset], along: Array) -> str | None:
    """Return that slices of an even stack are missing in between, if their headers show it.

    A distance above the slices' thickness alone is no sign of it, as thin slices are also taken far apart.

    Args:
        headers: headers of the slices.
        along: their positions (N,) across the slices in mm.
    """
    order = np.argsort(along)
    gap = float(np.diff(along[order]).mean())
    listed, thickness = (_number(headers[0], tag) for tag in ("SpacingBetweenSlices", "SliceThickness"))
    numbers = [_number(headers[i], "InstanceNumber") for i in order]
    steps = set(np.abs(np.diff(numbers)))
    skips = len(steps) == 1 and min(steps) >= 2
    if gap <= 1.5 * max(listed, thickness) or not (listed > 0 or skips):
        return None
    found = f"are numbered in steps of {min(steps):g}" if skips else f"should be {listed:.4g} mm apart"
    return f"has slices {gap:.4g} mm apart that {found}; those in between are missing"


def _number(header: Dataset, tag: str) -> float:
    """Return a number, 0 if there is none."""
    try:
        return float(header.get(tag) or 0)
    except (TypeError, ValueError):
        return 0.0


def _stack_problem(corners: Array, normal: Array, pixel: float) -> str | None:
    """Return why slices of one orientation are not a stack, if they are not.

    Args:
        corners: centres of their first pixels (N, 3) in mm.
        normal: unit vector (3,) across them.
        pixel: size of a pixel in mm.
    """
    along = corners @ normal
    gaps = np.diff(np.sort(along))
    if gaps.min() <= 0.01 * gaps.max():
        return "has several images at one place, such as time points or b-values; give one of them"
    if np.abs(gaps - gaps.mean()).max() > SPACING_TOLERANCE * gaps.mean():
        return f"has slices {gaps.min():.4g} to {gaps.max():.4g} mm apart; some are missing, or it is not an even stack"
    across = corners - along[:, None] * normal
    if np.linalg.norm(across - across[0], axis=1).max() > pixel / 2:
        return "has slices that are shifted against each other, as by a tilted gantry; resample it first"
    return None


def _pixels_problem(images: Sequence[tuple[str, Dataset]]) -> str | None:
    """Return why the pixels of files cannot be read, if they cannot."""
    from pydicom.pixels.decoders.base import get_decoder

    for path, header in images:
        syntax = header.file_meta.TransferSyntaxUID
        pixels = header.Rows * header.Columns * int(header.get("NumberOfFrames") or 1)
        as_stored = not (syntax.is_compressed or syntax.is_deflated)
        if as_stored and Path(path).stat().st_size < pixels * header.BitsAllocated // 8:
            return f"has a file that ends too early, {path}"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"has pixels in a form that cannot be read ({syntax.name})"
    if decoder.is_available:
        return None
    missing = "; ".join(decoder.missing_dependencies)
    return f"has compressed pixels ({syntax.name}), for which packages are missing: {missing}"
