"""Finding problems of a dataset before a network is trained on it."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm.auto import tqdm

from medcontext.data.datalist import Case, case_files, case_name, load_datalist, load_listed
from medcontext.data.partial import annotated_nowhere, entry_problems, map_problems
from medcontext.data.voxels import read_voxels
from medcontext.dicom import grid_of, is_dicom, modality_of
from medcontext.labels import ignored_id
from medcontext.scans import (
    LARGEST_VALUE,
    VolumeHeader,
    corner_distance,
    grid_problem,
    memory_problem,
    read_header,
    shift_tolerance,
    size_problem,
    unreadable,
)
from medcontext.storage.file_memory import FileMemory, sha256_of
from medcontext.text import printable

__all__ = ["Problem", "check_cases", "check_dataset", "check_images", "check_memory", "errors_of", "problems_table"]

SHOWN_VALUES = 5
UNLABELED = "unlabeled"

Sections = Mapping[str, Sequence[Case]]
Named = tuple[str, VolumeHeader]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """Problem of a case.

    Attributes:
        case: name of the case.
        section: ``training``, ``validation`` or ``test``.
        problem: sentence that names the file and the remedy.
        is_warning: the case can be used, as the sentence says; it may be worth a look.
        image: first file of the case's image, if the problem is that of this case alone, which others can be used
            without.
    """

    case: str
    section: str
    problem: str
    is_warning: bool = False
    image: str = ""

    def __str__(self) -> str:
        return self.problem


def errors_of(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems that prevent the use of a case: all but warnings."""
    return [problem for problem in problems if not problem.is_warning]


def problems_table(problems: Sequence[Problem]) -> str:
    """Format problems as a table, one line each."""
    rows = [
        {
            "case": found.case,
            "section": found.section,
            "problem": f"{'warning: ' if found.is_warning else ''}{found.problem}",
        }
        for found in problems
    ]
    cells = [{name: printable(text) for name, text in row.items()} for row in rows]
    frame = pd.DataFrame(cells, columns=["case", "section", "problem"])
    for name in frame.columns:
        frame[name] = frame[name].str.ljust(max(frame[name].str.len().max(), len(name)))
    return frame.to_string(index=False, justify="left")


def check_dataset(
    datalist: str | os.PathLike[str],
    sections: Sections | None = None,
    *,
    in_channels: int,
    labels: Mapping[str, int],
    voxels: bool | None = None,
    hashes: bool = False,
) -> list[Problem]:
    """Return all problems of the cases of a dataset, or of those that a run uses.

    Facts about voxels are remembered in the user's cache until the files change. Cases listed in several
    sections are searched for in all of ``dataset.json``, whatever the run uses. Files outside of its folder are a
    warning where all that it lists is checked.

    Args:
        datalist: path of the ``dataset.json``.
        sections: cases by section name; by default those that ``dataset.json`` lists.
        in_channels: as for :func:`check_cases`.
        labels: as for :func:`check_cases`.
        voxels: ``True`` reads the voxels of all files, ``None`` of those that were not read before, ``False`` of none.
        hashes: compare the files with the SHA-256 in ``dataset.json``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a valid ``dataset.json``, or has no hashes to compare with.
    """
    folder = Path(datalist).absolute().parent
    listed = {name: load_listed(datalist, name) for name in ("training", "validation", "test", "unlabeled")}
    content = load_datalist(datalist)
    recorded = {str(folder / path): value for path, value in content.get("sha256", {}).items()}
    if hashes and not recorded:
        raise ValueError(f"{datalist} gives no SHA-256 to compare with; only prepared datasets have them.")
    used = listed if sections is None else sections
    arguments: dict[str, Any] = {"folder": folder, "memory": FileMemory.of_dataset(datalist), "sha256": recorded}
    expected: dict[str, Any] = {"in_channels": in_channels, "labels": labels, "ignored": ignored_id(content)}
    problems = check_cases(used, voxels=voxels, **expected, **arguments)
    if sections is None:
        problems += _outside(listed, folder)
    else:
        problems += [problem for problem in find_overlaps(listed, recorded, folder) if problem not in problems]
    if UNLABELED in used:
        of_unlabeled = _unlabeled_problems(datalist, listed, used, recorded, arguments["memory"])
        problems += [problem for problem in of_unlabeled if problem not in problems]
    return problems + (_compare_hashes(used, recorded, folder) if hashes else [])


