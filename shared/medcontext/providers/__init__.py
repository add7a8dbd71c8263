"""Preparation of the providers' downloads for training."""

from __future__ import annotations

from medcontext.providers.prepare import prepare_dataset

__all__ = ["prepare_dataset"]
