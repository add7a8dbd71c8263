"""Measurement of every test case, and the report of the evaluation."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import Orientation
from monai.utils import CommonKeys, ImageMetaKey

from medcontext.cases import FailedCase, failed_cases, write_failures
from medcontext.handlers.quality import QualityEstimate
from medcontext.labels import Labels, label_ids, unannotated_ids
from medcontext.metrics import (
    ESTIMATE,
    MetricSummary,
    SurfaceTolerance,
    case_metrics,
    estimate_errors,
    metric_protocol,
    summarise,
    surface_tolerances,
)
from medcontext.report import Plane, circumstances, device_name, label_planes, read_history, write_report
from medcontext.scans import on_grid, volume_name, voxel_ml
from medcontext.text import printable

__all__ = ["EvaluationReport"]

logger = logging.getLogger(__name__)

# columns of the summary and their names in MLflow, which omits values that no case has, so the counts are logged too
_BY_LABEL = {
    "dice_mean": "dice",
    "surface_dice_mean": "surface_dice",
    "hd95_mm_mean": "hd95",
    "missed": "missed",
    "spurious": "spurious",
    "paper_dice_mean": "paper_dice",
    "paper_hd95_voxels_mean": "paper_hd95",
}
_OVER_LABELS = {"paper_dice_mean": "paper_mean_dice", "paper_hd95_voxels_mean": "paper_mean_hd95"}


@dataclass(frozen=True)
class _Case:
    """Files, metrics and slices to draw of a case."""

    files: tuple[str, str]
    rows: list[dict[str, str | float | bool]]
    planes: tuple[Plane, ...]


class EvaluationReport:
    """Measure each case in its own geometry, and write tables, pictures and the HTML report.

    Attach it to a MONAI evaluator that decollates, after postprocessing that provides, for every case, ``pred`` and
    ``label`` in the same geometry (the original one, by ``Invertd`` on ``pred``) as ``MetaTensor``: label maps
    (1, *spatial), or one-hot, scores or probabilities by class (C, *spatial), of which the largest counts. The spacing
    in mm is taken from the prediction's affine. ``image`` (C, *spatial) is only drawn; it is resampled for the picture
    if it has another geometry.

    At the end of the epoch, ``engine.state.metrics`` gets ``<prefix>_failed_cases``, the number of those that a
    :class:`medcontext.cases.TolerantEvaluator` left out, and, if there are others, ``<prefix>_mean_dice``,
    ``<prefix>_missed``, ``<prefix>_spurious`` and for every label ``<prefix>_dice_<label>``,
    ``<prefix>_surface_dice_<label>``, ``<prefix>_hd95_<label>`` (mm; all three NaN if a label has no such value in any
    case), ``<prefix>_missed_<label>`` and ``<prefix>_spurious_<label>`` (numbers of cases). A published protocol adds
    ``<prefix>_paper_mean_dice``, ``<prefix>_paper_mean_hd95``, ``<prefix>_paper_dice_<label>`` and
    ``<prefix>_paper_hd95_<label>`` (voxels), averaged over all cases by label, then over labels, as the scripts do.

    Cases that were left out are listed in ``failures.csv`` and in the report, and counted in no average.

    The report is written at the end of the run, so list this handler **before** those that log metrics or upload files,
    such as ``MLflowTracker``. Only the drawn slices of a case are kept in memory, less than 1 MB. Of several processes,
    the first one writes; a case that a sampler repeated counts once.

    Args:
        output_dir: folder of the report, see :func:`medcontext.report.write_report`.
        labels: foreground names with their id, or with several ids for a region.
        surface_tolerance_mm: distance in mm up to which surfaces agree, for all labels or by name.
        protocol: name of the protocol of the metrics, one of :data:`medcontext.metrics.PROTOCOLS`.
        info: description of the evaluation for the report. ``None`` and ``{}`` are left out; protocol, device,
            duration, command, versions and date are added unless it has entries for them.
        metric_prefix: prefix of the metrics' names.
        image_channel: channel of the image that is drawn.
        window: intensities drawn as black and as white; by default chosen for each case from the labelled tissue.
        anonymous_dir: folder of a second copy of the report that names the cases by hashes, for places where file names
            must not appear, such as a shared MLflow server. ``None`` writes none.
        history: file of a :class:`medcontext.handlers.TrainingHistory`, whose curves the report shows if it exists.
        unannotated: what negative values of label maps stand for, from :func:`medcontext.data.unannotated_labels`.
        quality: estimate of the Dice of each case, which the tables and the report then hold with its measured error.

    Raises:
        ValueError: If ``labels`` does not map names to ids above 0, a label has no valid tolerance, or there is no such
            protocol.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        labels: Labels,
        *,
        surface_tolerance_mm: SurfaceTolerance = 2.0,
        protocol: str = "default",
        info: Mapping[str, object] | None = None,
        metric_prefix: str = "test",
        image_channel: int = 0,
        window: tuple[float, float] | None = None,
        anonymous_dir: str | os.PathLike[str] | None = None,
        history: str | os.PathLike[str] | None = None,
        unannotated: Sequence[Sequence[int]] = (),
        quality: QualityEstimate | None = None,
    ) -> None:
        surface_tolerances(surface_tolerance_mm, label_ids(labels))
        metric_protocol(protocol)
        self.output_dir = Path(output_dir)
        self.labels = labels
        self.surface_tolerance_mm = surface_tolerance_mm
        self.protocol = protocol
        self.info = {name: value for name, value in (info or {}).items() if value not in (None, {})}
        self.metric_prefix = metric_prefix
        self.image_channel = image_channel
        self.window = window
        self.anonymous_dir = anonymous_dir
        self.history = history
        self.unannotated = unannotated
        self.quality = quality
        self.metrics = pd.DataFrame()
        self._cases: list[_Case] = []
        self._planes: dict[str, tuple[Plane, ...]] = {}
        self._failed: list[FailedCase] = []
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        """Subscribe to the start, every iteration, the end of the epoch and the end of the run."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.summarise)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def reset(self) -> None:
        """Discard the cases of an earlier epoch."""
        self._cases.clear()

    def __call__(self, engine: Engine) -> None:
        """Measure the cases of one iteration.

        Raises:
            ValueError: If the engine does not decollate, or a prediction has no geometry or another one than its label.
        """
        output = engine.state.output
        if not isinstance(output, list):
            raise ValueError(
                "EvaluationReport needs one output per case, got a batch. Create the evaluator with decollate=True."
            )
        for item in output:
            self._cases.append(self._measure(item))

    def summarise(self, engine: Engine) -> None:
        """Add the averages to the engine's metrics and log a table."""
        cases, self._failed = _gather(self._cases), failed_cases(engine)
        engine.state.metrics[f"{self.metric_prefix}_failed_cases"] = float(len(self._failed))
        if not cases and self._failed:
            return
        names = _case_names([case.files for case in cases])
        self.metrics = pd.DataFrame(
            [{"case": name, **row} for name, case in zip(names, cases, strict=True) for row in case.rows]
        )
        self._planes = {name: case.planes for name, case in zip(names, cases, strict=True)}
        summary = summarise(self.metrics)
        engine.state.metrics.update(self._logged_metrics(summary))
        if idist.get_rank() == 0:
            logger.info("mean Dice %.4f over %d cases\n%s", summary.mean_dice, summary.cases, _table(summary))

    def write(self, engine: Engine) -> None:
        """Write the report, in the first process only."""
        if idist.get_rank() > 0:
            return
        write_failures(self.output_dir, self._failed)
        if not self._planes and self._failed:
            return
        path = write_report(
            self.output_dir,
            self.metrics,
            cases=self._planes,
            labels=self.labels,
            info={**self.info, **self._missing_info(engine)},
            history=None if self.history is None else read_history(self.history),
            failed={failed.case: failed.reason for failed in self._failed},
            anonymous_dir=self.anonymous_dir,
            calibration=None if self.quality is None else self.quality.calibration,
        )
        if self.quality is not None:
            self.quality.record_test(estimate_errors(self.metrics), len(self._planes))
        logger.info("report: %s (%.1f MB)", path, path.stat().st_size / 1e6)

    def _start(self) -> None:
        self._started = time.perf_counter()

    def _missing_info(self, engine: Engine) -> dict[str, object]:
        """Return facts about the evaluation for which ``info`` has no entry."""
        seconds = time.perf_counter() - self._started
        facts: dict[str, object] = {
            "metrics": {"protocol": self.protocol, "surface_tolerance_mm": self.surface_tolerance_mm}
        }
        duration = {"duration": f"{seconds:.1f} s, {seconds / len(self._planes):.1f} s a case"}
        device = getattr(engine.state, "device", None)
        if device is not None:
            facts["device"] = device_name(device)
        return {
            name: value for name, value in {**facts, **duration, **circumstances()}.items() if name not in self.info
        }

    def _measure(self, item: Mapping[str, Any]) -> _Case:
        prediction, label = _label_map(item[CommonKeys.PRED]), _label_map(item[CommonKeys.LABEL])
        if not isinstance(prediction, MetaTensor):
            raise ValueError(
                "the prediction must be a MetaTensor, whose affine gives the voxel size in mm, got "
                f"{type(prediction).__name__}. Keep track_meta on, or give Invertd to_tensor=True."
            )
        spacing = affine_to_spacing(prediction.affine).tolist()
        rows = case_metrics(
            prediction,
            label,
            self.labels,
            spacing,
            surface_tolerance_mm=self.surface_tolerance_mm,
            protocol=self.protocol,
            voxel_ml=voxel_ml(prediction.affine),
            unannotated=unannotated_ids(float(label.min()), self.unannotated),
        )
        if self.quality is not None and (estimates := self.quality.estimates(item)):
            rows = [{**row, ESTIMATE: estimates.get(str(row["label"]), math.nan)} for row in rows]
        image = _drawn(item[CommonKeys.IMAGE], prediction, self.image_channel)
        upright, truth, predicted = (_to_ras(volume, prediction) for volume in (image, label, prediction))
        planes = label_planes(
            upright,
            truth,
            predicted,
            self.labels,
            spacing=affine_to_spacing(upright.affine).tolist(),
            window=self.window,
        )
        number = len(self._cases) * idist.get_world_size() + idist.get_rank()
        files = _file_name(item[CommonKeys.IMAGE]) or f"case_{number:04d}", _file_name(item[CommonKeys.LABEL])
        return _Case(files, rows, planes)

    def _logged_metrics(self, summary: MetricSummary) -> dict[str, float]:
        """Return the averages by the names that they are logged under."""
        prefix, labels = self.metric_prefix, summary.labels
        values: dict[str, float] = {
            f"{prefix}_mean_dice": summary.mean_dice,
            f"{prefix}_missed": float(summary.missed),
            f"{prefix}_spurious": float(summary.spurious),
        }
        for column in labels.columns.intersection(list(_OVER_LABELS)):
            values[f"{prefix}_{_OVER_LABELS[column]}"] = float(labels[column].mean())
        for column in labels.columns.intersection(list(_BY_LABEL)):
            values |= {f"{prefix}_{_BY_LABEL[column]}_{label}": float(value) for label, value in labels[column].items()}
        return values


