"""Files of the predictions of each case."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import Orientation
from monai.utils import CommonKeys, ImageMetaKey, MetaKeys, convert_to_numpy
from torch import nn

import medcontext
from medcontext.cases import failed_cases, write_failures
from medcontext.data import case_files, case_name, count_classes
from medcontext.dicom import require_dicom, write_segmentation
from medcontext.faults import explained
from medcontext.handlers.quality import QualityEstimate
from medcontext.networks import checkpoint_record
from medcontext.report import prediction_figure
from medcontext.scans import ScanProbabilities, nifti_header, on_grid, voxel_ml
from medcontext.storage.files import whole_file
from medcontext.storage.json_files import json_text, parse_json

__all__ = ["PredictionWriteError", "PredictionWriter"]

Array: TypeAlias = npt.NDArray[Any]
Probabilities: TypeAlias = ScanProbabilities | torch.Tensor | tuple[()]

NOTE = "Research use only. Not a medical device."
ENDINGS = {
    "segmentation": "_seg.nii.gz",
    "probabilities": "_probabilities.nii.gz",
    "dicom_seg": "_seg.dcm",
    "overlay": "_overlay.png",
    "summary": ".json",
}
"""Kinds of files of a case, in the order of writing, and the endings of their names."""


@dataclass(frozen=True)
class _Predicted:
    """A case, affine and header of its image file, the image to draw, and the prediction in the file's geometry."""

    case: Mapping[str, Any]
    affine: Array
    header: nib.Nifti1Header
    image: MetaTensor
    label_map: Array
    probabilities: Probabilities
    quality: Mapping[str, Any]


class PredictionWriteError(OSError):
    """A prediction could not be written, for example because a disk is full."""


