"""Datasets: reading, checking and generating them."""

from __future__ import annotations

from medcontext.data.caching import cached_dataset
from medcontext.data.check import check_cases
from medcontext.data.datalist import data_hash, list_images, load_cases, load_datalist
from medcontext.data.datasets import BTCV_LABELS, load_split
from medcontext.data.phantom_btcv import Phantom, make_btcv_phantom
from medcontext.data.phantoms import write_phantoms

__all__ = [
    "BTCV_LABELS",
    "Phantom",
    "cached_dataset",
    "check_cases",
    "data_hash",
    "list_images",
    "load_cases",
    "load_datalist",
    "load_split",
    "make_btcv_phantom",
    "write_phantoms",
]