def _outside(listed: Sections, folder: Path) -> list[Problem]:
    """Warn of cases outside the folder of ``dataset.json``, which may come from elsewhere and name any file."""
    text = "{} lies outside of the folder of dataset.json; see that it belongs to the dataset."
    inside = os.path.abspath(folder)
    return [
        replace(_problem(section, case, text.format(outside[0])), is_warning=True)
        for section, case in _section_cases(listed)
        if (outside := [file for file in case_files(case) if not Path(os.path.abspath(file)).is_relative_to(inside)])
    ]


def _unlabeled_problems(
    datalist: str | os.PathLike[str],
    listed: Sections,
    used: Sections,
    recorded: Mapping[str, str],
    memory: FileMemory,
) -> list[Problem]:
    """Find unlabelled scans that are also test or validation cases, or of another modality than the dataset."""
    folder = Path(datalist).absolute().parent
    held_out = {name: listed[name] for name in ("validation", "test") if listed[name]}
    sections = {**held_out, UNLABELED: used[UNLABELED]}
    cases = [case for _, case in _section_cases(sections) if all(Path(file).is_file() for file in case_files(case))]
    hashes = {**recorded, **_hashes_of_suspects(cases, recorded, memory)}
    problems = [problem for problem in find_overlaps(sections, hashes, folder) if problem.section == UNLABELED]
    expected = " ".join(map(str, dict(load_datalist(datalist).get("modality") or {}).values())).upper()
    return problems + _modality_problems(used[UNLABELED], expected, memory) if expected else problems


def _modality_problems(cases: Sequence[Case], expected: str, memory: FileMemory) -> list[Problem]:
    """Find scans that are CT where the dataset is not, or the reverse, by their DICOM modality or intensities."""
    present = [case for case in cases if Path(_images(case)[0]).is_file()]
    volumes = [_images(case)[0] for case in present if not is_dicom(_images(case)[0])]
    ranges = read_voxels({"range": volumes}, memory)["range"]
    problems = []
    for case in present:
        file = _images(case)[0]
        modality = _modality_by_values(ranges[file]) if file in ranges else _modality_in_dicom(file)
        if modality and ("CT" in expected) != (modality == "CT"):
            text = f"{file} is {modality}, while the dataset is {expected}; give scans of the same modality."
            problems.append(_problem(UNLABELED, case, text))
    return problems


def _modality_in_dicom(file: str) -> str:
    modality = modality_of(file)
    return "CT" if modality == "CT" else f"not CT but {modality}"


def _modality_by_values(extent: Any) -> str:
    """Guess the modality from the lowest and the highest value of a volume; empty where they leave it open."""
    if isinstance(extent, Exception):  # reported elsewhere
        return ""
    low, high = extent
    if low < -200:
        return "CT"
    return f"no CT in Hounsfield units, with values from {low:g} to {high:g}" if low >= 0 else ""


