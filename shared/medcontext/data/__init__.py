"""Datasets: reading, checking and generating them."""

from __future__ import annotations

from medcontext.data.caching import cached_dataset
from medcontext.data.check import Problem, check_cases, check_dataset, check_images, problems_table
from medcontext.data.datalist import (
    case_files,
    case_name,
    data_hash,
    describe_cases,
    load_cases,
    load_datalist,
    load_listed,
)
from medcontext.data.datasets import (
    ACDC_LABELS,
    BRATS_CHANNELS,
    BRATS_LABELS,
    BTCV_LABELS,
    HIPPOCAMPUS_LABELS,
    btcv_labels,
    load_split,
    synapse_organs,
)
from medcontext.data.images import list_images
from medcontext.data.label_mapping import count_classes, label_mapping, label_names
from medcontext.data.phantom_acdc import make_acdc_phantom
from medcontext.data.phantom_brats import make_brats_phantom
from medcontext.data.phantom_btcv import make_btcv_phantom
from medcontext.data.phantom_hippocampus import make_hippocampus_phantom
from medcontext.data.phantom_sketch import Phantom
from medcontext.data.phantoms import write_phantoms
from medcontext.data.sides import sided_axes, sided_labels
from medcontext.data.unlabeled import PairedDataset, load_unlabeled, pair_unlabeled

__all__ = [
    "ACDC_LABELS",
    "BRATS_CHANNELS",
    "BRATS_LABELS",
    "BTCV_LABELS",
    "PairedDataset",
    "HIPPOCAMPUS_LABELS",
    "Phantom",
    "btcv_labels",
    "cached_dataset",
    "Problem",
    "case_files",
    "case_name",
    "check_cases",
    "check_dataset",
    "check_images",
    "count_classes",
    "data_hash",
    "describe_cases",
    "label_mapping",
    "label_names",
    "list_images",
    "load_cases",
    "load_datalist",
    "load_listed",
    "load_split",
    "load_unlabeled",
    "make_acdc_phantom",
    "make_brats_phantom",
    "make_btcv_phantom",
    "pair_unlabeled",
    "make_hippocampus_phantom",
    "problems_table",
    "sided_axes",
    "sided_labels",
    "synapse_organs",
    "write_phantoms",
]
