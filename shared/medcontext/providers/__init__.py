"""Preparation of the providers' downloads, and of one's own data, for training."""

from __future__ import annotations

from medcontext.providers.choice import prepare_data
from medcontext.providers.importing import import_dataset
from medcontext.providers.prepare import prepare_dataset

__all__ = ["import_dataset", "prepare_data", "prepare_dataset"]
