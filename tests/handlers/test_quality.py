"""The true Dice that estimates are calibrated on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from monai.engines import IterationEvents

from medcontext.handlers import QualityCalibration

LABELS = {"heart": 1, "lungs": 2}


def test_what_nobody_annotated_does_not_count() -> None:
    evaluator = Engine(lambda *_: None)
    evaluator.register_events(*IterationEvents)
    calibration = QualityCalibration(None, evaluator, LABELS, unannotated=[[1, 2], [2]])  # type: ignore[arg-type]
    prediction = torch.tensor([1, 1, 2, 1])
    labels = torch.tensor([[1, 0, 2, 0], [1, 0, 2, -1], [1, 1, -2, 0]])
    output = [{"pred": prediction, "label": label} for label in labels]
    calibration.compare(SimpleNamespace(state=SimpleNamespace(output=output)))  # type: ignore[arg-type]
    dice = [[0.5, 1.0], [pytest.approx(2 / 3), 1.0], [pytest.approx(0.8), pytest.approx(float("nan"), nan_ok=True)]]
    assert torch.stack(calibration.dice).tolist() == dice
