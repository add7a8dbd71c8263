"""The MedContext objective with each of its terms by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.utils import CommonKeys
from torch import Tensor, nn

from medcontext.checks import check_not_negative
from medcontext.keys import MedContextKeys
from medcontext.losses.consistency import ConsistencyLoss
from medcontext.losses.pseudo_labels import PseudoLabelLoss

__all__ = ["MedContextLoss", "full_resolution", "sample_index", "select_samples"]

Prediction = Tensor | Sequence[Tensor]


def full_resolution(prediction: Prediction) -> Tensor:
    r"""Return the output (B, C, \*spatial) at full resolution, the first where deep supervision returns several.

    Example:
        >>> full_resolution([torch.zeros(1, 2, 8, 8, 8), torch.zeros(1, 2, 4, 4, 4)]).shape
        torch.Size([1, 2, 8, 8, 8])
    """
    return prediction if isinstance(prediction, Tensor) else prediction[0]


def select_samples(prediction: Prediction, index: slice | Sequence[int] | Tensor) -> Prediction:
    """Return the given samples of a batch of predictions, of every output where deep supervision returns several.

    Example:
        >>> select_samples(torch.arange(4), [0, 3])
        tensor([0, 3])
        >>> select_samples([torch.arange(4), torch.arange(4, 8)], slice(2))
        [tensor([0, 1]), tensor([4, 5])]
    """
    return prediction[index] if isinstance(prediction, Tensor) else [output[index] for output in prediction]


def sample_index(chosen: Sequence[bool], device: torch.device) -> Tensor:
    """Return the places of the chosen samples, to index a batch on a device without waiting for it as a list does.

    Example:
        >>> sample_index([True, False, True], torch.device("cpu"))
        tensor([0, 2])
    """
    return torch.tensor(chosen).nonzero().flatten().to(device, non_blocking=True)


class MedContextLoss(nn.Module):
    r"""Segmentation of whole crops, segmentation of masked crops, and agreement with the teacher.

    .. math::
        L = L_{seg}(p, y) + w_{ctx}\, L_{seg}(\tilde p, y) + \beta\, L_{cons}(t, \tilde p) + w_u\, L_{pl}(t_u, p_u)

    The two-pass form of the paper (:meth:`forward`) has the first two terms for every crop. Where a batch holds whole
    and masked crops (:meth:`mixed`), each crop has one of them, and the terms are weighted by their crops' share of the
    batch, so that with :math:`w_{ctx} = 1` and without a teacher the objective is :math:`L_{seg}` of the batch. The
    last term is for unlabelled crops (:meth:`unlabeled`).

    Args:
        segmentation: :math:`L_{seg}`, called with (logits, label); with deep supervision it takes the list of logits.
        consistency: :math:`L_{cons}`, called with (teacher, student, context_mask) at full resolution.
        pseudo_labels: :math:`L_{pl}`, called with (teacher, student) of unlabelled crops at full resolution.
        context_weight: :math:`w_{ctx}`, 0 or more.
        consistency_weight: :math:`\beta`, 0 or more.
        unlabeled_weight: :math:`w_u`, 0 or more.

    Raises:
        TypeError: If a weight is not a number.
        ValueError: If a weight is negative or NaN.

    Source: Gani et al., MedContext, MICCAI 2024 (arXiv 2402.17725); the mixed batch and the last term are added here.

    Example:
        >>> from monai.losses import DiceCELoss
        >>> loss = MedContextLoss(DiceCELoss(softmax=True, to_onehot_y=True), context_weight=1, consistency_weight=0.5)
        >>> label = torch.zeros(1, 1, 4, 4, 4)
        >>> whole, masked, teacher = (torch.zeros(1, 2, 4, 4, 4) for _ in range(3))
        >>> for name, term in loss(whole, label, masked, teacher).items():
        ...     print(f"{name}: {term.item():.2f}")
        loss: 2.72
        loss_supervised: 1.36
        loss_context: 1.36
        loss_consistency: 0.00
    """

    def __init__(
        self,
        segmentation: Callable[..., Tensor],
        consistency: Callable[..., Tensor] | None = None,
        pseudo_labels: PseudoLabelLoss | None = None,
        *,
        context_weight: float = 1.0,
        consistency_weight: float = 0.5,
        unlabeled_weight: float = 1.0,
    ) -> None:
        super().__init__()

        self.segmentation = segmentation
        self.consistency = ConsistencyLoss() if consistency is None else consistency
        self.pseudo_labels = PseudoLabelLoss() if pseudo_labels is None else pseudo_labels
        self.context_weight = check_not_negative("context_weight", context_weight)
        self.consistency_weight = check_not_negative("consistency_weight", consistency_weight)
        self.unlabeled_weight = check_not_negative("unlabeled_weight", unlabeled_weight)

    def supervised(self, pred: Prediction, label: Tensor) -> Tensor:
        """Return :math:`L_{seg}(p, y)`, the only term of plain training."""
        return self.segmentation(pred, label).mean()

    def context_terms(
        self,
        masked_pred: Prediction,
        label: Tensor,
        teacher_pred: Prediction | None = None,
        context_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        r"""Return the unweighted terms of masked crops, by name.

        Args:
            masked_pred: the student's logits on the masked image, (B, C, \*spatial) or a list of them.
            label: the full label (B, 1, \*spatial), dropped organs included.
            teacher_pred: the teacher's logits on the whole image; ``None`` leaves out the consistency term.
            context_mask: (B, 1, \*spatial), 1 where the image was dropped.
        """
        terms: dict[str, Tensor] = {MedContextKeys.LOSS_CONTEXT: self.segmentation(masked_pred, label).mean()}
        if teacher_pred is not None:
            student = full_resolution(masked_pred)
            terms[MedContextKeys.LOSS_CONSISTENCY] = self.consistency(
                full_resolution(teacher_pred), student, context_mask
            )
        return terms

    def weighted(self, terms: dict[str, Tensor], strength: float = 1.0) -> Tensor:
        """Return the part of masked crops in the objective: their terms times their weights.

        Args:
            terms: from :meth:`context_terms`.
            strength: factor of the consistency weight, from a schedule.
        """
        total = self.context_weight * terms[MedContextKeys.LOSS_CONTEXT]
        if MedContextKeys.LOSS_CONSISTENCY in terms:
            total = total + strength * self.consistency_weight * terms[MedContextKeys.LOSS_CONSISTENCY]
        return total

    def forward(
        self,
        pred: Prediction,
        label: Tensor,
        masked_pred: Prediction,
        teacher_pred: Prediction | None = None,
        context_mask: Tensor | None = None,
        strength: float = 1.0,
    ) -> dict[str, Tensor]:
        """Return all terms of the two-pass form by name, unweighted, and their weighted sum under ``loss``."""
        supervised = self.supervised(pred, label)
        terms = self.context_terms(masked_pred, label, teacher_pred, context_mask)
        return {
            CommonKeys.LOSS: supervised + self.weighted(terms, strength),
            MedContextKeys.LOSS_SUPERVISED: supervised,
            **terms,
        }

    def mixed(
        self,
        pred: Prediction,
        label: Tensor,
        masked: Sequence[bool],
        teacher_pred: Prediction | None = None,
        context_mask: Tensor | None = None,
        strength: float = 1.0,
    ) -> dict[str, Tensor]:
        r"""Return the terms of a batch of whole and masked crops by name, and their weighted sum under ``loss``.

        Args:
            pred: the student's logits, (B, C, \*spatial) or a list of them, on whole and masked crops.
            label: the full label (B, 1, \*spatial).
            masked: which of the B crops are masked.
            teacher_pred: the teacher's logits on the whole image of the masked crops; ``None`` leaves out the
                consistency term.
            context_mask: (B, 1, \*spatial), 1 where the image was dropped.
            strength: factor of the consistency weight, from a schedule.
        """
        hidden = sample_index(masked, label.device)
        whole = sample_index([not is_masked for is_masked in masked], label.device)
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=label.device)
        if len(whole):
            whole_pred = select_samples(pred, whole) if len(hidden) else pred
            terms[MedContextKeys.LOSS_SUPERVISED] = self.supervised(whole_pred, label[whole])
            total = total + len(whole) / len(masked) * terms[MedContextKeys.LOSS_SUPERVISED]
        if len(hidden):
            masked_pred = select_samples(pred, hidden) if len(whole) else pred
            mask = None if context_mask is None else context_mask[hidden]
            context_terms = self.context_terms(masked_pred, label[hidden], teacher_pred, mask)
            total = total + len(hidden) / len(masked) * self.weighted(context_terms, strength)
            terms |= context_terms
        return {CommonKeys.LOSS: total, **terms}

    def unlabeled(self, teacher_pred: Prediction, pred: Prediction, strength: float = 1.0) -> dict[str, Tensor]:
        r"""Return the weighted term of unlabelled crops under ``loss``, the term itself, and the confident share.

        Args:
            teacher_pred: the teacher's logits on weakly augmented crops, (B, C, \*spatial).
            pred: the student's logits on strongly augmented ones, (B, C, \*spatial) or a list of them.
            strength: factor of the weight, from a schedule.
        """
        term, share = self.pseudo_labels(full_resolution(teacher_pred), full_resolution(pred))
        return {
            CommonKeys.LOSS: strength * self.unlabeled_weight * term,
            MedContextKeys.LOSS_UNLABELED: term,
            MedContextKeys.CONFIDENT_FRACTION: share,
        }
