"""MedContext transforms."""

from __future__ import annotations

from medcontext.transforms.organ_dropout import RandOrganDropout, RandOrganDropoutd
from medcontext.transforms.patch_dropout import RandPatchDropout, RandPatchDropoutd

__all__ = ["RandOrganDropout", "RandOrganDropoutd", "RandPatchDropout", "RandPatchDropoutd"]
