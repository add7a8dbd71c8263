"""Datasets as their providers hand them out, brought into the form that the bundles train on."""

from __future__ import annotations

from medcontext.providers.prepare import prepare_dataset

__all__ = ["prepare_dataset"]
