"""How far a network's predictions can be trusted: its agreement with itself, and the Dice that this stands for."""

from __future__ import annotations

from medcontext.reliability.agreement import Agreement, label_dice
from medcontext.reliability.calibration import (
    CALIBRATION_FILE,
    Calibration,
    CalibrationError,
    LabelFit,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from medcontext.reliability.cases import trained_names, unseen_cases

__all__ = [
    "CALIBRATION_FILE",
    "Agreement",
    "Calibration",
    "CalibrationError",
    "LabelFit",
    "fit_calibration",
    "label_dice",
    "read_calibration",
    "trained_names",
    "unseen_cases",
    "write_calibration",
]
