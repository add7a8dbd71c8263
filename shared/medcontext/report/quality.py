"""The estimates of the Dice of an evaluation as shown, label by label."""

from __future__ import annotations

import pandas as pd

from medcontext.metrics import ESTIMATE, estimate_errors
from medcontext.reliability import Calibration

__all__ = ["quality_rows"]


def quality_rows(metrics: pd.DataFrame, calibration: Calibration) -> list[dict[str, str | float]]:
    """Return for each estimated label the means of estimate and Dice, and the errors.

    Args:
        metrics: one row per case and label.
        calibration: where the estimates come from.

    Returns:
        Rows with ``label``, ``estimate`` and ``dice``, both over the cases that have both, ``test_error``, ``error``
        and ``error_of_mean``; none if nothing was estimated.
    """
    rows: list[dict[str, str | float]] = []
    for label, error in estimate_errors(metrics).items():
        known = metrics[metrics["label"] == label].dropna(subset=["dice", ESTIMATE])
        fit = calibration.labels[label]
        rows.append(
            {
                "label": label,
                "estimate": float(known[ESTIMATE].mean()),
                "dice": float(known["dice"].mean()),
                "test_error": error,
                "error": fit.error,
                "error_of_mean": fit.error_of_mean,
            }
        )
    return rows
