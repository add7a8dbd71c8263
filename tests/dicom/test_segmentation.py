from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from highdicom.seg import Segmentation, segread
from highdicom.uid import UID
from pydicom import dcmread

import medcontext
from dicom_scans import LPS, OBLIQUE, phantom, write_series
from medcontext.dicom import find_series, write_segmentation

LABELS = {"liver": 6, "left_kidney": 1, "portal_and_splenic_vein": 9, "left_ventricle": 2}


def blobs() -> np.ndarray:
    label_map = np.zeros(phantom().shape, np.uint8)
    label_map[2:5, 3:6, 1:4], label_map[7, 7, 6], label_map[0, 0, 0] = 6, 1, 2
    return label_map


def written(
    files: tuple[str, ...], label_map: np.ndarray, labels: Mapping[str, int] = MappingProxyType(LABELS)
) -> Segmentation:
    stream = io.BytesIO()
    write_segmentation(stream, label_map, files, labels, model="net")
    return segread(io.BytesIO(stream.getvalue()))


def series_files(folder: Path, framed: bool, **attributes: Any) -> tuple[str, ...]:
    paths = write_series(folder / "ct", phantom(), OBLIQUE, order=[4, 0, 6, 2, 5, 1, 3], **attributes)
    if framed:
        paths = [folder / "frames"]
        slices = [dcmread(path) for path in sorted((folder / "ct").iterdir())]
        LegacyConvertedEnhancedCTImage(slices, UID(), 5, UID(), 1).save_as(paths[0])
    ((series,), _) = find_series(paths)
    return series.files


@pytest.mark.parametrize(
    ("framed", "attributes"),
    [(False, {}), (False, {"NumberOfFrames": 1}), (True, {})],
    ids=["slices", "slices_of_one_frame", "frames"],
)
@pytest.mark.parametrize("empty", [False, True])
def test_segments_lie_where_the_labels_are(
    tmp_path: Path, framed: bool, attributes: dict[str, int], empty: bool
) -> None:
    files = series_files(tmp_path, framed, **attributes)
    label_map = blobs() * (not empty)
    segmentation = written(files, label_map)
    # every labelled voxel by its place in the patient, worked out from the NIfTI affine
    for number, index in enumerate(LABELS.values(), start=1):
        volume = segmentation.get_volume(segment_numbers=[number])
        marked = np.argwhere(volume.array[..., 0])
        places = (volume.affine @ np.c_[marked, np.ones(len(marked))].T).T[:, :3]
        voxels = np.argwhere(label_map == index)
        expected = (LPS @ OBLIQUE @ np.c_[voxels, np.ones(len(voxels))].T).T[:, :3]
        assert len(places) == len(expected)
        np.testing.assert_allclose(np.sort(places, axis=0), np.sort(expected, axis=0), atol=1e-4)


@pytest.mark.parametrize(
    "tag",
    [
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
        *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "SeriesNumber", "FrameOfReferenceUID"),
    ],
)
def test_what_anonymisers_delete_is_not_missed(tmp_path: Path, tag: str) -> None:
    files = series_files(tmp_path, framed=False)
    for file in files:
        image = dcmread(file)
        del image[tag]
        image.save_as(file)
    segmentation = written(files, blobs())
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == dcmread(files[0]).SeriesInstanceUID
    if tag not in ("SeriesNumber", "FrameOfReferenceUID"):
        assert not segmentation[tag].value


def test_it_belongs_to_its_series_and_says_what_the_segments_are(tmp_path: Path) -> None:
    files = series_files(tmp_path, framed=False)
    source, segmentation = dcmread(files[0]), written(files, blobs())
    for tag in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert segmentation[tag].value == source[tag].value
    referenced = segmentation.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    assert len(referenced.ReferencedInstanceSequence) == 7
    assert segmentation.ContentDescription == "Research use only"
    assert (segmentation.SoftwareVersions, segmentation.ManufacturerModelName) == (medcontext.__version__, "net")

    segments = segmentation.SegmentSequence
    assert [s.SegmentLabel for s in segments] == ["liver", "left kidney", "portal and splenic vein", "left ventricle"]
    types = [s.SegmentedPropertyTypeCodeSequence[0] for s in segments]
    # SNOMED CT: liver structure, kidney structure with left as its side, left ventricle
    assert [(t.CodeValue, t.CodingSchemeDesignator) for t in types] == [
        ("10200004", "SCT"),
        ("64033007", "SCT"),
        (types[2].CodeValue, "99MEDCONTEXT"),
        ("87878005", "SCT"),
    ]
    assert types[1].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert "SegmentedPropertyTypeModifierCodeSequence" not in types[0]
    assert types[2].CodeValue.startswith("PORTAL_AN_")
    assert len(types[2].CodeValue) == 16


@pytest.mark.parametrize("characters", [None, "ISO_IR 100"])
def test_names_in_any_script(tmp_path: Path, characters: str | None) -> None:
    """Those of the labels, and what the series says in its own character set."""
    said = {} if characters is None else {"SpecificCharacterSet": characters, "PatientName": "Müller^Jörg"}
    ((series,), _) = find_series(write_series(tmp_path, phantom(), OBLIQUE, **said))
    names = ["肝臓", "Milz_größer", "tumor"]
    segmentation = written(series.files, blobs(), {name: number for number, name in enumerate(names, start=1)})
    assert segmentation.SpecificCharacterSet == "ISO_IR 192"
    assert segmentation.PatientName == said.get("PatientName", "Doe^Jane")
    segments = segmentation.SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == ["肝臓", "Milz größer", "tumor"]
    codes = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in segments]
    assert [code.CodeMeaning for code in codes] == ["肝臓", "Milz größer", "tumor"]
    for code, pattern in zip(codes, (r"LABEL_\w{6}", r"MILZ_GRSS_\w{6}", "TUMOR"), strict=True):
        assert re.fullmatch(pattern, code.CodeValue, re.ASCII)
