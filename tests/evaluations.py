"""Cases with ever larger errors, measured and sliced as an evaluation does."""

from __future__ import annotations

from functools import cache
from typing import Any

import pandas as pd
import torch

from medcontext.metrics import case_metrics
from medcontext.report import label_planes
from torso import LABELS, SPACING, case


@cache
def measured(shift: int) -> tuple[list[dict[str, Any]], Any]:
    """Rows and slices of a case whose prediction is ``shift`` voxels off; in the third the spleen is missed."""
    image, label, prediction = case(shift)
    if shift == 2:
        prediction[prediction == LABELS["spleen"]] = 0
    rows = case_metrics(torch.as_tensor(prediction), torch.as_tensor(label), LABELS, SPACING)
    planes = label_planes(image, label, prediction, LABELS, spacing=SPACING)
    return [{"case": f"img{shift:04d}", **row} for row in rows], planes


def evaluation(count: int = 4) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Metrics of some cases and their slices by name."""
    metrics = pd.DataFrame([row for shift in range(count) for row in measured(shift)[0]])
    return metrics, {f"img{shift:04d}": measured(shift)[1] for shift in range(count)}
