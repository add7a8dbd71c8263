"""Learning from the teacher's predictions where there is no label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcontext.checks import check_fraction

__all__ = ["PseudoLabelLoss", "pseudo_label_loss"]


def pseudo_label_loss(
    teacher: Tensor, student: Tensor, confidence: Sequence[float] | float = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Return cross entropy plus soft Dice of the student against the teacher's labels, where the teacher is confident.

    A voxel counts where the probability of the teacher's class reaches the threshold of that class. With
    :math:`w_v \in \{0, 1\}` saying so, :math:`\hat y` the teacher's label and :math:`q` the student's probabilities:

    .. math::
        L = \frac{1}{V} \sum_v -w_v \log q_{v, \hat y_v} + 1 -
            \operatorname{mean}_c \frac{2 \sum_v w_v q_{vc} \hat y_{vc}}{\sum_v w_v (q_{vc} + \hat y_{vc})}

    The cross entropy is divided by all V voxels, so that few confident voxels weigh little. Dice is averaged over the
    foreground classes that the teacher finds in the batch, and left out where it finds none.

    Args:
        teacher: logits (B, C, \*spatial), treated as constants.
        student: logits of the same shape.
        confidence: threshold within [0, 1], one for all classes or one for each of the C.

    Returns:
        The loss and the share of confident voxels, both scalar tensors in float32 at least.

    Source: confidence thresholds of Sohn et al., FixMatch, NeurIPS 2020, on segmentation as in Yang et al., UniMatch,
    CVPR 2023; Dice is added, as usual in medical segmentation.

    Example:
        >>> teacher = torch.tensor([[[0.0, 4.0], [4.0, 4.0]]])  # sure of the first of two voxels
        >>> loss, confident = pseudo_label_loss(teacher, teacher, confidence=0.9)
        >>> confident
        tensor(0.5000)
    """
    t = teacher.detach().to(torch.promote_types(teacher.dtype, torch.float32))
    s = student.to(t.dtype)
    certainty, label = t.softmax(1).max(1)
    threshold = torch.as_tensor(confidence, dtype=t.dtype).to(t.device, non_blocking=True)
    weight = (certainty >= (threshold[label] if threshold.ndim else threshold)).to(t.dtype)
    entropy = (F.cross_entropy(s, label, reduction="none") * weight).mean()
    axes = [0, *range(2, t.ndim)]
    target = F.one_hot(label, t.shape[1]).movedim(-1, 1).to(t.dtype) * weight[:, None]
    overlap = (s.softmax(1) * target).sum(axes)[1:]
    sizes = (s.softmax(1) * weight[:, None] + target).sum(axes)[1:]
    seen = (target.sum(axes)[1:] > 0).to(t.dtype)
    dice = (1 - 2 * overlap / sizes.clamp_min(torch.finfo(t.dtype).tiny)) * seen
    return entropy + dice.sum() / seen.sum().clamp_min(1), weight.mean()


def check_thresholds(confidence: float | Sequence[float], num_classes: int) -> None:
    """Refuse several thresholds that are not one for each class.

    Args:
        confidence: one threshold for all classes, or several.
        num_classes: number of classes, background included.

    Raises:
        ValueError: If there are several thresholds, but not as many as classes.
    """
    if isinstance(confidence, Sequence) and len(confidence) != num_classes:
        raise ValueError(
            f"confidence has {len(confidence)} thresholds for {num_classes} classes, background included: give one "
            "for each, or one number for all."
        )


class PseudoLabelLoss(nn.Module):
    """The term of unlabelled crops as a module; see :func:`pseudo_label_loss` for the equation.

    Args:
        confidence: probability of the teacher's class from which a voxel counts, within [0, 1]: one for all classes,
            or one for each, background first.

    Raises:
        TypeError: If ``confidence`` is neither a number nor a list of numbers.
        ValueError: If a threshold lies outside [0, 1].

    Example:
        >>> loss = PseudoLabelLoss(confidence=[0.5, 0.9, 0.9])
        >>> value, confident = loss(torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 3, 4, 4, 4))
        >>> value, confident
        (tensor(0.), tensor(0.))
    """

    def __init__(self, confidence: float | Sequence[float] = 0.0) -> None:
        super().__init__()
        thresholds = [confidence] if isinstance(confidence, (int, float)) else list(confidence)
        for value in thresholds:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"confidence must be a number or a list of numbers, got {confidence!r}.")
            check_fraction("confidence", value, remedy="give a probability, such as 0.9")
        self.confidence = confidence

    def forward(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the loss of logits (B, C, \*spatial), and the share of voxels that count.

        Raises:
            ValueError: If there are several thresholds, but not one for each of the C classes.
        """
        check_thresholds(self.confidence, teacher.shape[1])
        return pseudo_label_loss(teacher, student, self.confidence)