def _label_map(values: torch.Tensor) -> torch.Tensor:
    """Return a label map (1, *spatial) on the CPU, from a label map or from scores by class (C, *spatial)."""
    label_map = values.argmax(dim=0, keepdim=True) if values.ndim == 4 and values.shape[0] > 1 else values
    return label_map.detach().cpu()


def _drawn(image: torch.Tensor, prediction: MetaTensor, channel: int) -> torch.Tensor:
    """Return one channel of an image (1, *spatial) on the prediction's grid.

    Raises:
        ValueError: If the image does not have it.
    """
    if not -image.shape[0] <= channel < image.shape[0]:
        raise ValueError(f"image_channel must be a channel of the image, which has {image.shape[0]}, got {channel}.")
    one = image[channel][None]
    placed = one if isinstance(one, MetaTensor) else MetaTensor(one, affine=prediction.affine)
    return on_grid(placed, prediction.shape[1:], prediction.affine)


def _to_ras(volume: torch.Tensor, prediction: MetaTensor) -> MetaTensor:
    """Reorient a volume on the prediction's grid to RAS, for display."""
    plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    reoriented: MetaTensor = Orientation(axcodes="RAS", labels=None)(MetaTensor(plain, affine=prediction.affine))
    return reoriented


def _file_name(tensor: torch.Tensor) -> str:
    """Return the path of the file that a tensor was read from, ``""`` if it is unknown."""
    source = tensor.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "") if isinstance(tensor, MetaTensor) else ""
    first = source[0] if isinstance(source, list | tuple) and source else source
    return str(first) if isinstance(first, str | os.PathLike) else ""


