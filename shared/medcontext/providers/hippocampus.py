"""The Decathlon's Task04: brain MR crops around one hippocampus, with labels and without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from medcontext.data.datasets import HIPPOCAMPUS_LABELS, UNLABELED, Split, load_split
from medcontext.labels import label_names
from medcontext.providers.description import read_object
from medcontext.providers.layouts import Edition, FoundCases, Pattern
from medcontext.storage.archives import Source

__all__ = ["EDITIONS", "TASK"]

TASK = "Task04_Hippocampus"
CASE = r"(?P<case>hippocampus_\d{3})"
SECTIONS = ("training", "validation", "test", UNLABELED)


def read_split(source: Source, found: FoundCases) -> tuple[Split, str]:
    """Return the cases of each section.

    The split of a ``dataset.json`` whose test cases have labels is kept. Otherwise, as with the Decathlon's own, the
    test cases are those of :func:`~medcontext.data.datasets.load_split`, and all others are for training. Test cases
    without labels become unlabelled scans; where none are listed, all scans without labels in the source do.

    Args:
        source: the download.
        found: the cases in it.

    Returns:
        Case ids by section, and the origin of this split.

    Raises:
        ValueError: If ``dataset.json`` cannot be read.
    """
    listed = _listed_entries(source)
    cases = {name: [_case(entry) for entry in entries if "label" in entry] for name, entries in listed.items()}
    scans = [_case(entry) for name in ("test", UNLABELED) for entry in listed[name] if "label" not in entry]
    if not scans:
        scans = sorted(case for case, files in found.files.items() if UNLABELLED in files)
    if cases["test"]:
        return cases | {UNLABELED: scans}, "that of the source's dataset.json"
    labelled = [case for case, files in found.files.items() if UNLABELLED not in files]
    tests = load_split("hippocampus")["test"]
    split = {
        "training": [case for case in cases["training"] or sorted(labelled) if case not in tests],
        "validation": [case for case in cases["validation"] if case not in tests],
        "test": tests,
        UNLABELED: scans,
    }
    return split, f"{len(tests)} test cases by name"


def find_contradictions(source: Source, cases: Sequence[str]) -> list[str]:
    """Find contradictions of ``dataset.json`` to the files, to itself, or to the meaning of the labels.

    Args:
        source: the download.
        cases: case ids that are used.
    """
    folders: dict[str, list[str]] = {}
    for name in source.files:
        if _parent(name) in ("imagesTr", "imagesTs"):
            folders.setdefault(_stem(name), []).append(name)
    problems = _problems_of_lists(_listed_entries(source))
    for case in dict.fromkeys(cases):
        names = folders.get(case, [])
        if len(set(map(_parent, names))) > 1:
            problems.append(f"{' and '.join(names)} make {case} a case with a label and a scan without; remove one.")
    named = {index: name.lower() for index, name in label_names(_content(source)).items()}
    if named and named != HIPPOCAMPUS_LABELS:
        problems.append(f"dataset.json calls the labels {named}; of the hippocampus 1 is anterior and 2 posterior.")
    return problems


def _problems_of_lists(listed: dict[str, list[dict[str, Any]]]) -> list[str]:
    problems, section_of = [], dict[str, str]()
    for section, entries in listed.items():
        for entry in entries:
            case = _case(entry)
            if case in section_of:
                before = section_of[case]
                where = f"twice under {section}" if before == section else f"under {before} and {section}"
                problems.append(f"dataset.json lists {case} {where}; list each case once.")
            section_of[case] = section
            if "label" in entry and _stem(entry["label"]) != case:
                problems.append(f"dataset.json gives {entry['image']} the label {entry['label']} of another case.")
    return problems


def _listed_entries(source: Source) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of each section of the source's ``dataset.json``; one that is only a path has no label."""
    content, listed = _content(source), dict[str, list[dict[str, Any]]]()
    for section in SECTIONS:
        entries = content.get(section, [])
        entries = [{"image": entry} if isinstance(entry, str) else entry for entry in entries]
        if not all(
            isinstance(entry, dict) and all(isinstance(entry.get(key, ""), str) for key in ("image", "label"))
            for entry in entries
        ) or not all(entry.get("image") for entry in entries):
            raise ValueError(f"dataset.json of {source.path} must list a path under 'image' for each {section} case.")
        listed[section] = entries
    return listed


def _content(source: Source) -> dict[str, Any]:
    """Return the content of the ``dataset.json`` beside the images, empty if there is none."""
    folders = {PurePosixPath(name).parent.parent for name in source.files if _parent(name) in ("imagesTr", "labelsTr")}
    names = [name for folder in sorted(folders) if (name := str(folder / "dataset.json")) in source.files]
    if not names:
        return {}
    content = read_object(source, names[0])
    if not all(isinstance(content.get(name, []), list) for name in SECTIONS):
        raise ValueError(f"{names[0]} of {source.path} must be an object with lists of cases; download it again.")
    return content


def _case(entry: dict[str, Any]) -> str:
    return _stem(entry["image"])


def _stem(path: str) -> str:
    return PurePosixPath(path).name.split(".nii")[0]


def _parent(path: str) -> str:
    return PurePosixPath(path).parent.name


UNLABELLED = Pattern(rf"imagesTs/{CASE}", "imagesTs/{case}")

EDITIONS = (
    Edition(
        name="Hippocampus of the Medical Segmentation Decathlon",
        channels=(Pattern(rf"imagesTr/{CASE}", "imagesTr/{case}"),),
        label=Pattern(rf"labelsTr/{CASE}", "labelsTr/{case}"),
        modality={0: "MRI"},
        labels=HIPPOCAMPUS_LABELS,
        description=f"Medical Segmentation Decathlon {TASK}, anterior and posterior hippocampus",
        example="hippocampus_*",
        reference="http://medicaldecathlon.com (CC-BY-SA 4.0; Antonelli et al., Nature Communications 2022)",
        unlabelled=UNLABELLED,
        read_split=read_split,
        find_contradictions=find_contradictions,
    ),
)
"""``Task04_Hippocampus.tar``: ``imagesTr`` with ``labelsTr``, ``imagesTs`` without, and ``dataset.json``."""
