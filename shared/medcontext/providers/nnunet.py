"""Datasets in nnU-Net's raw format: one file for each channel, and a ``dataset.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from medcontext.providers.description import described_dataset, find_description, read_object
from medcontext.providers.own import ENDINGS, OwnDataset, content_in_words
from medcontext.storage.archives import Source

__all__ = ["read_nnunet"]

PARTS = {"Tr": "training", "Ts": "test"}


def read_nnunet(source: Source) -> OwnDataset:
    """Read a dataset of nnU-Net, of version 1 or 2.

    Cases of ``imagesTs`` are test cases where ``labelsTs`` has their label, else unlabelled scans.

    Args:
        source: folder or archive with ``dataset.json``, ``imagesTr`` and ``labelsTr``, or one folder above it.

    Returns:
        The dataset. The file of a single channel loses its number, so that the case is named as its label is.

    Raises:
        ValueError: If it is none, or ``dataset.json`` is not as nnU-Net reads it.
    """
    description = find_description(source)
    content, place = read_object(source, description), f"{description} of {source.path}"
    folder = PurePosixPath(description).parent
    if "dataset" in content:
        raise ValueError(f"{place} lists files elsewhere, under 'dataset'; put them into imagesTr and labelsTr.")
    ending = _file_ending(content, place)
    dataset = described_dataset(source, "nnU-Net", description, content)
    training: set[str] = set()
    for part, section in PARTS.items():
        images, others = _images(source, folder / f"images{part}", ending)
        labels = _files(source, folder / f"labels{part}", ending)
        if part == "Tr" and not images:
            raise ValueError(
                f"{source.path} has no file {folder / 'imagesTr'}/CASE_0000{ending} (nnU-Net's layout, the file_ending "
                f"of dataset.json); {content_in_words(others)}. A Decathlon folder takes --dataset decathlon."
            )
        twice = sorted(training & images.keys())
        dataset.contradictions += [f"{case} is in imagesTr and in imagesTs; remove one." for case in twice]
        training |= images.keys()
        _add_cases(dataset, part, section, ending, images, labels)
        dataset.left_out += [f"{name}: belongs to no case" for name in others]
    return dataset


def _file_ending(content: Mapping[str, Any], place: str) -> str:
    ending = content.get("file_ending", ".nii.gz")
    if ending not in ENDINGS:
        raise ValueError(
            f"file_ending of {place} must be one of {', '.join(ENDINGS)}, got {ending!r}; convert the files."
        )
    return str(ending)


def _files(source: Source, folder: PurePosixPath, ending: str) -> dict[str, str]:
    """Return the names of the files of an ending in a folder, by the name without it."""
    names = [name for name in source.files if PurePosixPath(name).parent == folder and name.endswith(ending)]
    return {PurePosixPath(name).name.removesuffix(ending): name for name in names}


def _images(source: Source, folder: PurePosixPath, ending: str) -> tuple[dict[str, dict[int, str]], list[str]]:
    """Return the names of the channels' files by case, and of all other files in the folder."""
    cases: dict[str, dict[int, str]] = {}
    for stem, name in _files(source, folder, ending).items():
        if match := re.fullmatch(r"(.+)_(\d{4})", stem):
            cases.setdefault(match[1], {})[int(match[2])] = name
    used = {name for channels in cases.values() for name in channels.values()}
    return cases, [name for name in source.files if PurePosixPath(name).parent == folder and name not in used]


def _add_cases(
    dataset: OwnDataset,
    part: str,
    section: str,
    ending: str,
    images: Mapping[str, Mapping[int, str]],
    labels: Mapping[str, str],
) -> None:
    channels = list(dataset.modality)
    for case in sorted(images.keys() | labels.keys()):
        files = images.get(case, {})
        dataset.contradictions += [
            f"{name} is a channel that channel_names, which has {len(channels)}, does not name; name or remove it."
            for channel, name in files.items()
            if channel not in channels
        ]
        missing = [f"images{part}/{case}_{channel:04d}{ending}" for channel in channels if channel not in files]
        if missing:
            dataset.incomplete.append(f"{case} lacks {', '.join(missing)}")
            continue
        numbers = [f"_{channel:04d}" for channel in channels] if len(channels) > 1 else [""]
        targets = [f"images{part}/{case}{number}{ending}" for number in numbers]
        named = dict(zip(targets, (files[channel] for channel in channels), strict=True))
        dataset.add(section, named, (f"labels{part}/{case}{ending}", labels[case]) if case in labels else None)
