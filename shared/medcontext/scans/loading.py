"""Loading volumes of all formats in MONAI's pipelines."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ImageReader
from monai.transforms import LoadImaged
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from medcontext.dicom import SeriesReader
from medcontext.scans.formats import VolumeError, is_itk_file, open_itk, open_nibabel, unreadable
from medcontext.scans.geometry import grid_problem
from medcontext.scans.headers import header_of
from medcontext.scans.voxels import WHOLE_TOLERANCE, values_of

__all__ = ["ImageReadError", "LoadLabelMapd", "LoadImageScand", "VolumeReader"]

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class ImageReadError(ValueError):
    """An image cannot be read, for example because its file is damaged."""


class VolumeReader(ImageReader):
    """Read volumes by nibabel and ITK, with the affine from :func:`medcontext.scans.read_header`.

    MONAI's own reader of NIfTI takes the qform instead of the sform where voxel sizes disagree in the sixth digit, even
    if the qform is declared invalid, so that other programs would place the voxels elsewhere.
    """

    def verify_suffix(self, filename: Files) -> bool:
        """Return ``True``: what is no volume is refused when it is read."""
        return True

    def read(self, data: Files, **kwargs: Any) -> list[Any]:
        """Open the files, one or one for each channel."""
        return [open_itk(file) if is_itk_file(file) else open_nibabel(file) for file in map(str, ensure_tuple(data))]

    def get_data(self, img: list[Any]) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        r"""Return an array (\*spatial), (\*spatial, C) or, of several files, (C, \*spatial), and MONAI's metadata.

        Raises:
            VolumeError: If a grid is sheared, has no volume or is of an impossible size, or files lie in different
                places.
        """
        headers = [header_of(opened) for opened in img]
        first = headers[0]
        problems = [grid_problem(header.shape, header.affine) for header in headers]
        problem = next(filter(None, problems), None)
        if problem is not None:
            raise VolumeError(problem)
        if any(one.shape != first.shape or not np.allclose(one.affine, first.affine) for one in headers):
            raise VolumeError("differs in shape or affine from the files of the other channels; make them equal")
        arrays = [values_of(opened).reshape(header.shape) for opened, header in zip(img, headers, strict=True)]
        several, no_channel = len(arrays) > 1, len(first.shape) <= 3
        meta = {
            MetaKeys.AFFINE: first.affine,
            MetaKeys.ORIGINAL_AFFINE: first.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(first.shape[:3]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0 if several else float("nan") if no_channel else -1,
        }
        return np.stack(arrays) if several else arrays[0], meta


class LoadImageScand(LoadImaged):
    """MONAI's ``LoadImaged`` for volumes of all formats and DICOM series, that names the file which it cannot read.

    MONAI Deploy, which brings the image itself, leaves out transforms whose class has ``LoadImage`` in its name.

    Args:
        keys: keys of the file or files, see :class:`monai.transforms.LoadImaged`.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)
        self.register(VolumeReader())
        self.register(SeriesReader())  # asked first

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Load the images of one case.

        Raises:
            ImageReadError: If an image cannot be read; MONAI's ``Compose`` wraps it.
        """
        try:
            loaded: dict[Hashable, Any] = super().__call__(data, reader)
        except Exception as error:
            files = [str(file) for key in self.keys for file in ensure_tuple(data[key])]
            others = f", or another of its {len(files)} files," if len(files) > 1 else ""
            raise ImageReadError(unreadable(f"{files[0]}{others}", files[0], error)) from error
        return loaded


class LoadLabelMapd(LoadImageScand):
    """Load label maps, whose values are whole numbers again where resampling has blurred them (12.999999).

    Args:
        keys: keys of the files.
    """

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Load the label maps of one case.

        Raises:
            ImageReadError: If a file cannot be read, or holds values that are not whole numbers.
        """
        loaded = super().__call__(data, reader)
        for key in self.keys:
            whole = torch.round(loaded[key])
            wrong = loaded[key][~(torch.abs(loaded[key] - whole) <= WHOLE_TOLERANCE)]
            if len(wrong):
                raise ImageReadError(
                    f"{data[key]} is no label map: it holds values such as {float(wrong[0]):.6g}; give whole numbers."
                )
            loaded[key] = whole
        return loaded
