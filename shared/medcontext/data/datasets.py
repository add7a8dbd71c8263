"""The datasets' label tables and published splits, in one place."""

from __future__ import annotations

import json
from importlib import resources

__all__ = ["ACDC_LABELS", "BRATS_LABELS", "BTCV_LABELS", "load_split"]

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
"""ACDC's label ids and their names."""

BRATS_LABELS: dict[int, str] = {0: "background", 1: "edema", 2: "non_enhancing_tumor", 3: "enhancing_tumor"}
"""Label ids of the Medical Segmentation Decathlon's Task01 and their names; the BraTS challenges have others."""

_SPLIT_NAMES = {"btcv": "synapse", "acdc": "acdc", "brats": "brats"}


def load_split(dataset: str) -> dict[str, list[str]]:
    """Published split of a dataset.

    Args:
        dataset: ``"btcv"``, ``"acdc"`` or ``"brats"``.

    Returns:
        Case ids by part: ``training``, ``validation`` (empty where none is published) and ``test``.

    Raises:
        ValueError: when the dataset is unknown.
    """
    if dataset not in _SPLIT_NAMES:
        raise ValueError(f"dataset must be one of {sorted(_SPLIT_NAMES)}, got {dataset!r}.")
    published = json.loads(resources.files(__package__).joinpath("splits.json").read_text(encoding="utf-8"))
    split = published[_SPLIT_NAMES[dataset]]
    return {part: list(split.get(part, [])) for part in ("training", "validation", "test")}
