"""Reading, checking and splitting datasets."""

from __future__ import annotations

from medcontext.data.caching import cached_dataset
from medcontext.data.check import (
    Problem,
    check_cases,
    check_dataset,
    check_images,
    check_memory,
    errors_of,
    problems_table,
)
from medcontext.data.datalist import (
    case_files,
    case_name,
    data_hash,
    describe_cases,
    label_mapping,
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
from medcontext.data.partial import MarkUnannotatedd, unannotated_labels
from medcontext.data.plausibility import CheckImaged, ImageValueError
from medcontext.data.sampling import EpochSampler, SeededDataset, derived_seed, start_loader
from medcontext.data.sides import sided_axes, sided_labels
from medcontext.data.unlabeled import PairedDataset, load_unlabeled, pair_unlabeled
from medcontext.labels import count_classes

__all__ = [
    "ACDC_LABELS",
    "BRATS_CHANNELS",
    "BRATS_LABELS",
    "BTCV_LABELS",
    "CheckImaged",
    "EpochSampler",
    "ImageValueError",
    "MarkUnannotatedd",
    "PairedDataset",
    "SeededDataset",
    "HIPPOCAMPUS_LABELS",
    "btcv_labels",
    "cached_dataset",
    "Problem",
    "case_files",
    "case_name",
    "check_cases",
    "check_dataset",
    "check_images",
    "check_memory",
    "errors_of",
    "count_classes",
    "data_hash",
    "derived_seed",
    "describe_cases",
    "label_mapping",
    "list_images",
    "load_cases",
    "load_datalist",
    "load_listed",
    "load_split",
    "load_unlabeled",
    "pair_unlabeled",
    "problems_table",
    "sided_axes",
    "sided_labels",
    "start_loader",
    "synapse_organs",
    "unannotated_labels",
]
