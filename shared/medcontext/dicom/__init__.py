"""DICOM: series of images to predict, and segmentations of them. Requires pydicom and highdicom."""

from __future__ import annotations

from medcontext.dicom.loading import SeriesReader
from medcontext.dicom.segmentation import write_segmentation
from medcontext.dicom.series import LeftOut, Series, find_series, grid_of, is_dicom, modality_of, require_dicom

__all__ = [
    "LeftOut",
    "Series",
    "SeriesReader",
    "find_series",
    "grid_of",
    "is_dicom",
    "modality_of",
    "require_dicom",
    "write_segmentation",
]
