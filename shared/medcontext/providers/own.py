"""A user's own dataset, as it was found in a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medcontext.data.datasets import UNLABELED
from medcontext.storage.archives import Source

__all__ = ["ENDINGS", "SECTIONS", "OwnDataset", "content_in_words", "stem_of"]

SECTIONS = ("training", "validation", "test", UNLABELED)
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mgz")
"""Endings of volumes that are one file each, with its geometry in it."""
SHOWN = 6


@dataclass
class OwnDataset:
    """The cases of a dataset, and all that speaks against it.

    Attributes:
        source: where the files are.
        edition: the form of the source and its place, by which a dataset that was prepared before is known again.
        name: name of the dataset.
        modality: names of the channels.
        labels: names of the label ids, background included.
        unnamed: whether nobody gave these names.
        about: further facts for ``dataset.json``, such as its licence.
        sections: entries of ``dataset.json`` by section, with paths in the prepared folder.
        bare: entries for training that have no label.
        files: names in the source by path in the prepared folder.
        incomplete: sentences about cases that lack files.
        contradictions: sentences about what cannot be true.
        left_out: files that belong to no case, with the reason.
    """

    source: Source
    edition: str
    name: str
    modality: dict[int, str]
    labels: dict[int, str]
    unnamed: bool = False
    about: dict[str, str] = field(default_factory=dict)
    sections: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {section: [] for section in SECTIONS})
    bare: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    incomplete: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(
        self,
        section: str,
        images: Mapping[str, str],
        label: tuple[str, str] | None = None,
        **extras: Any,
    ) -> None:
        """Add a case.

        Args:
            section: section of ``dataset.json``; test cases without a label become unlabelled scans.
            images: names of the channels' files in the source, by path in the prepared folder.
            label: the same of the label, as a pair of path and name.
            extras: what else to write in its entry.
        """
        paths = list(images)
        entry: dict[str, Any] = {"image": paths[0] if len(paths) == 1 else paths}
        self.files |= images
        if section == UNLABELED or (label is None and section == "test"):
            self.sections[UNLABELED].append(entry)
        elif label is None:
            self.bare.append(entry | extras)
        else:
            path, name = label
            self.files[path] = name
            self.sections[section].append(entry | {"label": path} | extras)


def stem_of(name: str) -> str | None:
    """Return a volume's file name without its ending, or ``None`` if it is no volume."""
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), None)


def content_in_words(names: list[str]) -> str:
    """Return what a folder holds instead of what was looked for, for messages."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"it holds {', '.join(sorted(names)[:SHOWN])}{more}" if names else "it holds no file"
