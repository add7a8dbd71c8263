"""From agreement to Dice: a calibration on cases that the network did not see in training, kept beside its weights."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize
from torch import Tensor

from medcontext.labels import Labels, label_ids
from medcontext.storage.files import write_file
from medcontext.storage.json_files import json_text, read_json

__all__ = [
    "CALIBRATION_FILE",
    "LEAST_CASES",
    "Calibration",
    "CalibrationError",
    "LabelFit",
    "fit_calibration",
    "read_calibration",
    "write_calibration",
]

Array = npt.NDArray[np.float64]

CALIBRATION_FILE = "quality.json"
"""Name of the calibration in the folder of the weights."""
LEAST_CASES = 10
"""Cases with a label below which its Dice is not estimated."""
PRIOR_SLOPE = 1.0
"""Sum of the slopes that is expected before any case is seen; each has a standard deviation of 1."""
USUAL_SHARE = 0.8
"""Share of the cases of a calibration that have a label from which its absence counts as an error."""
_REMEDY = "remove it and evaluate with --estimate_quality True again"


class CalibrationError(ValueError):
    """A calibration is damaged, belongs to other weights, or cannot be written."""


@dataclass(frozen=True)
class LabelFit:
    """Dice of a label as a linear function of the agreement, which never falls where the agreement rises.

    Attributes:
        ids: ids of the label.
        cases: cases in which the label was predicted or present, and predicted by any of the compared networks.
        intercept: Dice at agreement 0, of the line; NaN with too few cases, like what follows.
        slopes: Dice per agreement, one for each feature, none below 0.
        error: mean absolute error when each case is estimated from the others.
        error_of_mean: that of the mean Dice of the others, which an estimate has to beat.
        test_error: mean absolute error on test cases, if they were evaluated.
    """

    ids: list[int]
    cases: int
    intercept: float = math.nan
    slopes: list[float] = field(default_factory=list)
    error: float = math.nan
    error_of_mean: float = math.nan
    test_error: float = math.nan

    @property
    def is_known(self) -> bool:
        """Whether there were enough cases."""
        return self.cases >= LEAST_CASES

    def estimate(self, agreement: Array) -> float:
        """Return the Dice, from 0 to 1, that an agreement (F,) stands for; NaN if either is unknown."""
        return float(np.clip(self.intercept + agreement @ self.slopes, 0, 1)) if self.is_known else math.nan


@dataclass(frozen=True)
class Calibration:
    """Fits of all labels, and what they hold for.

    Attributes:
        weights: hashes of the weights that were compared, by file.
        features: names of the comparisons.
        cases: number of cases of the calibration.
        test_cases: number of test cases on which its error was measured.
        labels: fits by name.
    """

    weights: dict[str, str]
    features: list[str]
    cases: int
    labels: dict[str, LabelFit]
    test_cases: int = 0

    @property
    def is_known(self) -> bool:
        """Whether the Dice of any label can be estimated."""
        return any(fit.is_known for fit in self.labels.values())

    @property
    def reason(self) -> str:
        """Sentence that says for which labels there is no estimate and why; empty if there is one for each."""
        lacking = [name for name, fit in self.labels.items() if not fit.is_known]
        if not lacking:
            return ""
        names = "any label" if len(lacking) == len(self.labels) else ", ".join(lacking)
        return (
            f"The Dice of {names} is not estimated: that needs {LEAST_CASES} labelled cases with it that the network "
            f"did not see in training, and there are {min(self.labels[name].cases for name in lacking)}; hold more "
            "out, by --fold or --validation_cases, and evaluate with --estimate_quality True."
        )

    def estimates(self, agreement: Tensor) -> dict[str, float]:
        """Return the estimated Dice by label from the agreement (L, F) of a scan, NaN where there is no estimate."""
        rows = np.asarray(agreement, dtype=np.float64)
        return {name: fit.estimate(row) for (name, fit), row in zip(self.labels.items(), rows, strict=True)}

    def mean(self, estimates: Mapping[str, float]) -> float:
        """Return the mean estimate over labels, in which a label that is not found but nearly always there counts as 0.

        Args:
            estimates: Dice by label, NaN where it is not found.

        Returns:
            The mean; NaN if there is nothing to average.
        """
        usual = {name for name, fit in self.labels.items() if fit.is_known and fit.cases >= USUAL_SHARE * self.cases}
        values = [0.0 if math.isnan(value) and name in usual else value for name, value in estimates.items()]
        known = [value for value in values if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


def fit_calibration(
    agreement: Sequence[Tensor], dice: Sequence[Tensor], labels: Labels, *, weights: Mapping[str, str], features: Any
) -> Calibration:
    """Fit the Dice of each label to the agreement.

    The fit is Bayesian, with slopes of 1 in sum expected: few noisy cases give any slopes, and by such ones estimates
    can be worse than the mean.

    Args:
        agreement: (L, F) for each case.
        dice: true Dice (L,) for each case, NaN where a label does not count.
        labels: names with their id or ids.
        weights: hashes of the weights that were compared, by file.
        features: names of the comparisons.

    Returns:
        The calibration; labels with fewer than ten cases have no estimate.
    """
    shape = len(agreement), len(label_ids(labels)), len(features)
    given = np.stack([np.asarray(each) for each in agreement]) if len(agreement) else np.zeros(shape)
    true = np.stack([np.asarray(each) for each in dice]) if len(dice) else np.zeros(shape[:2])
    fits = {
        name: _fit(given[:, place].astype(np.float64), true[:, place].astype(np.float64), list(ids))
        for place, (name, ids) in enumerate(label_ids(labels).items())
    }
    return Calibration(dict(weights), list(features), len(agreement), fits)


def _fit(agreement: Array, dice: Array, ids: list[int]) -> LabelFit:
    known = np.isfinite(dice) & np.isfinite(agreement).all(axis=1)
    agreement, dice = agreement[known], dice[known]
    if len(dice) < LEAST_CASES:
        return LabelFit(ids, len(dice))
    lines = [_line(np.delete(agreement, i, 0), np.delete(dice, i)) for i in range(len(dice))]  # each case left out
    estimates = np.clip([start + agreement[i] @ slopes for i, (start, slopes) in enumerate(lines)], 0, 1)
    means = (dice.sum() - dice) / (len(dice) - 1)
    errors = (float(np.abs(values - dice).mean()) for values in (estimates, means))
    return LabelFit(ids, len(dice), *_line(agreement, dice), *errors)


def _line(agreement: Array, dice: Array) -> tuple[float, list[float]]:
    """Return intercept and slopes: the noisier the cases, the closer the slopes are to the expected ones."""
    spread, features = agreement - agreement.mean(axis=0), agreement.shape[1]
    free = np.linalg.lstsq(spread, dice - dice.mean(), rcond=None)[0]
    residuals = dice - dice.mean() - spread @ free
    noise = math.sqrt(float(residuals @ residuals) / (len(dice) - 1 - features))
    matrix = np.vstack([spread, noise * np.eye(features)])
    target = np.concatenate([dice - dice.mean(), np.full(features, noise * PRIOR_SLOPE / features)])
    slopes = scipy.optimize.nnls(matrix, target)[0]
    return float(dice.mean() - agreement.mean(axis=0) @ slopes), slopes.tolist()


def write_calibration(calibration: Calibration, ckpt_dir: str | os.PathLike[str]) -> Path:
    """Write ``quality.json`` into the folder of the weights.

    Raises:
        CalibrationError: If the file cannot be written.
    """
    path = Path(ckpt_dir) / CALIBRATION_FILE
    try:
        return write_file(path, json_text(asdict(calibration)).encode())
    except OSError as error:
        raise CalibrationError(
            f"{path} cannot be written ({error.strerror or error}); copy the weights and what lies beside them to "
            "where you may write, or leave out estimate_quality."
        ) from error


def read_calibration(ckpt_dir: str | os.PathLike[str], weights: Mapping[str, str]) -> Calibration | None:
    """Read the ``quality.json`` beside weights.

    Args:
        ckpt_dir: folder of the weights.
        weights: hashes of the weights that are compared, by file.

    Returns:
        The calibration, or ``None`` if there is none.

    Raises:
        CalibrationError: If the file is damaged, or belongs to other weights.
    """
    path = Path(ckpt_dir) / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        fits = {name: _checked_fit(entry, len(content["features"])) for name, entry in content["labels"].items()}
        label_ids({name: fit.ids for name, fit in fits.items()})
        calibration = Calibration(**{**content, "labels": fits})
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"{path} is not a calibration ({error}); {_REMEDY}.") from error
    if calibration.weights != dict(weights):
        raise CalibrationError(f"{path} was made for other weights than those beside it; {_REMEDY}.")
    return calibration


def _checked_fit(entry: Mapping[str, Any], features: int) -> LabelFit:
    """Return the fit of a label from JSON, which writes NaN as null."""
    values: dict[str, Any] = {name: math.nan if value is None else value for name, value in entry.items()}
    fit = LabelFit(**values)
    if fit.is_known and (len(fit.slopes) != features or not math.isfinite(fit.intercept + sum(fit.slopes))):
        raise ValueError(f"it gives {fit.slopes} for {features} features")
    return fit
