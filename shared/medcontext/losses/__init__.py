"""The MedContext objective and its consistency term."""

from __future__ import annotations

from medcontext.losses.consistency import ConsistencyForm, ConsistencyLoss, ConsistencyRegion, consistency_loss
from medcontext.losses.medcontext import MedContextLoss, full_resolution

__all__ = [
    "ConsistencyForm",
    "ConsistencyLoss",
    "ConsistencyRegion",
    "MedContextLoss",
    "consistency_loss",
    "full_resolution",
]
