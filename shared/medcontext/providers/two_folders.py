"""Images in one folder and label maps in another, paired by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medcontext.data.voxels import read_voxels
from medcontext.providers.description import names_by_id
from medcontext.providers.own import ENDINGS, OwnDataset, content_in_words, stem_of
from medcontext.storage.archives import Source, SourceFile, open_source

__all__ = ["read_folders"]

LABEL_SUFFIX = re.compile(r"[_-](seg|label|mask|gt)$", re.IGNORECASE)
CHANNEL = re.compile(r"(.+)_(\d{4})")
MOST_LABELS = 255  # more values in a label map are those of an image


def read_folders(
    images: Path, labels: Path, modality: str | Sequence[str], label_names: Mapping[str, int] | None = None
) -> OwnDataset:
    """Read images and label maps that have the same names.

    Endings do not count, nor does ``_seg``, ``_label``, ``_mask`` or ``_gt`` at the end of a label's name. Where no
    label has the name of an image, numbers of four digits at the end of the images' names (``_0000``) are those of
    channels. Folders below are not searched.

    Args:
        images: folder of the images.
        labels: folder of the label maps; if it is the same, those are told by the end of their name.
        modality: name of the channel, or of each, separated by commas.
        label_names: ids by name; by default the ids that the label maps hold become ``label_1`` and so on.

    Returns:
        The dataset, with the paths ``images/…`` and ``labels/…``.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a folder holds no volume, a name is ambiguous, or labels are none.
    """
    channels = _channels(modality)
    image_files, label_files, left_out = _listed(images, labels)
    files = {f"images/{name}": file for name, file in image_files.items()}
    files |= {f"labels/{name}": file for name, file in label_files.items()}
    source = _source(images, files)
    paired, contradictions = _labels_by_case(label_files, {str(stem_of(name)) for name in image_files})
    cases, more = _images_by_case(image_files, paired, len(channels))
    dataset = OwnDataset(
        source=source,
        edition=f"folders {images.resolve()} and {labels.resolve()}",
        name=images.resolve().parent.name,
        modality=channels,
        labels={},
        contradictions=contradictions + more,
        left_out=left_out,
    )
    for case in sorted(cases.keys() | paired.keys()):
        _add_case(dataset, case, cases.get(case, {}), paired.get(case))
    if not dataset.contradictions:
        names = [str(file.path) for file in label_files.values()]
        dataset.labels = names_by_id(label_names or _found_labels(names), "label_names")
        dataset.unnamed = not label_names
    return dataset


def _channels(modality: str | Sequence[str]) -> dict[int, str]:
    names = modality.split(",") if isinstance(modality, str) else list(modality)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"modality must name the channels, such as CT or 'T1,FLAIR', got {modality!r}.")
    return {channel: name.strip() for channel, name in enumerate(names)}


def _listed(images: Path, labels: Path) -> tuple[dict[str, SourceFile], dict[str, SourceFile], list[str]]:
    """Return the volumes of both folders by file name, and the other files with the reason."""
    for option, folder in {"images": images, "labels": labels}.items():
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}; give the folder of the {option} as --{option}.")
    image_files, other_images = _volumes(images)
    label_files, other_labels = _volumes(labels)
    if images.samefile(labels):
        label_files = {name: file for name, file in image_files.items() if LABEL_SUFFIX.search(str(stem_of(name)))}
        image_files = {name: file for name, file in image_files.items() if name not in label_files}
        other_labels = []
    for folder, found in ((images, image_files), (labels, label_files)):
        if not found:
            with open_source(folder) as source:
                raise ValueError(
                    f"{folder} holds no volume ({', '.join(ENDINGS)}); {content_in_words(list(source.files))}. Put the "
                    "volumes directly into it, and convert other formats."
                )
    reason = f"no volume ({', '.join(ENDINGS)}) directly in the folder"
    return image_files, label_files, [f"{name}: {reason}" for name in (*other_images, *other_labels)]


def _volumes(folder: Path) -> tuple[dict[str, SourceFile], list[str]]:
    with open_source(folder) as source:
        volumes = {name: file for name, file in source.files.items() if "/" not in name and stem_of(name)}
        return volumes, [f"{folder.name}/{name}" for name in source.files if name not in volumes]


def _source(folder: Path, files: Mapping[str, SourceFile]) -> Source:
    paths = {name: Path(str(file.path)) for name, file in files.items()}
    return Source(
        folder,
        {name: replace(file, name=name) for name, file in files.items()},
        lambda name: paths[name].open("rb"),
    )


def _labels_by_case(files: Mapping[str, SourceFile], images: set[str]) -> tuple[dict[str, str], list[str]]:
    """Return the labels' file names by case, and sentences about cases that have two."""
    cases: dict[str, str] = {}
    twice = []
    for name in files:
        stem = str(stem_of(name))
        case = stem if stem in images else LABEL_SUFFIX.sub("", stem)
        if case in cases:
            twice.append(f"labels/{cases[case]} and labels/{name} are both labels of {case}; remove one.")
        cases[case] = name
    return cases, twice


