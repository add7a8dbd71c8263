"""MedContext transforms."""

from __future__ import annotations

from medcontext.transforms.annotated_crops import AnnotatedClassesToIndicesd, RandCropByAnnotatedPosNegd
from medcontext.transforms.augmentation import mirrored_axes, rotation_range
from medcontext.transforms.batch_organ_dropout import BatchOrganDropout
from medcontext.transforms.organ_dropout import RandOrganDropout, RandOrganDropoutd
from medcontext.transforms.patch_dropout import RandPatchDropout, RandPatchDropoutd

__all__ = [
    "AnnotatedClassesToIndicesd",
    "BatchOrganDropout",
    "RandCropByAnnotatedPosNegd",
    "RandOrganDropout",
    "RandOrganDropoutd",
    "RandPatchDropout",
    "RandPatchDropoutd",
    "mirrored_axes",
    "rotation_range",
]
