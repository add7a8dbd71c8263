"""Checks of the voxels of an image before a network sees them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform, ScaleIntensityRange, ScaleIntensityRanged
from monai.utils import ImageMetaKey
from torch import Tensor

from medcontext.dicom import is_dicom
from medcontext.dicom.series import read
from medcontext.scans import LARGEST_VALUE

__all__ = ["CheckImaged", "ImageValueError", "expects_hounsfield"]

LARGEST_SCALED = 10
"""Largest magnitude in images whose intensities were scaled already; a CT in HU spans hundreds."""

_REMEDY = "convert it to HU, or add --intensity_check False if its values are right"


class ImageValueError(ValueError):
    """The voxels of an image are not what a network can take."""


class CheckImaged(MapTransform):
    """Refuse images with voxels that are NaN, infinite or absurdly large, and CT that is not in Hounsfield units.

    A single voxel that is not finite can empty a whole prediction, and CT in other units is segmented as if air were
    tissue, both without a sign. CT in HU has values below 0 wherever there is air or fat, whatever it was cropped to;
    values as stored by scanners, or scaled to 8 bits, have none.

    Args:
        keys: keys of images (C, X, Y, Z) as they were loaded.
        intensity: the transform of the intensities, which says whether HU are expected, see
            :func:`expects_hounsfield`; ``None`` leaves units unchecked.
    """

    def __init__(self, keys: KeysCollection, intensity: Any = None) -> None:
        super().__init__(keys)
        self.hounsfield = expects_hounsfield(intensity)

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """Return ``data`` as it is.

        Raises:
            ImageValueError: If an image has such voxels; MONAI's ``Compose`` wraps it.
        """
        for key in self.key_iterator(dict(data)):
            file = str(getattr(data[key], "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, "the image"))
            _check_finite(data[key], file)
            if self.hounsfield:
                _check_hounsfield(data[key], file)
        return data


def expects_hounsfield(intensity: Any) -> bool:
    """Return whether a transform scales a window that begins below 0, as only windows of CT in HU do.

    Example:
        >>> expects_hounsfield(ScaleIntensityRanged("image", a_min=-175, a_max=250, b_min=0, b_max=1))
        True
        >>> expects_hounsfield(ScaleIntensityRanged("image", a_min=0, a_max=4095, b_min=0, b_max=1))
        False
    """
    if isinstance(intensity, Compose):
        return any(map(expects_hounsfield, intensity.transforms))
    scaler = intensity.scaler if isinstance(intensity, ScaleIntensityRanged) else intensity
    return isinstance(scaler, ScaleIntensityRange) and scaler.a_min < 0


def _check_finite(image: Tensor, file: str) -> None:
    count = int(image.numel() - (image.abs() <= LARGEST_VALUE).sum())
    if count:
        raise ImageValueError(
            f"{file} has {count} voxels that are NaN or infinite, or beyond {LARGEST_VALUE:g}; repair the file."
        )


def _check_hounsfield(image: Tensor, file: str) -> None:
    lowest, highest = float(image.min()), float(image.max())
    if is_dicom(Path(file)) and not _is_rescaled(file):
        raise ImageValueError(
            f"{file} is CT without Rescale Slope and Intercept, so its values are not in Hounsfield units (HU); "
            f"{_REMEDY}."
        )
    if lowest >= 0 or max(-lowest, highest) < LARGEST_SCALED:
        raise ImageValueError(
            f"{file} has values from {lowest:g} to {highest:g}, which are no CT in Hounsfield units (HU), as the "
            f"network expects; {_REMEDY}."
        )


def _is_rescaled(file: str) -> bool:
    """Return whether the values of a DICOM file have a unit: CT needs both numbers, which other modalities may lack."""
    header = read(file, stop_before_pixels=True)
    if header.get("Modality") != "CT":
        return True
    found = {element.keyword for element in header.iterall() if element.value is not None}
    return {"RescaleSlope", "RescaleIntercept"} <= found
