"""Estimates of the Dice of predictions, and their calibration."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator, IterationEvents
from monai.utils import CommonKeys, ImageMetaKey
from torch import Tensor, nn

from medcontext.data import case_files, case_name
from medcontext.keys import MedContextKeys
from medcontext.labels import IGNORED, Labels, label_ids, unannotated_ids
from medcontext.reliability import (
    Agreement,
    Calibration,
    fit_calibration,
    label_dice,
    read_calibration,
    trained_names,
    write_calibration,
)
from medcontext.storage.files import write_file

__all__ = ["QUALITY_TABLE", "QualityCalibration", "QualityEstimate", "QualityTable"]

logger = logging.getLogger(__name__)

QUALITY_TABLE = "quality.csv"
"""Name of the table in the folder of predictions."""


class QualityEstimate:
    """Estimate the Dice of each predicted case by label, from how far the prediction agrees with others of its kind.

    Attach it to the evaluator that predicts. Its outputs then hold ``agreement``, and :meth:`estimates` turns this into
    Dice by the calibration in ``quality.json`` beside the weights. Without one, or for labels of which it knows too few
    cases, there is no estimate, and ``reason`` says why.

    Args:
        network: the network that predicts.
        ckpt_path: the file of its weights.

    Raises:
        ValueError: If there are several files.
    """

    def __init__(self, network: nn.Module, ckpt_path: str) -> None:
        self.agreement = Agreement(network, ckpt_path)
        self.ckpt_path = Path(ckpt_path)
        self.calibration: Calibration | None = None

    @property
    def reason(self) -> str:
        """Sentence that says why there is no estimate of some labels; empty if there is one for each."""
        if self.calibration is not None:
            return self.calibration.reason
        return (
            f"The Dice is not estimated: {self.ckpt_path} has not been calibrated; evaluate it with --estimate_quality "
            "True, where ten or more labelled cases were held out from training."
        )

    def attach(self, engine: Engine) -> None:
        """Subscribe to the start of the run and to the network's outputs before they are processed."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def start(self) -> None:
        """Read the calibration, unless it has just been made, and say for which labels there will be no estimate.

        Raises:
            CalibrationError: If it is damaged or belongs to other weights.
        """
        if self.calibration is None:
            self.calibration = read_calibration(self.ckpt_path.parent, self.agreement.weights)
        if self.reason and idist.get_rank() == 0:
            logger.warning(self.reason)

    def __call__(self, engine: Evaluator) -> None:
        """Measure the agreement of one case."""
        if self.calibration is not None and self.calibration.is_known:
            labels = {name: fit.ids for name, fit in self.calibration.labels.items()}
            engine.state.output[MedContextKeys.AGREEMENT] = measured(engine, self.agreement, labels)

    def estimates(self, item: Mapping[str, Any]) -> dict[str, float]:
        """Return the estimated Dice of a case by label from an output of the evaluator.

        Args:
            item: output for one case.

        Returns:
            Estimates, NaN for a label that has none; empty if there are none at all.
        """
        if self.calibration is None or not self.calibration.is_known:
            return {}
        return self.calibration.estimates(item[MedContextKeys.AGREEMENT])

    def summary(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the estimates of a case for its summary: Dice and the measured errors by label, or the reason.

        Args:
            item: output of the evaluator for one case.
        """
        fits = {} if self.calibration is None else self.calibration.labels
        estimates = {
            name: {"dice": value, "error": fits[name].error, "test_error": fits[name].test_error}
            for name, value in self.estimates(item).items()
        }
        return {"estimates": estimates} | ({"reason": self.reason} if self.reason else {})

    def record_test(self, errors: Mapping[str, float], cases: int) -> None:
        """Add the error that was measured on test cases to the calibration beside the weights."""
        if self.calibration is None or not errors:
            return
        fits = {
            name: replace(fit, test_error=float(errors.get(name, math.nan)))
            for name, fit in self.calibration.labels.items()
        }
        self.calibration = replace(self.calibration, labels=fits, test_cases=cases)
        write_calibration(self.calibration, self.ckpt_path.parent)


class QualityTable:
    """Write the estimated Dice of all predicted cases as ``quality.csv``, and list those to look at first.

    The cases with the lowest mean estimate come first; a label that nearly all cases of the calibration have counts
    there as 0 if it is not found.

    Args:
        quality: the estimate.
        output_dir: folder of the table.
        cases: cases as returned by :func:`medcontext.data.list_images`.
        review_first: number of cases to list in the log at the end.
    """

    def __init__(
        self,
        quality: QualityEstimate,
        output_dir: str,
        cases: Sequence[Mapping[str, Any]],
        review_first: int = 5,
    ) -> None:
        self.quality, self.path, self.review_first = quality, Path(output_dir) / QUALITY_TABLE, review_first
        self.names = {str(Path(case_files(case)[0])): str(case.get("case", case_name(case))) for case in cases}
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Subscribe to every iteration and to the end of the run."""
        engine.add_event_handler(Events.STARTED, self.rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def __call__(self, engine: Engine) -> None:
        """Take the estimates of an iteration."""
        for item in engine.state.output:
            estimates = self.quality.estimates(item)
            if self.quality.calibration is not None and estimates:
                file = str(item[CommonKeys.IMAGE].meta[ImageMetaKey.FILENAME_OR_OBJ])
                mean = self.quality.calibration.mean(estimates)
                self.rows.append({"case": self.names[file], "mean": mean, **estimates})

    def write(self) -> None:
        """Write the table, and list its first cases."""
        if not self.rows:
            return
        table = pd.DataFrame(self.rows).sort_values("mean", kind="stable")
        write_file(self.path, table.to_csv(index=False, float_format="%.4f").encode())
        first = [f"{row['case']} ({row['mean']:.2f})" for row in table.to_dict("records")[: self.review_first]]
        if first:
            logger.warning("look first at %s: their estimated Dice is the lowest (%s).", ", ".join(first), self.path)


class QualityCalibration:
    """Calibrate estimates of the Dice on labelled cases that the network did not see in training.

    Attach it to the evaluator of the test cases before the :class:`QualityEstimate`, which takes its result.

    Args:
        quality: the estimate to calibrate.
        evaluator: engine that predicts the cases, with ``pred`` and ``label`` as label maps in one geometry.
        labels: names with their id or ids.
        unannotated: what negative values of label maps stand for, from :func:`medcontext.data.unannotated_labels`.
    """

    def __init__(
        self,
        quality: QualityEstimate,
        evaluator: Evaluator,
        labels: Labels,
        unannotated: Sequence[Sequence[int]] = (),
    ) -> None:
        self.quality, self.evaluator, self.labels = quality, evaluator, label_ids(labels)
        self.unannotated = unannotated
        self.agreements: list[Tensor] = []
        self.dice: list[Tensor] = []
        evaluator.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.measure)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.compare)

    def attach(self, engine: Engine) -> None:
        """Subscribe to the start of the run."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Predict the cases, fit, and write ``quality.json`` beside the weights."""
        if trained_names(self.quality.ckpt_path) is None and idist.get_rank() == 0:
            logger.warning("model.json beside %s does not say on which cases it was trained.", self.quality.ckpt_path)
        self.agreements, self.dice = [], []
        if len(self.evaluator.data_loader):
            self.evaluator.run()
        agreement = self.quality.agreement
        calibration = fit_calibration(
            self.agreements, self.dice, self.labels, weights=agreement.weights, features=agreement.features
        )
        if idist.get_rank() == 0:
            write_calibration(calibration, self.quality.ckpt_path.parent)
        self.quality.calibration = calibration

    def measure(self, engine: Evaluator) -> None:
        """Measure the agreement of one case."""
        self.agreements += [measured(engine, self.quality.agreement, self.labels)[0]]

    def compare(self, engine: Evaluator) -> None:
        """Compare the predictions of an iteration with the labels."""
        self.dice += [self._dice(item[CommonKeys.PRED], item[CommonKeys.LABEL]) for item in engine.state.output]

    def _dice(self, prediction: Tensor, label: Tensor) -> Tensor:
        """Return the Dice (L,), NaN for labels that nobody annotated in the case; voxels to ignore do not count."""
        left_out = set(unannotated_ids(float(label.min()), self.unannotated))
        unknown = torch.tensor([bool(left_out & set(ids)) for ids in self.labels.values()])
        known = label != IGNORED
        dice = label_dice(prediction[known], label[known].clamp_min(0), self.labels)
        return dice.masked_fill(unknown.to(dice.device), math.nan)


def measured(engine: Evaluator, agreement: Agreement, labels: Labels) -> Tensor:
    """Return the agreement (1, L, F) of the case that an evaluator has just predicted."""
    output = engine.state.output
    with engine.mode(engine.network), torch.autocast(engine.state.device.type, enabled=engine.amp):
        return agreement(output[CommonKeys.IMAGE], output[CommonKeys.PRED], labels, engine.inferer)[None]
