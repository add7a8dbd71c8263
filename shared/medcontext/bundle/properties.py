"""What other programs hand over by MONAI's properties, taken into the keys that the configuration reads."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from medcontext.bundle.workflow import given_keys
from medcontext.data.datalist import write_listed

__all__ = ["channel_labels", "take_properties"]

logger = logging.getLogger(__name__)

EPOCHS, TRAINING, VALIDATION = "train#trainer#max_epochs", "train#dataset#data", "validate#dataset#data"


def take_properties(workflow: ConfigWorkflow) -> None:
    """Take the number of epochs and the cases that were given where MONAI's properties lie.

    MONAI Label, for one, overrides ``train#trainer#max_epochs`` alone, and ``train#dataset#data`` and
    ``validate#dataset#data`` by lists of cases. The number becomes ``max_epochs``, which schedules read too. The lists
    become a ``dataset.json`` below ``home``; their label maps hold the ids of the network, whose names are those in
    ``network_data_format`` of the metadata, unless ``labels`` is given. The trained weights also become the bundle's
    own, from which the other program predicts, unless ``install_dir`` is given.

    Args:
        workflow: workflow of a training run, of which nothing is built yet.

    Raises:
        ValueError: If no case is left to train on, or a case is not an image with a label.
    """
    parser = workflow.parser
    epochs = parser.get(EPOCHS)
    if not _is_expression(epochs):
        parser["max_epochs"], parser[EPOCHS] = epochs, "@max_epochs"
    cases = {name: parser.get(key) for name, key in (("training", TRAINING), ("validation", VALIDATION))}
    lists = {name: items for name, items in cases.items() if not _is_expression(items)}
    if "training" not in lists:
        return
    given = given_keys(workflow)
    home, root = (str(parser.get_parsed_content(key)) for key in ("home", "bundle_root"))
    parser["datalist"] = write_listed(lists["training"], lists.get("validation", []), home)
    parser[TRAINING], parser[VALIDATION] = "@cases#training", "@cases#validation"
    if "validation" in lists:
        parser["validation_cases"] = 0
    labels = channel_labels(parser.get("_meta_") or {})
    if labels and "labels" not in given:
        parser["labels"] = labels
    if "dataset" not in given:
        parser["dataset"] = _folder_name(lists["training"])
    if parser.get("install_dir") is None:
        parser["install_dir"] = str(Path(root) / "models")


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("$", "@", "%"))


def channel_labels(metadata: dict[str, Any]) -> dict[str, int]:
    """Return the names and ids of the labels that a bundle's metadata give to the channels of its output.

    Args:
        metadata: content of ``metadata.json``.

    Example:
        >>> channels = {"0": "background", "1": "right kidney"}
        >>> channel_labels({"network_data_format": {"outputs": {"pred": {"channel_def": channels}}}})
        {'right_kidney': 1}
    """
    outputs: dict[str, Any] = metadata.get("network_data_format", {}).get("outputs", {})
    first: dict[str, Any] = next(iter(outputs.values()), {})
    channels = first.get("channel_def", {})
    named = {re.sub(r"\s+", "_", str(name).strip()): int(channel) for channel, name in channels.items()}
    return {name: channel for name, channel in named.items() if channel}


def _folder_name(cases: list[dict[str, Any]]) -> str:
    """Return the name of the folder that holds the images."""
    folders = {os.path.dirname(os.path.abspath(case["image"])) for case in cases if isinstance(case["image"], str)}
    return Path(os.path.commonpath(folders)).name if folders else "listed"
