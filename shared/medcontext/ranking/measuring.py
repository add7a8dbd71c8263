"""What a trained network makes of scans: how unsure it is, and what they look like to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from medcontext.data.datalist import Case
from medcontext.ranking.bottleneck import Bottleneck
from medcontext.ranking.trained import TrainedNetwork
from medcontext.reliability import Agreement

__all__ = ["MeasuredScan", "measure_scans"]


class MeasuredScan(NamedTuple):
    """A scan as a network sees it.

    Attributes:
        case: the scan, with ``image``.
        disagreement: one minus the mean Dice of its prediction with those that it should agree with, over labels; 1 if
            nothing was found in it; NaN if it was not measured.
        features: mean features at the network's coarsest grid.
    """

    case: Case
    disagreement: float
    features: npt.NDArray[np.float64]


def measure_scans(trained: TrainedNetwork, cases: Sequence[Case], agreement: Agreement | None) -> list[MeasuredScan]:
    """Predict scans and measure them.

    Args:
        trained: the network.
        cases: the scans.
        agreement: comparison of its predictions; ``None`` leaves the disagreement out, as for labelled scans.
    """
    bottleneck = Bottleneck(trained.network, trained.settings["in_channels"], trained.settings["roi_size"])
    shown = "measuring scans" if agreement else "reading labelled scans"
    return [_measure(trained, case, agreement, bottleneck) for case in tqdm(cases, desc=shown, unit="scan")]


def _measure(trained: TrainedNetwork, case: Case, agreement: Agreement | None, bottleneck: Bottleneck) -> MeasuredScan:
    image = trained.load(case)
    with bottleneck.collect() as windows:
        logits = trained.predict(image)
    features = torch.stack(windows).mean(0).double().numpy()
    disagreement = np.nan
    if agreement is not None:
        dice: Any = agreement(image, logits, trained.settings["labels"], trained.predict)
        disagreement = 1.0 if dice.isnan().all() else 1 - dice.nanmean().item()
    return MeasuredScan(case, disagreement, features)