def _images_by_case(
    files: Mapping[str, SourceFile], labels: Mapping[str, str], count: int
) -> tuple[dict[str, dict[int, str]], list[str]]:
    """Return the images' file names by case and channel, and sentences about what contradicts itself."""
    numbered = not labels.keys() & {stem_of(name) for name in files}
    cases: dict[str, dict[int, str]] = {}
    problems = []
    for name in files:
        stem = str(stem_of(name))
        match = CHANNEL.fullmatch(stem) if numbered else None
        case, channel = (match[1], int(match[2])) if match else (stem, 0)
        channels = cases.setdefault(case, {})
        if channel in channels:
            problems.append(f"images/{channels[channel]} and images/{name} are the same image of {case}; remove one.")
        if channel >= count:
            problems.append(f"images/{name} is channel {channel}, but modality names {count}; name all or remove it.")
        channels[channel] = name
    return cases, problems


def _add_case(dataset: OwnDataset, case: str, images: Mapping[int, str], label: str | None) -> None:
    numbered = any(stem_of(name) != case for name in images.values())
    expected = set(dataset.modality) if numbered else {0}  # one file holds all channels as its fourth axis
    missing = sorted(expected - images.keys())
    if not images:
        dataset.incomplete.append(f"labels/{label} has no image")
    elif missing:
        lacking = ", ".join(f"{case}_{channel:04d}" for channel in missing)
        dataset.incomplete.append(f"images/{images[min(images)]} lacks the channels {lacking}")
    else:
        names = [images[channel] for channel in sorted(images)]
        targets = [f"images/{names[0]}"] if len(names) > 1 else [f"images/{case}{_ending(names[0])}"]
        targets += [f"images/{name}" for name in names[1:]]
        named = {target: f"images/{name}" for target, name in zip(targets, names, strict=True)}
        target = f"labels/{case}{_ending(label)}" if label else None
        dataset.add("training", named, (target, f"labels/{label}") if target else None)


def _ending(name: str) -> str:
    return name.removeprefix(str(stem_of(name)))


def _found_labels(files: Sequence[str]) -> dict[str, int]:
    """Return the ids that label maps hold as ``label_1`` and so on."""
    ids: set[int] = set()
    for file, values in read_voxels({"label_values": files}, None)["label_values"].items():
        ids |= _label_ids(file, values)
    return {f"label_{index}": index for index in sorted(ids - {0})}


def _label_ids(file: str, values: Any) -> set[int]:
    if isinstance(values, Exception):
        raise ValueError(f"{file} cannot be read ({' '.join(str(values).split())}); repair it or leave it out.")
    odd = [value for value in values if value is None or value < 0 or value != int(value)]
    if odd or len(values) > MOST_LABELS:
        found = f"the value {odd[0]}" if odd else f"more than {MOST_LABELS} values"
        raise ValueError(f"{file} holds {found}, so it is no label map; give the folder of the label maps as --labels.")
    return {int(value) for value in values}
