"""Voxels of volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import SpatialImage

from medcontext.scans.formats import is_itk_file, open_itk, open_nibabel
from medcontext.scans.headers import check_voxel_type, header_of

__all__ = ["LARGEST_VALUE", "WHOLE_TOLERANCE", "read_stored", "read_volume", "values_of"]

WHOLE_TOLERANCE = 1e-3
"""Difference to a whole number up to which a label's value is one that resampling has blurred."""

LARGEST_VALUE = 1e15
"""Largest magnitude of an intensity: beyond all units of scanners, and with a square that single precision holds."""


def values_of(opened: Any) -> npt.NDArray[Any]:
    """Return the values of an image that nibabel opened, or of SimpleITK's reader of a file.

    Raises:
        VolumeError: If they are colours or complex numbers.
    """
    values = np.asanyarray(opened.dataobj) if hasattr(opened, "dataobj") else _itk_values(opened)
    check_voxel_type(values.dtype)
    return values


def read_volume(path: str) -> SpatialImage:
    """Read a volume of any format as an image of nibabel, with its values and the affine in mm."""
    opened = open_itk(path) if is_itk_file(path) else open_nibabel(path)
    header = header_of(opened)
    return SpatialImage(values_of(opened).reshape(header.shape), header.affine)


def read_stored(path: str) -> tuple[npt.NDArray[Any], float, float]:
    """Read a volume as it is stored, in this machine's byte order, with the slope and intercept of its values."""
    if is_itk_file(path):
        return _itk_values(open_itk(path)), 1.0, 0.0
    proxy = open_nibabel(path).dataobj
    stored = np.asarray(proxy.get_unscaled())
    return stored.astype(stored.dtype.newbyteorder("="), copy=False), float(proxy.slope), float(proxy.inter)


def _itk_values(reader: Any) -> npt.NDArray[Any]:
    """Return values with the axes of a NIfTI file, channels last."""
    import SimpleITK

    values = SimpleITK.GetArrayFromImage(reader.Execute()).T  # columns, rows, slices
    return np.moveaxis(values, 0, -1) if reader.GetNumberOfComponents() > 1 else values
