"""Names of the entries that MedContext adds to batches and engine outputs."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["MedContextKeys"]


class MedContextKeys(StrEnum):
    """Keys in addition to MONAI's ``CommonKeys`` (``image``, ``label``, ``pred``, ``loss``).

    ``MASKED_IMAGE`` is the image with the context dropped, and ``CONTEXT_MASK`` marks dropped (1) and kept (0) voxels.
    ``UNLABELED_IMAGE`` is an unlabelled crop as the teacher sees it, ``UNLABELED_STRONG`` the same crop augmented for
    the student. ``MASKED_PRED`` and ``TEACHER_PRED`` are the student's logits on the masked image and the teacher's on
    the whole image. ``AGREEMENT`` is the Dice of a prediction and those that it should agree with (L, F), by label and
    comparison. The others are scalars of one step.
    """

    MASKED_IMAGE = "masked_image"
    CONTEXT_MASK = "context_mask"
    UNLABELED_IMAGE = "unlabeled_image"
    UNLABELED_STRONG = "unlabeled_strong"
    MASKED_PRED = "masked_pred"
    TEACHER_PRED = "teacher_pred"
    AGREEMENT = "agreement"
    LOSS_SUPERVISED = "loss_supervised"
    LOSS_CONTEXT = "loss_context"
    LOSS_CONSISTENCY = "loss_consistency"
    LOSS_UNLABELED = "loss_unlabeled"
    MASKED_FRACTION = "masked_fraction"
    CONFIDENT_FRACTION = "confident_fraction"
