"""Estimates of the Dice beside the Dice itself."""

from __future__ import annotations

import pandas as pd

__all__ = ["ESTIMATE", "estimate_errors"]

ESTIMATE = "estimated_dice"
"""Column of the estimates in a table of metrics."""


def estimate_errors(metrics: pd.DataFrame) -> dict[str, float]:
    """Return by label the mean absolute error of the estimated Dice, without labels that have no estimate.

    Args:
        metrics: one row per case and label with ``label``, ``dice`` and, if there are any, ``estimated_dice``.

    Example:
        >>> metrics = pd.DataFrame({"label": ["liver"] * 2, "dice": [0.9, 0.8], "estimated_dice": [0.85, 0.9]})
        >>> round(estimate_errors(metrics)["liver"], 3)
        0.075
    """
    if ESTIMATE not in metrics.columns:
        return {}
    errors = (metrics[ESTIMATE] - metrics["dice"]).abs().groupby(metrics["label"], sort=False).mean().dropna()
    return {str(label): float(error) for label, error in errors.items()}
