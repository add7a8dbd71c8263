"""DICOM series made from arrays, as scanners write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
TURN = Rotation.from_euler("xyz", (12, -7, 20), degrees=True).as_matrix()
OBLIQUE = nib.affines.from_matvec(TURN @ np.diag([-1.5, -1.2, 4.0]), (40.5, 80.25, -310.75))


def phantom(shape: tuple[int, int, int] = (11, 9, 7)) -> np.ndarray:
    """Whole numbers of HU, no two voxels alike along any axis."""
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(np.int16) - 300


def write_series(
    folder: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    *,
    name: str = "{:03d}.dcm",
    slope: float = 0.5,
    intercept: float = -1024.0,
    description: str = "Abdomen 1,5 / B30f",
    order: list[int] | None = None,
    **attributes: Any,
) -> list[Path]:
    """Write a volume (X, Y, Z) in HU and its NIfTI affine as CT, one file a slice.

    Files are named and numbered as the slices come in ``order``; ``attributes`` are set in each, or, where they are
    functions, called with the slice's place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    axes = (LPS @ affine)[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    paths = []
    for number, k in enumerate(range(volume.shape[2]) if order is None else order):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Doe^Jane", "P1", "", ""
        image.StudyDate = image.StudyTime = image.AccessionNumber = image.ReferringPhysicianName = image.StudyID = ""
        image.Modality, image.Manufacturer, image.SeriesDescription = "CT", "none", description
        image.SeriesNumber, image.InstanceNumber, image.ImageType = 3, number + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.ImagePositionPatient = [f"{value:.6f}" for value in (LPS @ affine @ [0, 0, k, 1])[:3]]
        image.ImageOrientationPatient = [f"{value:.10f}" for value in (axes / spacing)[:, :2].T.ravel()]
        image.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        image.SliceThickness, image.PositionReferenceIndicator = float(spacing[2]), ""
        image.RescaleSlope, image.RescaleIntercept, image.RescaleType = slope, intercept, "HU"
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.Columns, image.Rows = volume.shape[:2]
        image.PixelData = np.rint((volume[:, :, k].T - intercept) / slope).astype("<u2").tobytes()
        for keyword, value in attributes.items():
            setattr(image, keyword, value(k) if callable(value) else value)
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        paths.append(folder / name.format(number))
        image.save_as(paths[-1], enforce_file_format=True)
    return paths
