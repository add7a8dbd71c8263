"""Consistency between the teacher's view of the whole image and the student's view of the masked one."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn

__all__ = ["ConsistencyForm", "ConsistencyLoss", "ConsistencyRegion", "consistency_loss"]


class ConsistencyForm(StrEnum):
    """How the two predictions are compared."""

    OFFICIAL = "official"
    RELATIVE = "relative"
    PROBABILITY_MSE = "probability_mse"
    PROBABILITY_KL = "probability_kl"


class ConsistencyRegion(StrEnum):
    """Where the two predictions are compared."""

    ALL = "all"
    CONTEXT = "context"


def consistency_loss(
    teacher: Tensor, student: Tensor, *, form: ConsistencyForm, context_mask: Tensor | None = None
) -> Tensor:
    r"""Distance of the student's logits from the teacher's.

    With :math:`t` the teacher's and :math:`\tilde p` the student's logits, N values per sample and V voxels:

    - ``official``: :math:`\operatorname{mean}((t-\tilde p)^2) / \lVert t \rVert_2`, over the whole batch. It shrinks
      with the square root of the number of voxels and is nearly inactive at usual crop sizes.
    - ``relative``: :math:`\lVert t-\tilde p \rVert_2^2 / \lVert t \rVert_2^2` per sample, averaged over the batch.
    - ``probability_mse``: mean squared difference of the softmax outputs.
    - ``probability_kl``: :math:`\frac1V\sum_v \mathrm{KL}(\operatorname{softmax} t_v \,\Vert\,
      \operatorname{softmax} \tilde p_v)`.

    Args:
        teacher: logits (B, C, \*spatial), treated as constants.
        student: logits of the same shape.
        form: which of the above.
        context_mask: (B, 1, \*spatial), 1 where the comparison counts; ``None`` compares everywhere. Where nothing is
            marked the loss is 0.

    Returns:
        A scalar tensor, computed in float32 at least.
    """
    t = teacher.detach().to(torch.promote_types(teacher.dtype, torch.float32))
    s = student.to(t.dtype)
    mask = torch.ones_like(t[:, :1]) if context_mask is None else context_mask.to(t)
    tiny = torch.finfo(t.dtype).tiny
    if form is ConsistencyForm.OFFICIAL:
        mean_square = ((t - s).square() * mask).sum() / (mask.sum() * t.shape[1]).clamp_min(1)
        return mean_square / (t.square() * mask).sum().sqrt().clamp_min(tiny)
    if form is ConsistencyForm.RELATIVE:
        difference = ((t - s).square() * mask).flatten(1).sum(1)
        return (difference / (t.square() * mask).flatten(1).sum(1).clamp_min(tiny)).mean()
    voxels = mask.sum().clamp_min(1)
    if form is ConsistencyForm.PROBABILITY_MSE:
        return ((t.softmax(1) - s.softmax(1)).square() * mask).sum() / (voxels * t.shape[1])
    log_t = t.log_softmax(1)
    return (log_t.exp() * (log_t - s.log_softmax(1)) * mask).sum() / voxels


class ConsistencyLoss(nn.Module):
    """The consistency term of MedContext as a module; the equations are at :func:`consistency_loss`.

    Args:
        form: ``official``, ``relative``, ``probability_mse`` or ``probability_kl``. The default measured best on
            phantoms (three seeds, three training cases), if by less than seeds differ.
        region: ``all`` voxels or the dropped ``context`` alone.

    Raises:
        ValueError: When ``form`` or ``region`` is none of these.

    Source: Gani et al., MedContext, MICCAI 2024 (arXiv 2402.17725) for ``official``; the others are its scale-free
    relatives.
    """

    def __init__(self, form: str = ConsistencyForm.PROBABILITY_KL, region: str = ConsistencyRegion.ALL) -> None:
        super().__init__()
        for value, choices in ((form, ConsistencyForm), (region, ConsistencyRegion)):
            if value not in list(choices):
                raise ValueError(f"{choices.__name__} must be one of {[str(c) for c in choices]}, got {value!r}.")
        self.form = ConsistencyForm(form)
        self.region = ConsistencyRegion(region)

    def forward(self, teacher: Tensor, student: Tensor, context_mask: Tensor | None = None) -> Tensor:
        r"""Compare (B, C, \*spatial) logits, where ``context_mask`` (B, 1, \*spatial) says if the region asks for it.

        Raises:
            ValueError: When the region is ``context`` and no mask was given.
        """
        if self.region is ConsistencyRegion.ALL:
            context_mask = None
        elif context_mask is None:
            raise ValueError("ConsistencyLoss(region='context') needs a context_mask; pass it or use region='all'.")
        return consistency_loss(teacher, student, form=self.form, context_mask=context_mask)
