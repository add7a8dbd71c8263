"""Label maps as DICOM SEG that refer to the series they were made from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

import medcontext
from medcontext.dicom.series import SPACING_TOLERANCE, read, slice_order

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom.sr.coding import Code

__all__ = ["write_segmentation"]

_SIDES = {"left": "Left", "right": "Right"}


def write_segmentation(
    stream: BinaryIO, label_map: npt.NDArray[Any], files: Sequence[str], labels: Mapping[str, int], *, model: str
) -> None:
    """Write a label map as binary DICOM SEG with one segment for each label.

    Segments are numbered in the order of ``labels`` and carry their names; those of anatomical structures in DICOM's
    context group 7192 also have SNOMED's code and side, others a code of the scheme ``99MEDCONTEXT``.

    Args:
        stream: stream to write to.
        label_map: label ids (columns, rows, slices), with axes in the order of :class:`medcontext.dicom.SeriesReader`.
        files: DICOM files of the series, or the one that holds all of its slices.
        labels: names and ids.
        model: name of the model, for the segments' algorithm.

    Raises:
        ValueError: If the label map has another size than the series.
    """
    from highdicom.seg import Segmentation, SegmentationTypeValues
    from highdicom.uid import UID

    segments = np.zeros(label_map.shape, np.uint16 if len(labels) > 255 else np.uint8)
    for number, index in enumerate(labels.values(), start=1):
        segments[label_map == index] = number
    sources = [read(file, stop_before_pixels=True) for file in files]
    frames = segments.transpose(2, 1, 0)
    if "NumberOfFrames" in sources[0]:
        frames = _with_geometry(files[0], frames)
    else:
        sources = [sources[i] for i in slice_order(sources)]
    Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, name, model) for number, name in enumerate(labels, start=1)],
        series_instance_uid=UID(),
        series_number=1000 + int(sources[0].get("SeriesNumber") or 0),
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="MedContext bundles",
        manufacturer_model_name=model,
        software_versions=medcontext.__version__,
        device_serial_number="0",
        content_description="Research use only",
        series_description=f"{model} segmentation, research use only",
        specific_character_set="ISO_IR 192",  # UTF-8, as labels may have any names
    ).save_as(stream)


def _with_geometry(file: str, frames: npt.NDArray[Any]) -> Any:
    """Return the frames with their geometry from a file of many frames, whatever their order there."""
    import highdicom

    geometry: Any = highdicom.imread(file, lazy_frame_retrieval=True).get_volume_geometry(rtol=SPACING_TOLERANCE)
    return geometry.flip_spatial(0).with_array(frames)  # as in read_volume


def _segment(number: int, name: str, model: str) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    category, kind, side = _codes(name)
    description = SegmentDescription(
        segment_number=number,
        segment_label=name.replace("_", " ")[:64],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model, family=codes.DCM.ArtificialIntelligence, version=medcontext.__version__
        ),
    )
    if side is not None:
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            CodedConcept.from_code(side)
        ]
    return description


def _codes(name: str) -> tuple[Code, Code, Code | None]:
    """Return the codes of a label's category, type and side."""
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    words = name.lower().replace("_", " ").split()
    structure = getattr(codes.cid7192, _keyword(words), None)
    if structure is not None:
        return codes.SCT.AnatomicalStructure, structure, None
    structure = getattr(codes.cid7192, _keyword(words[1:]), None) if words[0] in _SIDES else None
    if structure is not None:
        return codes.SCT.AnatomicalStructure, structure, getattr(codes.SCT, _SIDES[words[0]])
    value = "_".join(words).upper()
    ascii_value = re.sub(r"[^ -\[\]-~]", "", value)  # a code has up to 16 characters of ASCII, without backslashes
    if ascii_value != value or len(value) > 16:
        value = f"{ascii_value[:9] or 'LABEL'}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return codes.SCT.Tissue, Code(value, "99MEDCONTEXT", name.replace("_", " ")[:64]), None


def _keyword(words: Sequence[str]) -> str:
    return "".join(word.capitalize() for word in words) or "-"
