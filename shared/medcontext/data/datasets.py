"""Label tables and published splits of the datasets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, TypeAlias

from medcontext.checks import check_choice

__all__ = [
    "ACDC_LABELS",
    "BRATS_CHANNELS",
    "BRATS_LABELS",
    "BTCV_LABELS",
    "HIPPOCAMPUS_LABELS",
    "PHANTOM_MARKER",
    "UNLABELED",
    "Split",
    "btcv_labels",
    "load_split",
    "synapse_organs",
]

BTCV_LABELS: dict[int, str] = {
    0: "background",
    1: "spleen",
    2: "right_kidney",
    3: "left_kidney",
    4: "gallbladder",
    5: "esophagus",
    6: "liver",
    7: "stomach",
    8: "aorta",
    9: "inferior_vena_cava",
    10: "portal_and_splenic_vein",
    11: "pancreas",
    12: "right_adrenal_gland",
    13: "left_adrenal_gland",
}
"""BTCV's label ids and their names (Synapse ``syn3193805``, 13 organs in the challenge's order)."""

ACDC_LABELS: dict[int, str] = {0: "background", 1: "right_ventricle", 2: "myocardium", 3: "left_ventricle"}
"""ACDC's label ids and their names; the ventricles are their cavities, papillary muscles included."""

BRATS_LABELS: dict[int, str] = {0: "background", 1: "edema", 2: "non_enhancing_tumor", 3: "enhancing_tumor"}
"""Label ids and names of the Medical Segmentation Decathlon's Task01; the BraTS challenges number them differently."""

BRATS_CHANNELS: dict[int, str] = {0: "FLAIR", 1: "T1w", 2: "T1gd", 3: "T2w"}
"""Channels of the Medical Segmentation Decathlon's Task01, in its order."""

HIPPOCAMPUS_LABELS: dict[int, str] = {0: "background", 1: "anterior", 2: "posterior"}
"""Label ids and names of the Medical Segmentation Decathlon's Task04: head, and body with tail."""

UNLABELED = "unlabeled"
"""The section of ``dataset.json`` that lists images without labels."""

PHANTOM_MARKER = ".phantoms-unfinished.json"
"""Name of the file that marks a folder of generated cases until it has its ``dataset.json``."""

Split: TypeAlias = dict[str, list[str]]
"""Case ids by section of ``dataset.json``."""

_SPLIT_NAMES = {"btcv": "synapse", "acdc": "acdc", "brats": "brats", "hippocampus": "hippocampus"}


def load_split(dataset: str) -> Split:
    """Return the published split of a dataset.

    Args:
        dataset: ``"btcv"``, ``"acdc"``, ``"brats"`` or ``"hippocampus"``.

    Returns:
        Case ids by part: ``training``, ``validation`` (empty where none is published) and ``test``. For the hippocampus
        the test cases alone: all other labelled cases are for training.

    Raises:
        ValueError: If the dataset is unknown.
    """
    split = _published(check_choice("dataset", dataset, _SPLIT_NAMES))
    return {part: list(split.get(part, [])) for part in ("training", "validation", "test")}


def _published(dataset: str) -> dict[str, Any]:
    content = json.loads(resources.files(__package__).joinpath("splits.json").read_text(encoding="utf-8"))
    split: dict[str, Any] = content[_SPLIT_NAMES[dataset]]
    return split


def btcv_labels(organs: int = 13) -> dict[str, int]:
    """Return names and ids of the organs that a network learns from BTCV.

    Args:
        organs: 13 for all, under BTCV's own ids; or 8 for those that are reported for Synapse, numbered from 1.

    Raises:
        ValueError: If ``organs`` is neither.
    """
    if organs == 13:
        return {name: index for index, name in BTCV_LABELS.items() if index}
    if organs != 8:
        raise ValueError(f"organs must be 13, or 8 for those that are reported for Synapse, got {organs!r}.")
    return {name: index for index, name in enumerate(synapse_organs(btcv_labels()), start=1)}


def synapse_organs(labels: Mapping[str, int]) -> dict[str, int]:
    """Return the labels that are reported for Synapse, its eight organs, or all labels if one of these is missing."""
    organs = _published("btcv")["evaluated_labels"]
    reported = {name: index for name, index in labels.items() if name in organs}
    return reported if len(reported) == len(organs) else dict(labels)
