"""The choice between the providers' datasets and the forms of one's own data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from medcontext.checks import check_choice
from medcontext.providers.importing import FORMATS, import_dataset
from medcontext.providers.prepare import EDITIONS, prepare_dataset

__all__ = ["prepare_data"]

_OF_PROVIDERS = ("source", "link", "allow_missing", "download")
_OF_OWN = ("test_cases", "keep_unlabeled", "allow_missing")
OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(EDITIONS, _OF_PROVIDERS),
    "nnunet": ("source", *_OF_OWN),
    "decathlon": ("source", "download", *_OF_OWN),
    "folder": ("images", "labels", "modality", "label_names", *_OF_OWN),
}
"""The options that each choice of ``dataset`` takes, beside ``output_dir``."""

REQUIRED = {"source", "images", "labels", "modality"}


def prepare_data(dataset: str, output_dir: str | os.PathLike[str], **options: Any) -> Path:
    """Prepare a provider's dataset or one's own data, see :func:`prepare_dataset` and :func:`import_dataset`.

    Args:
        dataset: name of a provider's dataset, or the form of one's own data.
        output_dir: folder of the dataset.
        options: options of either function; those that are not given are ``None``, ``False`` or 0.

    Returns:
        Path of the ``dataset.json``.

    Raises:
        ValueError: If the dataset is unknown, or an option does not apply to it or is missing.
    """
    taken = OPTIONS[check_choice("dataset", dataset, OPTIONS)]
    given = {name: value for name, value in options.items() if value}
    for name in given:
        if name not in taken:
            raise ValueError(
                f"--dataset {dataset} does not take --{name}, but {', '.join(f'--{one}' for one in taken)}."
            )
    missing = [f"--{name}" for name in taken if name in REQUIRED and name not in given]
    if missing:
        raise ValueError(f"--dataset {dataset} needs {' and '.join(missing)}.")
    if dataset in FORMATS:
        return import_dataset(dataset, output_dir, **given)
    return prepare_dataset(dataset, given.pop("source"), output_dir, **given)