def check_cases(
    sections: Sections,
    *,
    in_channels: int,
    labels: Mapping[str, int],
    ignored: int | None = None,
    voxels: bool | None = None,
    memory: FileMemory | None = None,
    sha256: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> list[Problem]:
    """Return all problems of the given cases; with none but warnings, a network can be trained on them.

    Problems are missing and unreadable files, wrong numbers of axes or channels, sheared grids, images and labels of
    different shape or position, unexpected label values, voxels that are not finite, entries that contradict their
    label map or name unknown structures as not annotated, and cases, contents or patients that are in two sections.
    Warnings are headers that contradict themselves, label maps without labels, and structures that no training case has
    annotated.

    Args:
        sections: cases by section name, with absolute paths.
        in_channels: channels that the network takes: several are the fourth axis of the image, or as many files.
        labels: names and values that label maps may hold, in addition to 0.
        ignored: value of ignored voxels.
        voxels: ``True`` reads the voxels of all files, ``None`` of those that the memory does not know, ``False`` of
            none.
        memory: where facts about files are kept.
        sha256: hashes of files whose contents are known, by path.
        folder: folder to which the paths in messages are relative.
    """
    recorded = dict(sha256 or {})
    sound: list[tuple[str, Case]] = []
    problems: list[Problem] = []
    for section, cases in sections.items():
        for case in cases:
            texts, doubts = _check_headers(section, case, in_channels, folder)
            texts += entry_problems(case, labels)
            problems += [_own_problem(section, case, text) for text in texts]
            problems += [replace(_own_problem(section, case, doubt), is_warning=True) for doubt in doubts]
            sound += [] if texts else [(section, case)]
    if voxels is not False:
        problems += _check_voxels(sound, labels, ignored, memory, bool(voxels), folder)
        recorded |= _hashes_of_suspects([case for _, case in sound], recorded, memory)
    return problems + find_overlaps(sections, recorded, folder) + _never_annotated(sections, labels)


def _never_annotated(sections: Sections, labels: Mapping[str, int]) -> list[Problem]:
    """Find the structures that no training case has annotated."""
    text = "No training case has {} annotated, so it cannot be learned; leave it out of `labels`."
    names = annotated_nowhere(sections.get("training", ()), labels)
    return [Problem("all", "training", text.format(name), is_warning=True) for name in names]


def check_images(cases: Sequence[Case], in_channels: int) -> list[str]:
    """Return what prevents a prediction of the images: problems in headers, or the channels of DICOM.

    Headers that contradict themselves are logged as warnings.

    Args:
        cases: images without labels.
        in_channels: as for :func:`check_cases`.
    """
    texts: list[str] = []
    for case in cases:
        files = _images(case)
        if unusual := [file for file in files if printable(file) != file]:
            texts.append(_name_problem(unusual[0]))
            continue
        if is_dicom(files[0]) or "series_instance_uid" in case:
            texts += [] if in_channels == 1 else [_dicom_has_one_channel(case, in_channels)]
            grid = grid_of(files) if is_dicom(files[0]) else None
            problem = grid and grid_problem(*grid)
            texts += [f"{Path(files[0]).parent} {problem}."] if problem else []
            continue
        images, problems, doubts = _read_headers({file: file for file in files})
        texts += problems or _check_channels(images, in_channels)
        for doubt in doubts:
            logger.warning(printable(doubt))
    return texts


def check_memory(cases: Sequence[Case], spacing: Sequence[float], orientation: str, channels: int) -> dict[str, str]:
    """Return which cases do not fit into this machine's memory, by the first file of their image.

    Args:
        cases: cases, of which those with a ``problem`` are left out.
        spacing: voxel sizes in mm that they are resampled to.
        orientation: the axes of ``spacing``.
        channels: channels that are held for each voxel, as for :func:`medcontext.scans.memory_problem`.
    """
    found = {}
    for case in (case for case in cases if "problem" not in case):
        grid, file = _grid_of(case), _images(case)[0]
        problem = None if grid is None else memory_problem(*grid, spacing, orientation, channels)
        if problem is not None:
            found[file] = f"{file} {problem}."
    return found


def _grid_of(case: Case) -> tuple[tuple[int, ...], npt.NDArray[np.float64]] | None:
    """Return shape and affine of a case's image, ``None`` where a file of DICOM is no volume."""
    files = _images(case)
    if is_dicom(files[0]):
        return grid_of(files)
    header = read_header(files[0])
    return header.shape, header.affine


def _dicom_has_one_channel(case: Case, in_channels: int) -> str:
    folder = Path(_images(case)[0]).parent
    return f"{folder} holds a DICOM series, one channel; in_channels {in_channels} asks for files of another format."


def find_overlaps(sections: Sections, sha256: Mapping[str, str], folder: Path | None = None) -> list[Problem]:
    """Find cases that are listed twice, images with the contents of another, and patients in two sections."""
    problems: list[Problem] = []
    paths: dict[str, str] = {}
    contents: dict[str, tuple[str, str]] = {}
    patients: dict[str, str] = {}
    for section, case in _section_cases(sections):
        images = _images(case)
        listed_before = [image for image in images if os.path.realpath(image) in paths]
        for image in listed_before[:1]:
            before = paths[os.path.realpath(image)]
            where = f"twice under {section}" if before == section else f"under {before} and {section}"
            text = f"{_relative(image, folder)} is listed {where}; list each case once."
            problems.append(_problem(section, case, text))
        copies = [] if listed_before else [image for image in images if sha256.get(image) in contents]
        for image in copies[:1]:
            other, before = contents[sha256[image]]
            shown, original = _relative(image, folder), _relative(other, folder)
            text = f"{shown} has the same contents as {original} ({before}); remove one."
            problems.append(_problem(section, case, text))
        first = patients.setdefault(case["patient"], section) if "patient" in case else section
        if first != section and not listed_before:
            text = f"The patient {case['patient']} is in {first} too; keep all cases of a patient in one section."
            problems.append(_problem(section, case, text))
        paths |= {os.path.realpath(image): section for image in images}
        contents |= {sha256[image]: (image, section) for image in images if image in sha256}
    return problems


def _section_cases(sections: Sections) -> Iterator[tuple[str, Case]]:
    return ((section, case) for section, cases in sections.items() for case in cases)


def _images(case: Case) -> list[str]:
    return case_files({"image": case["image"]})


def _problem(section: str, case: Case, text: str) -> Problem:
    return Problem(case_name(case), section, text)


def _own_problem(section: str, case: Case, text: str) -> Problem:
    return replace(_problem(section, case, text), image=_images(case)[0])


def _relative(path: str, folder: Path | None) -> str:
    return str(Path(path).relative_to(folder)) if folder and Path(path).is_relative_to(folder) else path


def _check_headers(section: str, case: Case, in_channels: int, folder: Path | None) -> tuple[list[str], list[str]]:
    """Return the problems of a case's headers, and what is doubtful in them."""
    shown = {file: _relative(file, folder) for file in case_files(case)}
    missing = [f"{shown[file]} is missing." for file in shown if not Path(file).is_file()]
    if section == UNLABELED and not missing and any(is_dicom(Path(file)) for file in shown):
        return [] if in_channels == 1 else [_dicom_has_one_channel(case, in_channels)], []
    if "label" not in case and section != UNLABELED:
        missing.append(f"{shown[_images(case)[0]]} has no label; add one, or leave the case out.")
    if missing:
        return missing, []
    headers, problems, doubts = _read_headers(shown)
    if problems:
        return problems, doubts
    images = headers[: len(_images(case))]
    return _check_channels(images, in_channels) or _check_grid(images, headers[len(images) :]), doubts


def _read_headers(shown: Mapping[str, str]) -> tuple[list[Named], list[str], list[str]]:
    """Return named headers up to the first that cannot be used, the problem of that one, and what is doubtful."""
    headers: list[Named] = []
    doubts: list[str] = []
    for file, name in shown.items():
        if printable(file) != file:
            return headers, [_name_problem(name)], doubts
        try:
            header = read_header(file)
        except Exception as error:
            return headers, [unreadable(name, file, error)], doubts
        problem = grid_problem(header.shape, header.affine) or size_problem(file, header)
        if problem is not None:
            return headers, [f"{name} {problem}."], doubts
        doubts += [f"{name} {doubt}." for doubt in header.doubts]
        headers.append((name, header))
    return headers, [], doubts


def _name_problem(name: str) -> str:
    return f"{name} has a name with control characters, or one that is not UTF-8; rename it."


def _check_channels(images: Sequence[Named], in_channels: int) -> list[str]:
    name, image = images[0]
    if len(images) > 1 and len(images) != in_channels:
        return [f"{name} is one of {len(images)} files; in_channels {in_channels} asks for as many."]
    axes = 3 if in_channels == 1 or len(images) > 1 else 4
    for name, image in images:
        if len(image.shape) != axes or (axes == 4 and image.shape[3] != in_channels):
            expected = "three axes" if axes == 3 else f"four axes, the last with {in_channels} channels"
            return [f"{name} has shape {image.shape}; in_channels {in_channels} asks for {expected}."]
    return []


def _check_grid(images: Sequence[Named], labels: Sequence[Named]) -> list[str]:
    first, image = images[0]
    for number, (name, other) in enumerate([*images, *labels][1:], start=1):
        if len(other.shape) != 3 or image.shape[:3] != other.shape:
            return [f"{name} has shape {other.shape}, its image {image.shape}; they must have the same grid."]
        if number < len(images) and not np.allclose(image.affine, other.affine):
            return [
                f"{name} and {first} have different affines, so they cannot be stacked as channels; make them equal."
            ]
        apart = corner_distance(image.shape, image.affine, other.affine)
        if apart > shift_tolerance(image.affine):
            return [
                f"{name} lies elsewhere than its image {first} (their affines place a corner {apart:.3g} mm apart); "
                "resample it onto the image."
            ]
    return []


def _check_voxels(
    cases: list[tuple[str, Case]],
    known: Mapping[str, int],
    ignored: int | None,
    memory: FileMemory | None,
    again: bool,
    folder: Path | None,
) -> list[Problem]:
    allowed = {0, *known.values(), *([] if ignored is None else [ignored])}
    files = {
        "label_values": [case["label"] for _, case in cases if "label" in case],
        # pixels of DICOM are whole numbers
        "unusable": [file for _, case in cases for file in _images(case) if not is_dicom(Path(file))],
    }
    labels, unusable = read_voxels(files, memory, again=again).values()
    problems = []
    for section, case in cases:
        label = case.get("label")
        texts = [] if label is None else _check_values(_relative(label, folder), label, labels[label], allowed)
        if label is not None and not texts:
            texts = map_problems(case, _relative(label, folder), labels[label], known, ignored)
        for file in filter(unusable.__contains__, _images(case)):
            count = unusable[file]
            if isinstance(count, Exception):
                texts.append(unreadable(_relative(file, folder), file, count))
            elif count:
                what = f"NaN or infinite, or beyond {LARGEST_VALUE:g}"
                texts.append(f"{_relative(file, folder)} has {count} voxels that are {what}; repair the file.")
        problems += [_own_problem(section, case, text) for text in texts]
        if label is not None and labels[label] == [0]:
            empty = f"{_relative(label, folder)} holds no labelled voxel; leave the case out unless it is healthy."
            problems.append(replace(_own_problem(section, case, empty), is_warning=True))
    return problems


def _check_values(name: str, file: str, values: Any, allowed: set[int]) -> list[str]:
    if isinstance(values, Exception):
        return [unreadable(name, file, values)]
    unexpected = [value for value in values if value not in allowed]
    if not unexpected:
        return []
    more = ", …" if len(unexpected) > SHOWN_VALUES else ""
    shown = ", ".join("NaN" if value is None else f"{value:g}" for value in unexpected[:SHOWN_VALUES])
    return [f"{name} holds the values {shown}{more}, which `labels` does not declare; declare or remap them."]


def _hashes_of_suspects(cases: list[Case], recorded: Mapping[str, str], memory: FileMemory | None) -> dict[str, str]:
    """Return the SHA-256 of the images that have the size, and so perhaps the contents, of another image."""
    by_size: dict[int, set[str]] = defaultdict(set)
    for image in {image for case in cases for image in _images(case)}:
        by_size[Path(image).stat().st_size].add(image)
    suspects = [image for images in by_size.values() if len(images) > 1 for image in images if image not in recorded]
    bar = tqdm(suspects, desc="comparing images", unit="file", disable=not suspects)
    return {image: sha256_of(image, memory) for image in bar}


def _compare_hashes(sections: Sections, recorded: Mapping[str, str], folder: Path) -> list[Problem]:
    problems = []
    for section, case in tqdm(list(_section_cases(sections)), desc="comparing SHA-256", unit="case"):
        for file in case_files(case):
            if Path(file).is_file() and file in recorded and sha256_of(file) != recorded[file]:
                text = (
                    f"{_relative(file, folder)} has changed since it was prepared (SHA-256 differs); prepare it again."
                )
                problems.append(_problem(section, case, text))
    return problems