class PredictionWriter:
    """Write each case's label map and, on request, probabilities, DICOM SEG, a picture and a summary.

    Attach it to a MONAI evaluator that decollates, after postprocessing that provides, for every case and in the
    original geometry, ``pred``, a label map (1, X, Y, Z); with ``save_probabilities`` also ``probabilities``, of which
    one class (X, Y, Z) after the other is taken, see :class:`medcontext.scans.InvertToLabelMapd`; and ``image``
    (C, X, Y, Z) in any geometry, of which the picture shows the first channel.

    Files are named after the case: ``<case>_seg.nii.gz``, ``<case>_probabilities.nii.gz`` (float32, the classes along
    the fourth axis, background first), ``<case>_seg.dcm``, ``<case>_overlay.png`` and ``<case>.json``. NIfTI files lie
    where the image file does; where that is NIfTI, they have its qform, sform, codes and units. Files are complete at
    any moment; those of an earlier call for the same image are replaced or, if this call writes none of their kind,
    removed, and the summary is written last. If there is a summary of another image of the same name, nothing is
    predicted. Cases that a :class:`medcontext.cases.TolerantEvaluator` left out are listed in ``failures.csv``.

    Args:
        output_dir: folder of the files.
        cases: cases as returned by :func:`medcontext.data.list_images`.
        labels: names with one id each.
        network: network that predicts; the summary lists its checkpoints with their SHA-256.
        model: name of the model.
        flips: axes of test-time flips, for the summary.
        largest_components: labels of which only the largest component is kept, for the summary.
        save_probabilities: write the probabilities.
        save_dicom_seg: write DICOM SEG; the images must be DICOM.
        save_overlay: write a picture.
        save_summary: write the summary, with voxels and millilitres by label.
        quality: estimate of the Dice, which the summary then holds by label, with the error that it had in calibration.

    Raises:
        ImportError: If ``save_dicom_seg`` is set and the libraries are missing.
        ValueError: If a label has several ids, two labels share one, or ``save_dicom_seg`` is set and an image is not
            DICOM.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        cases: Sequence[Mapping[str, Any]],
        labels: Mapping[str, int],
        *,
        network: nn.Module | None = None,
        model: str = "medcontext",
        flips: Sequence[str | int] = (),
        largest_components: Sequence[str] | None = None,
        save_probabilities: bool = False,
        save_dicom_seg: bool = False,
        save_overlay: bool = True,
        save_summary: bool = True,
        quality: QualityEstimate | None = None,
    ) -> None:
        count_classes(labels)
        if len(set(labels.values())) < len(labels):
            raise ValueError(f"labels must map each name to an id of its own, got {dict(labels)}.")
        if save_dicom_seg:
            _check_dicom(cases)
        self.output_dir = Path(output_dir)
        self.cases = {str(Path(case_files(case)[0])): {"case": case_name(case), **case} for case in cases}
        self.labels = dict(labels)
        self.network = network
        self.model = model
        self.flips = list(flips)
        self.largest_components = list(largest_components or ())
        self.quality = quality
        requested = {
            "probabilities": save_probabilities,
            "dicom_seg": save_dicom_seg,
            "overlay": save_overlay,
            "summary": save_summary,
        }
        self.kinds = ["segmentation", *(kind for kind, is_on in requested.items() if is_on)]

    def attach(self, engine: Engine) -> None:
        """Subscribe to the start of the run, every iteration and the end."""
        engine.add_event_handler(Events.STARTED, self.make_folder)
        engine.add_event_handler(Events.STARTED, self.check_earlier)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.write_failures)

    def write_failures(self, engine: Engine) -> None:
        """Write the table of failed cases, if any failed.

        Raises:
            PredictionWriteError: If that is not possible.
        """
        with explained(partial(_explain_disk_error, self.output_dir)):
            write_failures(self.output_dir, failed_cases(engine))

    def make_folder(self) -> None:
        """Create the folder before anything is predicted.

        Raises:
            PredictionWriteError: If that is not possible.
        """
        with explained(partial(_explain_disk_error, self.output_dir)):
            self.output_dir.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.output_dir).close()

    def check_earlier(self) -> None:
        """Check that no predictions of other images would be replaced, before anything is predicted.

        Raises:
            PredictionWriteError: If the summary of a case exists and describes another image.
        """
        for case in self.cases.values():
            path = self.output_dir / f"{case['case']}{ENDINGS['summary']}"
            with explained(partial(_explain_disk_error, self.output_dir)):
                text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
            if text is not None and not _describes(text, case):
                raise PredictionWriteError(
                    f"{path} is not of {_source(case)['image']}, whose predictions would replace it and the files with "
                    "it; choose another predictions_dir (an MLflow model's output_dir), or move those predictions."
                )

    def __call__(self, engine: Engine) -> None:
        """Write the cases of one iteration.

        Raises:
            PredictionWriteError: If a file cannot be written.
        """
        for item in engine.state.output:
            self._write(item)

    def _write(self, item: Mapping[str, Any]) -> None:
        predicted = self._predicted(item)
        paths = {kind: self.output_dir / f"{predicted.case['case']}{ending}" for kind, ending in ENDINGS.items()}
        with explained(partial(_explain_disk_error, self.output_dir)):
            paths["summary"].unlink(missing_ok=True)  # its presence means that the others are complete
            for kind, path in paths.items():
                if kind not in self.kinds:
                    path.unlink(missing_ok=True)
                    continue
                with whole_file(path) as stream:
                    getattr(self, f"_write_{kind}")(stream, predicted)

    def _predicted(self, item: Mapping[str, Any]) -> _Predicted:
        image = item[CommonKeys.IMAGE]
        label_map = convert_to_numpy(item[CommonKeys.PRED])[0]
        case = self.cases[str(image.meta[ImageMetaKey.FILENAME_OR_OBJ])]
        affine = np.asarray(image.meta[MetaKeys.ORIGINAL_AFFINE], dtype=np.float64)
        return _Predicted(
            case=case,
            affine=affine,
            header=nifti_header(case_files(case)[0], affine),
            image=image,
            label_map=label_map.astype(np.uint8 if label_map.max(initial=0) < 256 else np.uint16),
            probabilities=item["probabilities"] if "probabilities" in self.kinds else (),
            quality={} if self.quality is None else {"quality": self.quality.summary(item)},
        )

    def _write_segmentation(self, stream: BinaryIO, predicted: _Predicted) -> None:
        _write_nifti(stream, predicted.label_map, predicted.header)

    def _write_probabilities(self, stream: BinaryIO, predicted: _Predicted) -> None:
        shape = (*predicted.label_map.shape, len(predicted.probabilities))
        _write_volumes(stream, predicted.probabilities, shape, predicted.header)

    def _write_dicom_seg(self, stream: BinaryIO, predicted: _Predicted) -> None:
        write_segmentation(stream, predicted.label_map, predicted.case["image"], self.labels, model=self.model)

    def _write_overlay(self, stream: BinaryIO, predicted: _Predicted) -> None:
        upright = Orientation(axcodes="RAS", labels=None)
        label_map = MetaTensor(torch.as_tensor(predicted.label_map[None]), affine=torch.as_tensor(predicted.affine))
        image = upright(on_grid(predicted.image[:1], predicted.label_map.shape, predicted.affine))
        label_map = upright(label_map)
        spacing = affine_to_spacing(image.affine).tolist()
        title = predicted.case["case"]
        prediction_figure(image, label_map, self.labels, spacing=spacing, title=title).savefig(stream, format="png")

    def _write_summary(self, stream: BinaryIO, predicted: _Predicted) -> None:
        case, affine = predicted.case, predicted.affine
        classes = max(count_classes(self.labels), int(predicted.label_map.max(initial=0)) + 1)
        # plane by plane, as eight bytes are made of every voxel
        counts = np.sum([np.bincount(plane.ravel(), minlength=classes) for plane in predicted.label_map], axis=0)
        volumes = {name: round(int(counts[index]) * voxel_ml(affine), 6) for name, index in self.labels.items()}
        summary = {
            "case": case["case"],
            **_source(case),
            "model": self.model,
            "medcontext_version": medcontext.__version__,
            "checkpoints": [] if self.network is None else checkpoint_record(self.network),
            "tta_flips": self.flips,
            "largest_components": self.largest_components,
            "shape": list(predicted.label_map.shape),
            "spacing_mm": [round(float(size), 6) for size in affine_to_spacing(affine)],
            "labels": {
                name: {"id": index, "voxels": int(counts[index]), "volume_ml": volumes[name]}
                for name, index in self.labels.items()
            },
            **predicted.quality,
            "files": [f"{case['case']}{ENDINGS[kind]}" for kind in self.kinds],
            "note": NOTE,
        }
        stream.write(json_text(summary).encode())


def _explain_disk_error(folder: Path, error: Exception) -> Exception | None:
    """Return a file system error as one sentence."""
    if not isinstance(error, OSError):
        return None
    return PredictionWriteError(
        f"Cannot write predictions to {folder} ({error.strerror or error}); free space or fix permissions there, or "
        "choose another predictions_dir."
    )


def _source(case: Mapping[str, Any]) -> dict[str, Any]:
    """Return the path of the image; of a DICOM series, its folder and UID."""
    if "series_instance_uid" not in case:
        return {"image": case["image"]}
    folder, uid = Path(case_files(case)[0]).parent, case["series_instance_uid"]
    return {"image": str(folder), "series_instance_uid": uid}


def _describes(summary: str, case: Mapping[str, Any]) -> bool:
    """Return whether a summary is of a case's image; series are identified by their UIDs, wherever they are."""
    try:
        earlier = parse_json(summary)
        uids = [entry.get("series_instance_uid") for entry in (earlier, case)]
        if any(uids):
            return bool(uids[0] == uids[1])
        files = [
            [os.path.realpath(file) for file in case_files({"image": entry["image"]})] for entry in (earlier, case)
        ]
    except (ValueError, TypeError, AttributeError, KeyError):  # not a summary of this writer
        return False
    return files[0] == files[1]


