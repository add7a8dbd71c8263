"""Reading a DICOM series like MONAI reads a NIfTI file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data import ImageReader
from monai.data.utils import orientation_ras_lps
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from medcontext.dicom.series import ORIENTATION_TOLERANCE, SPACING_TOLERANCE, TILT_TOLERANCE, is_dicom, read

if TYPE_CHECKING:
    from highdicom import Volume

__all__ = ["SeriesReader", "read_volume"]

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# values as from converters to NIfTI: rescale slope and intercept, and nothing else
_READING: dict[str, Any] = {
    "dtype": np.float32,
    "apply_real_world_transform": False,
    "apply_presentation_lut": False,
    "rtol": SPACING_TOLERANCE,
    "perpendicular_tol": TILT_TOLERANCE,
}


def read_volume(files: Sequence[str]) -> Volume:
    """Read the files of one series, or the one that holds all of its slices.

    Args:
        files: files from :func:`medcontext.dicom.find_series`.

    Returns:
        The volume, with axes slices, rows, columns and values in the scanner's units (HU for CT).

    Raises:
        ValueError: If a file is damaged, or the images do not form a volume.
    """
    import highdicom

    datasets = [read(file) for file in files]
    if "NumberOfFrames" in datasets[0]:
        volume = highdicom.Image.from_dataset(datasets[0], copy=False).get_volume(**_READING)
    else:
        volume = highdicom.get_volume_from_series(datasets, orientation_tol=ORIENTATION_TOLERANCE, **_READING)
    return volume.flip_spatial(0)  # see slice_order


class SeriesReader(ImageReader):
    """Read the DICOM files of one series as one image, whose axes are columns, rows and slices.

    MONAI's own readers take a folder for a series, whatever it contains, and a list of files for channels; gaps between
    slices go unnoticed.
    """

    def verify_suffix(self, filename: Files) -> bool:
        """Return whether the files are DICOM."""
        return all(is_dicom(file) for file in ensure_tuple(filename))

    def read(self, data: Files, **kwargs: Any) -> Volume:
        """Read a volume, see :func:`read_volume`."""
        return read_volume([str(file) for file in ensure_tuple(data)])

    def get_data(self, img: Volume) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        """Return array (columns, rows, slices) and metadata like MONAI's readers, with the affine in RAS."""
        array = np.ascontiguousarray(img.array.transpose(2, 1, 0))
        affine = orientation_ras_lps(img.affine[:, [2, 1, 0, 3]])
        meta = {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }
        return array, meta
