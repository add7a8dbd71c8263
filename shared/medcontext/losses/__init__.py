"""The MedContext objective and its terms."""

from __future__ import annotations

from medcontext.losses.consistency import ConsistencyForm, ConsistencyLoss, ConsistencyRegion, consistency_loss
from medcontext.losses.deep_supervision import deep_supervision_weights
from medcontext.losses.medcontext import MedContextLoss, full_resolution, sample_index, select_samples
from medcontext.losses.partial_labels import PartialLabelLoss, merge_unannotated, partial_loss
from medcontext.losses.pseudo_labels import PseudoLabelLoss, pseudo_label_loss

__all__ = [
    "ConsistencyForm",
    "ConsistencyLoss",
    "ConsistencyRegion",
    "MedContextLoss",
    "PartialLabelLoss",
    "PseudoLabelLoss",
    "consistency_loss",
    "deep_supervision_weights",
    "full_resolution",
    "merge_unannotated",
    "partial_loss",
    "pseudo_label_loss",
    "sample_index",
    "select_samples",
]
