"""Consistency between the teacher's prediction on the whole image and the student's on the masked one."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn

from medcontext.checks import check_choice

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
    r"""Return the distance of the student's logits from the teacher's.

    With :math:`t` the teacher's and :math:`\tilde p` the student's logits, N values per sample and V voxels:

    - ``official``: :math:`\operatorname{mean}((t-\tilde p)^2) / \lVert t \rVert_2`, over the whole batch. It shrinks
      with the square root of the number of voxels and hardly acts at usual crop sizes.
    - ``relative``: :math:`\lVert t-\tilde p \rVert_2^2 / \lVert t \rVert_2^2` per sample, averaged over the batch.
    - ``probability_mse``: mean squared difference of the softmax outputs.
    - ``probability_kl``: :math:`\frac1V\sum_v \mathrm{KL}(\operatorname{softmax} t_v \,\Vert\,
      \operatorname{softmax} \tilde p_v)`.

    Args:
        teacher: logits (B, C, \*spatial), treated as constants.
        student: logits of the same shape.
        form: one of the above.
        context_mask: (B, 1, \*spatial), 1 where the predictions are compared; ``None`` compares them everywhere. The
            loss is 0 where nothing is marked.

    Returns:
        A scalar tensor, computed in float32 at least.

    Example:
        >>> teacher, student = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> consistency_loss(teacher, student, form=ConsistencyForm.RELATIVE)
        tensor(0.2500)
        >>> consistency_loss(teacher, student, form=ConsistencyForm.PROBABILITY_KL).round(decimals=3)
        tensor(0.0670)
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
    """The consistency term of MedContext as a module; see :func:`consistency_loss` for the equations.

    Args:
        form: ``official``, ``relative``, ``probability_mse`` or ``probability_kl``. The default measured best on
            phantoms (three seeds, three training cases), if by less than seeds differ.
        region: ``all`` voxels or the dropped ``context`` alone.

    Raises:
        ValueError: If ``form`` or ``region`` is unknown.

    Source: Gani et al., MedContext, MICCAI 2024 (arXiv 2402.17725) for ``official``; the others are scale-free
    variants.

    Example:
        >>> loss = ConsistencyLoss(form="relative", region="context")
        >>> teacher, student = torch.ones(1, 2, 4, 4, 4), torch.zeros(1, 2, 4, 4, 4)
        >>> loss(teacher, student, context_mask=torch.ones(1, 1, 4, 4, 4))
        tensor(1.)
    """

    def __init__(self, form: str = ConsistencyForm.PROBABILITY_KL, region: str = ConsistencyRegion.ALL) -> None:
        super().__init__()
        self.form = ConsistencyForm(check_choice("form", form, ConsistencyForm))
        self.region = ConsistencyRegion(check_choice("region", region, ConsistencyRegion))

    def forward(self, teacher: Tensor, student: Tensor, context_mask: Tensor | None = None) -> Tensor:
        r"""Compare logits (B, C, \*spatial), with ``region="context"`` where ``context_mask`` (B, 1, \*spatial) is 1.

        Raises:
            ValueError: If the region is ``context`` and no mask is given.
        """
        if self.region is ConsistencyRegion.ALL:
            context_mask = None
        elif context_mask is None:
            raise ValueError("ConsistencyLoss(region='context') needs a context_mask; pass it or use region='all'.")
        return consistency_loss(teacher, student, form=self.form, context_mask=context_mask)