def _check_dicom(cases: Sequence[Mapping[str, Any]]) -> None:
    not_dicom = [case for case in cases if "series_instance_uid" not in case]
    if not_dicom:
        raise ValueError(
            f"save_dicom_seg needs DICOM, which the segmentation refers to, and {case_files(not_dicom[0])[0]} is not; "
            "give DICOM series as dataset_dir, or omit save_dicom_seg."
        )
    require_dicom()


def _write_nifti(stream: BinaryIO, array: Array, header: nib.Nifti1Header) -> None:
    image = nib.Nifti1Image(array, None, header)  # an affine would replace forms of the header
    image.set_data_dtype(array.dtype)
    with _compressed(stream) as compressed:
        image.to_stream(compressed)


def _write_volumes(stream: BinaryIO, volumes: Probabilities, shape: Sequence[int], header: nib.Nifti1Header) -> None:
    """Write volumes (X, Y, Z) along a fourth axis in float32, one at a time, as this is the slowest axis of a file."""
    values = np.broadcast_to(np.float32(0), shape)  # of no size, for the header alone
    image = nib.Nifti1Image(values, None, header)
    image.set_data_dtype(np.float32)
    image.update_header()
    image.header.set_slope_inter(1, 0)
    with _compressed(stream) as compressed:
        image.header.write_to(compressed)
        compressed.write(bytes(image.header.get_data_offset() - compressed.tell()))
        for volume in volumes:
            for plane in convert_to_numpy(volume).T:  # the first axis is the fastest
                compressed.write(np.ascontiguousarray(plane, dtype=image.header.get_data_dtype()).data)


def _compressed(stream: BinaryIO) -> gzip.GzipFile:
    """Compress at nibabel's own level, without the time, so that equal predictions are equal files."""
    return gzip.GzipFile("", "wb", 1, stream, mtime=0)