def _case_names(files: Sequence[tuple[str, str]]) -> list[str]:
    """Name every case after its image, with as many folders as needed for unique names."""
    parts = [(*Path(image).parts[:-1], volume_name(image)) for image, _ in files]
    depth, names = 1, [path[-1] for path in parts]
    while len(set(names)) < len(names) and depth < max(len(path) for path in parts):
        depth += 1
        names = ["/".join(path[-depth:]) for path in parts]
    if len(set(names)) == len(names):
        return names
    return [f"{path[-1]}#{i}" for i, path in enumerate(parts)]  # one image with several labels


def _gather(cases: list[_Case]) -> list[_Case]:
    """Collect the cases of all processes, each once although samplers repeat some to even out the shares."""
    if idist.get_world_size() == 1:
        return cases
    shares: Any = idist.all_gather(cases)
    return list({case.files: case for share in shares for case in share}.values())


def _table(summary: MetricSummary) -> str:
    """Return the averages as text."""
    columns = {
        "dice_mean": "Dice",
        "dice_low": "95 % from",
        "dice_high": "to",
        "surface_dice_mean": "surface Dice",
        "hd95_mm_mean": "HD95 mm",
        "assd_mm_mean": "ASSD mm",
        "missed": "missed",
        "spurious": "spurious",
    }
    table = summary.labels[list(columns)].rename(columns=columns, index=printable).rename_axis(None)
    return str(table.to_string(float_format="%.3f", na_rep="–"))
