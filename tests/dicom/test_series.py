from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

from dicom_scans import LPS, OBLIQUE, phantom, write_series
from medcontext.dicom import find_series, is_dicom

CORNER = (LPS @ OBLIQUE)[:3, 3]
STEP = (LPS @ OBLIQUE)[:3, 2]
ACROSS = (LPS @ OBLIQUE)[:3, 0]


def test_slices_come_in_the_order_of_the_volume_whatever_their_names(tmp_path: Path) -> None:
    order = [4, 0, 6, 2, 5, 1, 3]
    paths = write_series(tmp_path, phantom(), OBLIQUE, name="I{}", order=order)
    ((series,), reasons) = find_series(reversed(paths))
    assert reasons == []
    assert series.files == tuple(str(paths[order.index(k)]) for k in range(7))
    assert series.name.startswith("3_Abdomen_1_5_B30f_")


def test_copies_discs_directories_and_embedded_localisers_are_left_out(tmp_path: Path) -> None:
    paths = write_series(
        tmp_path, phantom(), OBLIQUE, ImageType=lambda k: ["A", "B", "LOCALIZER" if k == 6 else "AXIAL"]
    )
    shutil.copy(paths[0], tmp_path / "copy")
    shutil.copy(paths[0], tmp_path / "DICOMDIR")
    ((series,), _) = find_series(tmp_path.iterdir())
    assert series.files == tuple(map(str, paths[:6]))


def test_missing_frame_of_reference_and_rounded_positions_are_no_obstacle(tmp_path: Path) -> None:
    def rounded(k: int) -> list[float]:
        return [float(value) for value in np.round(CORNER + k * STEP, 1)]

    paths = write_series(tmp_path, phantom(), OBLIQUE, FrameOfReferenceUID="", ImagePositionPatient=rounded)
    ((series,), reasons) = find_series(paths)
    assert (len(series.files), reasons) == (7, [])


def tilted(k: int) -> list[float]:
    return [float(value) for value in CORNER + k * (STEP + 0.1 * ACROSS)]


