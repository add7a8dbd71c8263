"""The Medical Segmentation Decathlon: downloading a task, and reading any dataset in its format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medcontext.checks import check_choice
from medcontext.data.datalist import refuse_unknown_sections
from medcontext.providers.description import described_dataset, find_description, read_object
from medcontext.providers.own import SECTIONS, OwnDataset
from medcontext.storage.archives import Source, leads_out

__all__ = ["download_named_task", "download_task", "read_decathlon"]


def download_task(task: str, folder: str | os.PathLike[str]) -> Path:
    """Download a task's archive unless it exists, and check its hash.

    Args:
        task: the task's name, such as ``Task04_Hippocampus`` (27 MB) or ``Task01_BrainTumour`` (7 GB).
        folder: folder to download the archive to.

    Returns:
        Path of the archive.

    Raises:
        OSError: If it cannot be downloaded.
        ValueError: If its checksum is not the published one.
    """
    from monai.apps import DecathlonDataset, download_url  # takes seconds to import, and only a download needs it
    from monai.apps.utils import HashCheckError

    archive = Path(folder) / f"{task}.tar"
    try:
        download_url(DecathlonDataset.resource[task], archive, DecathlonDataset.md5[task], "md5")
    except HashCheckError as error:
        raise ValueError(
            f"{archive} is not the published archive (its checksum differs); remove it, and try again."
        ) from error
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{archive.name} could not be downloaded ({error}); get it elsewhere and give it as the source."
        ) from error
    if not archive.is_file():
        raise OSError(f"{archive} could not be written; give another folder as the source.")
    return archive


def download_named_task(archive: Path) -> Path:
    """Download the task that a path is named after, such as ``downloads/Task09_Spleen.tar``, see :func:`download_task`.

    Raises:
        ValueError: If there is no such task.
    """
    from monai.apps import DecathlonDataset

    task = check_choice("the name of source", archive.name.removesuffix(".tar"), DecathlonDataset.resource)
    return download_task(task, archive.parent)


def read_decathlon(source: Source) -> OwnDataset:
    """Read a dataset that its ``dataset.json`` lists, as those of the Decathlon do.

    Test cases without labels become unlabelled scans.

    Args:
        source: folder or archive with ``dataset.json``, or one folder above it.

    Returns:
        The dataset, with the paths that ``dataset.json`` has.

    Raises:
        ValueError: If ``dataset.json`` is missing, or is not in the Decathlon's format.
    """
    description = find_description(source)
    content, place = read_object(source, description), f"{description} of {source.path}"
    folder = PurePosixPath(description).parent
    refuse_unknown_sections(content, place)
    if not content.get("training"):
        raise ValueError(f"{place} lists no cases under 'training'; an nnU-Net dataset takes --dataset nnunet.")
    dataset = described_dataset(source, "Decathlon", description, content)
    listed: dict[str, str] = {}
    for section, entry in _entries(content, place):
        images, label = _paths(entry, "image", section, place), _paths(entry, "label", section, place)
        dataset.contradictions += _contradictions(images, label, section, listed, len(dataset.modality))
        listed |= dict.fromkeys(images, section)
        missing = [path for path in (*images, *label) if str(folder / path) not in source.files]
        if missing:
            dataset.incomplete.append(f"a {section} case lacks {', '.join(missing)}")
            continue
        named = {path: str(folder / path) for path in images}
        extras = {key: entry[key] for key in ("fold", "patient", "unannotated") if key in entry}
        dataset.add(section, named, (label[0], str(folder / label[0])) if label else None, **extras)
    return dataset


def _contradictions(
    images: list[str], label: list[str], section: str, listed: dict[str, str], channels: int
) -> list[str]:
    problems = [
        f"{path} is listed under {listed[path]} and under {section}; list each case once."
        for path in images
        if path in listed
    ]
    if len(images) not in (1, channels):
        problems.append(f"{images[0]} is one of {len(images)} files, but modality names {channels} channels.")
    if len(label) > 1:
        problems.append(f"{images[0]} has {len(label)} labels; list one.")
    return problems


def _entries(content: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield section and entry of each case; one that is only a path has no label."""
    for section in SECTIONS:
        entries = content.get(section) or []
        if not isinstance(entries, list):
            raise ValueError(f"{section} of {place} must be a list of cases, got {type(entries).__name__}.")
        for entry in entries:
            case = {"image": entry} if isinstance(entry, str) else entry
            if not isinstance(case, dict) or not case.get("image"):
                raise ValueError(f"{section} of {place} must give each case a path under 'image', got {entry!r}.")
            yield section, case


def _paths(entry: dict[str, Any], key: str, section: str, place: str) -> list[str]:
    """Return the paths below the folder of the image or the label of a case, none if it has none."""
    value = entry.get(key) or []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{section} of {place} must give a path under {key!r}, got {value!r}.")
    outside = [name for name in names if leads_out(name)]
    if outside:
        raise ValueError(f"{section} of {place} names {outside[0]!r}, which leads out of its folder; move it there.")
    return [PurePosixPath(name.replace("\\", "/")).as_posix() for name in names]
