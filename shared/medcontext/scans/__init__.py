"""Reading volumes of any format, where their voxels lie and what they hold, and the way back to their grid."""

from __future__ import annotations

from medcontext.scans.formats import is_volume_file, unreadable, volume_name
from medcontext.scans.geometry import corner_distance, grid_problem, shift_tolerance, voxel_ml
from medcontext.scans.grids import on_grid
from medcontext.scans.headers import VolumeHeader, nifti_header, read_header
from medcontext.scans.inversion import InvertToLabelMapd, ScanProbabilities
from medcontext.scans.loading import ImageReadError, LoadImageScand, LoadLabelMapd
from medcontext.scans.memory import memory_problem, size_problem
from medcontext.scans.resampling import SpacingScand
from medcontext.scans.voxels import LARGEST_VALUE, WHOLE_TOLERANCE, read_stored, read_volume

__all__ = [
    "LARGEST_VALUE",
    "WHOLE_TOLERANCE",
    "ImageReadError",
    "InvertToLabelMapd",
    "LoadImageScand",
    "LoadLabelMapd",
    "ScanProbabilities",
    "SpacingScand",
    "VolumeHeader",
    "corner_distance",
    "grid_problem",
    "is_volume_file",
    "memory_problem",
    "nifti_header",
    "on_grid",
    "read_header",
    "read_stored",
    "read_volume",
    "shift_tolerance",
    "size_problem",
    "unreadable",
    "volume_name",
    "voxel_ml",
]