def jumping(k: int) -> list[float]:
    return [float(value) for value in CORNER + (k + (k > 3)) * STEP]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "LOCALIZER"]}, "is a localiser"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, r"is not a CT, MR or PET \(Secondary Capture Image Storage\)"),
        ({"SOPClassUID": SegmentationStorage}, r"is not a CT, MR or PET \(Segmentation Storage\)"),
        ({"PixelSpacing": None}, "has images without PixelSpacing"),
        ({"ImagePositionPatient": lambda k: None if k == 2 else [0, 0, k]}, "has images without ImagePositionPatient"),
        ({"PixelSpacing": lambda k: [1.0, 1.0 + k]}, "has slices of different sizes"),
        ({"Rows": lambda k: 9 - k // 6, "PixelData": b"\0" * 200}, "has slices of different sizes"),
        (
            {"ImageOrientationPatient": lambda k: [1, 0, 0, 0, 1, 0] if k % 2 else [0, 1, 0, 0, 0, -1]},
            "has slices of different orientations",
        ),
        ({"ImagePositionPatient": jumping}, "has slices 4 to 8 mm apart; some are missing"),
        ({"ImagePositionPatient": lambda k: jumping(k // 2)}, "has several images at one place, such as time points"),
        ({"ImagePositionPatient": [0, 0, 0]}, "has several images at one place, such as time points"),
        ({"ImagePositionPatient": lambda k: [0, 0, math.nan]}, "has positions, .* that are not finite"),
        ({"PixelSpacing": [0, 0]}, "has positions, orientations or pixel sizes that are .* not above 0"),
        (
            {"SliceThickness": 2, "InstanceNumber": lambda k: 2 * k + 1},
            "has slices 4 mm apart that are numbered in ",
        ),
        (
            {"SliceThickness": 2, "SpacingBetweenSlices": 2},
            "has slices 4 mm apart that should be 2 mm apart; th",
        ),
        ({"ImagePositionPatient": tilted}, "has slices that are shifted against each other, as by a tilted gantry"),
    ],
)
def test_what_is_no_volume(tmp_path: Path, attributes: dict[str, Any], reason: str) -> None:
    paths = write_series(tmp_path, phantom(), OBLIQUE, **attributes)
    series, reasons = find_series(paths)
    assert series == []
    assert len(reasons) == 1
    assert re.fullmatch(rf"3_Abdomen_1_5_B30f_\w{{8}} {reason}.*", str(reasons[0]))


def test_mr_is_a_volume_too(tmp_path: Path) -> None:
    series, _ = find_series(write_series(tmp_path, phantom(), OBLIQUE, SOPClassUID=MRImageStorage, Modality="MR"))
    assert len(series) == 1


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        (JPEGLosslessSV1, r"has compressed pixels \(JPEG Lossless.*\), for which packages are missing: .*pylibjpeg"),
        (MPEG2MPML, r"has pixels in a form that cannot be read \(MPEG2 "),
    ],
)
def test_pixels_that_cannot_be_read(tmp_path: Path, syntax: UID, reason: str) -> None:
    if syntax == JPEGLosslessSV1 and get_decoder(syntax).is_available:
        pytest.skip("a decoder is installed")
    paths = write_series(tmp_path, phantom(), OBLIQUE)
    for path in paths:
        image = dcmread(path)
        image.file_meta.TransferSyntaxUID = syntax
        image.PixelData = encapsulate([b"compressed"])
        image["PixelData"].is_undefined_length = True
        image.save_as(path)
    _, (found,) = find_series(paths)
    assert re.search(reason, found.reason)


def test_files_that_end_too_early(tmp_path: Path) -> None:
    paths = write_series(tmp_path, phantom((64, 64, 3)), OBLIQUE)
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[: len(whole) // 2])
    _, (found,) = find_series(paths)
    assert found.reason.endswith(f"has a file that ends too early, {paths[2]}")


def test_one_file_that_cannot_be_read_is_left_out_alone(tmp_path: Path) -> None:
    paths = write_series(tmp_path, phantom(), OBLIQUE)
    (tmp_path / "cut").write_bytes(paths[2].read_bytes()[:150])
    (tmp_path / "tag").write_bytes(paths[2].read_bytes().replace(b"US\x02\x00\x09\x00", b"US\x01\x00\x09"))
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    directory.save_as(tmp_path / "DISC", enforce_file_format=True)
    ((series,), left_out) = find_series(tmp_path.iterdir())
    assert len(series.files) == 7
    assert {one.name: one.files for one in left_out} == {
        name: (str(tmp_path / name),) for name in ("cut", "tag", "DISC")
    }
    directory, cut, tag = map(str, left_out)
    assert directory == f"{tmp_path}/DISC is a DICOMDIR, the list of a disc's files, under another name; leave it out"
    assert cut.startswith(f"{tmp_path}/cut is not a readable DICOM file: it ends before SOPClassUID")
    assert tag.startswith(f"{tmp_path}/tag has a broken tag (")


@pytest.mark.parametrize(
    "attributes",
    [
        {"SliceThickness": 1},  # thin slices far apart
        {"InstanceNumber": lambda k: 2 * k},  # every second number, as of two echoes
        {"SpacingBetweenSlices": 1},  # some write the gap between slices there
    ],
)
def test_series_that_lack_no_slices(tmp_path: Path, attributes: dict[str, Any]) -> None:
    ((_,), left_out) = find_series(write_series(tmp_path, phantom(), OBLIQUE, **attributes))
    assert left_out == []


def test_dicom_is_known_by_its_content(tmp_path: Path) -> None:
    (path, *_) = write_series(tmp_path, phantom(), OBLIQUE, name="IM{}")
    (tmp_path / "text.dcm").write_text("no image")
    assert (is_dicom(path), is_dicom(tmp_path / "text.dcm"), is_dicom(tmp_path)) == (True, False, False)
