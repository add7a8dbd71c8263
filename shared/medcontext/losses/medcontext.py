"""The MedContext objective with each of its terms by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.utils import CommonKeys
from torch import Tensor, nn

from medcontext.keys import MedContextKeys
from medcontext.losses.consistency import ConsistencyLoss

__all__ = ["MedContextLoss", "full_resolution"]

Prediction = Tensor | Sequence[Tensor]


def full_resolution(prediction: Prediction) -> Tensor:
    r"""The (B, C, \*spatial) output at full resolution, first in the list that deep supervision returns."""
    return prediction if isinstance(prediction, Tensor) else prediction[0]


class MedContextLoss(nn.Module):
    r"""Segmentation of the whole image, segmentation of the masked image, and consistency with the teacher.

    .. math::
        L = L_{seg}(p, y) + w_{ctx}\, L_{seg}(\tilde p, y) + \beta\, L_{cons}(t, \tilde p)

    Args:
        segmentation: :math:`L_{seg}`, called with (logits, label); with deep supervision it takes the list of logits.
        consistency: :math:`L_{cons}`, called with (teacher, student, context_mask); it sees full resolution only.
        context_weight: :math:`w_{ctx}`, 0 or more.
        consistency_weight: :math:`\beta`, 0 or more.

    Raises:
        ValueError: When a weight is negative.

    Source: Gani et al., MedContext, MICCAI 2024 (arXiv 2402.17725).
    """

    def __init__(
        self,
        segmentation: Callable[..., Tensor],
        consistency: Callable[..., Tensor] | None = None,
        *,
        context_weight: float = 1.0,
        consistency_weight: float = 0.5,
    ) -> None:
        super().__init__()
        for name, weight in (("context_weight", context_weight), ("consistency_weight", consistency_weight)):
            if not weight >= 0:
                raise ValueError(f"{name} must be 0 or more, got {weight}; 0 switches the term off.")
        self.segmentation = segmentation
        self.consistency = ConsistencyLoss() if consistency is None else consistency
        self.context_weight = float(context_weight)
        self.consistency_weight = float(consistency_weight)

    def supervised(self, pred: Prediction, label: Tensor) -> Tensor:
        """:math:`L_{seg}(p, y)`, all that plain training has."""
        return self.segmentation(pred, label).mean()

    def context_terms(
        self,
        masked_pred: Prediction,
        label: Tensor,
        teacher_pred: Prediction | None = None,
        context_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        r"""The two unweighted terms of the masked pass, by name.

        Args:
            masked_pred: the student's logits on the masked image, (B, C, \*spatial) or a list of them.
            label: the full label (B, 1, \*spatial), dropped organs included.
            teacher_pred: the teacher's logits on the whole image; ``None`` leaves consistency at 0.
            context_mask: (B, 1, \*spatial), 1 where the image was dropped.
        """
        student = full_resolution(masked_pred)
        consistency = (
            torch.zeros((), device=student.device)
            if teacher_pred is None
            else self.consistency(full_resolution(teacher_pred), student, context_mask)
        )
        return {
            MedContextKeys.LOSS_CONTEXT: self.segmentation(masked_pred, label).mean(),
            MedContextKeys.LOSS_CONSISTENCY: consistency,
        }

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """The part of the objective that the masked pass adds: its terms times their weights."""
        return (
            self.context_weight * terms[MedContextKeys.LOSS_CONTEXT]
            + self.consistency_weight * terms[MedContextKeys.LOSS_CONSISTENCY]
        )

    def forward(
        self,
        pred: Prediction,
        label: Tensor,
        masked_pred: Prediction,
        teacher_pred: Prediction | None = None,
        context_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """All terms by name, unweighted, and their weighted sum under ``loss``."""
        supervised = self.supervised(pred, label)
        terms = self.context_terms(masked_pred, label, teacher_pred, context_mask)
        return {
            CommonKeys.LOSS: supervised + self.weighted(terms),
            MedContextKeys.LOSS_SUPERVISED: supervised,
            **terms,
        }
