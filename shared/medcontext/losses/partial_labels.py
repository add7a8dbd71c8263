"""Segmentation losses for label maps that are annotated in part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.losses import DeepSupervisionLoss
from torch import Tensor, nn

from medcontext.labels import IGNORED

__all__ = ["PartialLabelLoss", "merge_unannotated", "partial_loss"]

_IMPOSSIBLE = -1e4  # a logit whose probability is 0 in float32, and no infinity in what follows


def partial_loss(loss: Callable[..., Tensor], unannotated: Sequence[Sequence[int]]) -> Callable[..., Tensor]:
    """Return a loss that leaves out what nobody annotated: the loss itself where everything is annotated.

    Args:
        loss: called with logits and label; MONAI's ``DeepSupervisionLoss`` with a list of logits.
        unannotated: what negative values of label maps stand for, from :func:`medcontext.data.unannotated_labels`.

    Example:
        >>> from monai.losses import DiceCELoss
        >>> loss = DiceCELoss(softmax=True, to_onehot_y=True)
        >>> partial_loss(loss, []) is loss, type(partial_loss(loss, [[1, 2]])).__name__
        (True, 'PartialLabelLoss')
    """
    if not unannotated:
        return loss
    if isinstance(loss, DeepSupervisionLoss):
        return DeepSupervisionLoss(PartialLabelLoss(loss.loss, unannotated), loss.weight_mode, loss.weights)
    return PartialLabelLoss(loss, unannotated)


def merge_unannotated(logits: Tensor, candidates: Tensor) -> Tensor:
    r"""Move the probability of the classes that a background voxel may be to the background.

    With :math:`S_v` the candidates of voxel v and p the softmax of the logits, that of the result is

    .. math::
        q_{v0} = p_{v0} + \sum_{c \in S_v} p_{vc}, \qquad q_{vc} = 0 \text{ for } c \in S_v,
        \qquad q_{vc} = p_{vc} \text{ otherwise.}

    Args:
        logits: (B, C, \*spatial), background first.
        candidates: boolean, of the same shape; those of the background itself do not count.

    Returns:
        Logits of the same shape, in float32 at least.

    Example:
        >>> logits = torch.tensor([[[2.0], [1.0], [0.0]]])
        >>> spleen = torch.tensor([[[False], [True], [False]]])
        >>> logits.softmax(1).flatten(), merge_unannotated(logits, spleen).softmax(1).flatten()
        (tensor([0.6652, 0.2447, 0.0900]), tensor([0.9100, 0.0000, 0.0900]))
    """
    scores, others = logits.to(torch.promote_types(logits.dtype, torch.float32)), candidates[:, 1:]
    members = torch.cat([torch.ones_like(candidates[:, :1]), others], 1)
    background = scores.masked_fill(~members, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([background, scores[:, 1:].masked_fill(others, _IMPOSSIBLE)], 1)


class PartialLabelLoss(nn.Module):
    r"""Apply a segmentation loss to what is annotated.

    Ignored voxels (-1) are removed from their crop before the loss is taken, so that neither its value nor a gradient
    depends on them. Crops with such voxels are then taken one by one and weigh the same; one that holds nothing else is
    left out. Where structures are not annotated (-2 and below), a voxel of the background may show one of them: their
    probabilities are added to that of the background (:func:`merge_unannotated`), so the network may find them there
    without a penalty, and learns where they are from the cases in which they are annotated. In Dice, such a structure
    counts as one that the crop does not show.

    Args:
        loss: called with logits (B, C, \*spatial) and label ids (B, 1, \*spatial). It must apply the softmax itself and
            treat a crop as a set of voxels, as Dice, cross entropy and focal loss do, because the voxels that remain of
            a crop are passed as (1, C, N).
        unannotated: as for :func:`partial_loss`.

    Source: the marginal loss of Fang and Yan, Multi-organ segmentation over partially labeled datasets with multi-scale
    feature abstraction, IEEE TMI 2020 (arXiv 2001.00208), and Shi et al., Marginal loss and exclusion loss for
    partially supervised multi-organ segmentation, MedIA 2021 (arXiv 2007.03868); ignored voxels as in nnU-Net.

    Example:
        >>> from monai.losses import DiceCELoss
        >>> loss = PartialLabelLoss(DiceCELoss(softmax=True, to_onehot_y=True), [[1, 2], [2]])
        >>> logits, label = torch.zeros(1, 3, 4, 4, 4), torch.ones(1, 1, 4, 4, 4)
        >>> label[..., 2:] = -1
        >>> loss(logits, label) == loss(logits[..., :2], label[..., :2])
        tensor(True)
    """

    def __init__(self, loss: Callable[..., Tensor], unannotated: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.loss = loss
        self.unannotated = [list(ids) for ids in unannotated]

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        r"""Return the loss of logits (B, C, \*spatial) and a label map (B, 1, \*spatial) with negative values."""
        if len(self.unannotated) > 1:
            logits = merge_unannotated(logits, self._candidates(label, logits.shape[1]))
        kept, label = label != IGNORED, label.clamp_min(0)
        if kept.all():
            return self.loss(logits, label)
        crops = [
            self.loss(scores.flatten(1)[None, :, mask.flatten()], ids.flatten(1)[None, :, mask.flatten()])
            for scores, ids, mask in zip(logits, label, kept, strict=True)
            if mask.any()
        ]
        return torch.stack(crops).mean() if crops else logits[:0].sum()

    def _candidates(self, label: Tensor, num_classes: int) -> Tensor:
        r"""Return the classes (B, C, \*spatial) that each background voxel may be."""
        table = torch.zeros(len(self.unannotated), num_classes, dtype=torch.bool)
        for row, ids in enumerate(self.unannotated[1:], start=1):
            table[row, ids] = True
        rows = (-1 - label[:, 0]).clamp_min(0).long()
        return table.to(label.device)[rows].movedim(-1, 1)
