"""Checks of what a ``dataset.json`` says, whoever wrote it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from medcontext.scans import volume_name

__all__ = ["Case", "SECTIONS", "case_files", "case_name", "check_case", "check_content", "refuse_unknown_sections"]

Case = dict[str, Any]
"""``image``: path of a volume, or a list of paths, one for each channel; ``label``; ``patient`` if it is known; and
``unannotated``, names of the structures that its label map does not show though they may be there."""

SECTIONS = ("training", "validation", "test", "unlabeled")

_OTHER_NAMES = {
    "train": "call it 'training'",
    "val": "call it 'validation'",
    "valid": "call it 'validation'",
    "testing": "call it 'test' if the cases have labels, else 'unlabeled'",
    "unlabelled": "call it 'unlabeled'",
}
_MAPPINGS = {"modality": {"0": "CT"}, "channel_names": {"0": "CT"}, "sha256": {"a.nii.gz": "9f86d0…"}}
"""Entries that map text to text, with an example of each."""
LONGEST = 4095
"""Characters of the longest path that Linux takes."""


def case_files(case: Mapping[str, Any]) -> list[str]:
    """Return the paths of a case's image, one or one for each channel, and of its label if it has one."""
    image = case["image"]
    files = [image] if isinstance(image, str) else list(image)
    return [*files, case["label"]] if "label" in case else files


def case_name(case: Mapping[str, Any]) -> str:
    """Return the name of a case: that of its image's file, without the ending and the number of a first channel."""
    name = volume_name(case_files(case)[0])
    return name if isinstance(case["image"], str) else name.removesuffix("_0000")


def check_content(content: object, place: object) -> dict[str, Any]:
    """Return the content of a dataset file after a check of its kinds; :func:`check_case` checks each case.

    Args:
        content: the content.
        place: where it was read, for messages.

    Raises:
        ValueError: If it is not an object, lists no cases under ``training`` or ``test``, lists cases under other names
            than these, ``validation`` and ``unlabeled``, or gives values of another kind than it should.
    """
    refuse_unknown_sections(content, place)
    if not isinstance(content, dict) or not (content.get("training") or content.get("test")):
        raise ValueError(f"{place} must be an object with lists of cases under 'training', 'validation' and 'test'.")
    for name in SECTIONS:
        if not isinstance(content.get(name, []), list):
            raise ValueError(f"{place} must be an object with lists of cases, but {name!r} is no list.")
    for name, example in _MAPPINGS.items():
        value = content.get(name) or {}
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
            raise ValueError(f"{name!r} of {place} must map text to text, such as {example}, got {value!r}.")
    return content


def refuse_unknown_sections(content: object, place: object) -> None:
    """Refuse lists of cases under names that other programs use, rather than ignore them.

    Args:
        content: content of a dataset file.
        place: where it was read, for the message.

    Raises:
        ValueError: If there is one.
    """
    for name, advice in _OTHER_NAMES.items():
        if isinstance(content, dict) and isinstance(content.get(name), list):
            raise ValueError(f"{place} lists cases under {name!r}, which is not read; {advice}.")


def check_case(case: object) -> Case:
    """Return a case, as an object, after a check of its values.

    Args:
        case: an entry of a dataset file, or the path of an image alone.

    Raises:
        ValueError: If it gives no path of an image, or values of another kind than it should.
    """
    files = {"image": case} if isinstance(case, str) else case
    if not isinstance(files, dict) or not _is_image(files.get("image")) or not _is_path(files.get("label", "none")):
        raise ValueError(
            f"A case must give a path under 'image' (several channels: a list) and one under 'label', got {case!r}."
        )
    names, patient = files.get("unannotated", []), files.get("patient", "")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{case_name(files)} gives {names!r} as 'unannotated'; give a list of the structures that nobody annotated "
            "in this case, such as ['spleen', 'liver']."
        )
    if not isinstance(patient, str | int):
        raise ValueError(f"{case_name(files)} gives {patient!r} as 'patient'; give a text or a whole number.")
    return files


def _is_image(value: object) -> bool:
    return all(map(_is_path, value)) and bool(value) if isinstance(value, list) else _is_path(value)


def _is_path(value: object) -> bool:
    """Return whether a value is text that may be a path, which the file may lack."""
    if not isinstance(value, str) or not value or "\0" in value or len(value) > LONGEST:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # a half of a pair of code units, which stands for no byte
        return False
    return True
