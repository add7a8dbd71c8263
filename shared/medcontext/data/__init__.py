"""Datasets: reading, checking and generating them."""

from __future__ import annotations

from medcontext.data.check import check_cases
from medcontext.data.datalist import data_hash, load_cases, load_datalist
from medcontext.data.datasets import BTCV_LABELS, load_split

__all__ = [
    "BTCV_LABELS",
    "check_cases",
    "data_hash",
    "load_cases",
    "load_datalist",
    "load_split",
]
