"""Label maps that are annotated in part: ignored voxels, and structures that a case's entry names as not annotated."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.config import KeysCollection
from monai.transforms import MapTransform

from medcontext.checks import nearest_name
from medcontext.data.datalist import Case, case_name, load_datalist, load_listed
from medcontext.labels import IGNORED, Labels, ignored_id, label_names, named_labels

__all__ = ["UNANNOTATED", "MarkUnannotatedd", "unannotated_labels"]

UNANNOTATED = "unannotated"
"""Key of a case's entry that lists the names of the structures that are not annotated in it."""


def unannotated_labels(datalist: str | os.PathLike[str], labels: Labels) -> list[list[int]]:
    """Return what the negative values of label maps stand for.

    Args:
        datalist: path of the ``dataset.json``.
        labels: names with the network's ids.

    Returns:
        For the value -1, of ignored voxels, all ids; for -2, -3, … the ids of the structures, at least one, that some
        cases name as not annotated, which their background may be. Empty where all is annotated.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If ``dataset.json`` lacks a name of ``labels``.
    """
    content = load_datalist(datalist)
    sections = ("training", "validation", "test")
    cases = [case for section in sections for case in load_listed(datalist, section)]
    if ignored_id(content) is None and not any(case.get(UNANNOTATED) for case in cases):
        return []
    ids = named_labels(label_names(content), labels)
    of_cases = {tuple(_ids(case.get(UNANNOTATED, []), ids)) for case in cases}
    return [sorted(set(ids.values())), *map(list, sorted(of_cases - {()}))]


def without_ignored(label_map: npt.NDArray[np.int32], ignored: int | None) -> npt.NDArray[np.int32]:
    """Return a label map in which ignored voxels have the value -1.

    Args:
        label_map: ids in a dataset's files.
        ignored: that of ignored voxels.
    """
    return label_map if ignored is None else np.where(label_map == ignored, np.int32(IGNORED), label_map)


def annotated_names(case: Case, names: Iterable[str]) -> list[str]:
    """Return those of the names that are annotated in a case."""
    left_out = case.get(UNANNOTATED, [])
    return [name for name in names if name not in left_out]


def annotated_in_part(cases: Sequence[Case], names: Iterable[str]) -> dict[str, int]:
    """Return by name in how many cases a structure is annotated, of those that are not in all cases."""
    counts = {name: sum(name in annotated_names(case, [name]) for case in cases) for name in names}
    return {name: count for name, count in counts.items() if count < len(cases)}


def annotated_nowhere(cases: Sequence[Case], names: Iterable[str]) -> list[str]:
    """Return those of the names that every case lists as not annotated; none if there are no cases."""
    return [name for name, count in annotated_in_part(cases, names).items() if not count]


def entry_problems(case: Case, labels: Mapping[str, int]) -> list[str]:
    """Return what is wrong with the structures that a case's entry names as not annotated.

    Args:
        case: the case.
        labels: names and values of all structures.
    """
    names = case.get(UNANNOTATED, [])
    unknown = [name for name in names if name not in labels]
    if unknown:
        hint = nearest_name(unknown[0], sorted(labels)) or f" It has {', '.join(map(repr, labels))}."
        return [f"{case_name(case)} lists {unknown[0]!r} as unannotated, which dataset.json does not name.{hint}"]
    if len(set(names)) < len(names):
        return [f"{case_name(case)} lists a structure twice as unannotated ({', '.join(names)}); list each once."]
    if names and not annotated_names(case, labels):
        return [f"{case_name(case)} lists all structures as unannotated; list its image under 'unlabeled' instead."]
    return []


def map_problems(
    case: Case, name: str, values: Sequence[float | None], labels: Mapping[str, int], ignored: int | None
) -> list[str]:
    """Return how a label map contradicts what its case's entry says of it.

    Args:
        case: the case.
        name: the label map's name for the messages.
        values: the values that it holds.
        labels: names and values of all structures.
        ignored: value of ignored voxels.
    """
    if ignored is not None and list(values) == [ignored]:
        return [f"{name} holds nothing but ignored voxels; list the image under 'unlabeled' instead."]
    shown = [structure for structure in case.get(UNANNOTATED, []) if labels[structure] in values]
    if not shown:
        return []
    return [
        f"{name} holds {' and '.join(shown)}, which its entry lists as unannotated; take the name out of the entry, or "
        "the voxels out of the label map."
    ]


def _ids(names: Iterable[str], ids: Mapping[str, int]) -> list[int]:
    return sorted({ids[name] for name in names if name in ids})


class MarkUnannotatedd(MapTransform):
    r"""Mark the background of label maps that lack structures, where these may be.

    The names under ``unannotated`` of a case are replaced by a negative value of its background, so that crops of
    several cases can form a batch.

    Args:
        keys: keys of label maps (1, \*spatial) with the network's ids.
        labels: names with the network's ids, of a dataset's labels.
        unannotated: what negative values stand for, from :func:`unannotated_labels`.

    Example:
        >>> import torch
        >>> mark = MarkUnannotatedd("label", {"spleen": 1, "liver": 2}, [[1, 2], [2]])
        >>> mark({"label": torch.tensor([[0.0, 1.0, -1.0]]), "unannotated": ["liver"]})
        {'label': tensor([[-2.,  1., -1.]])}
    """

    def __init__(self, keys: KeysCollection, labels: Labels, unannotated: Sequence[Sequence[int]]) -> None:
        super().__init__(keys)
        self.ids = named_labels({}, labels)
        self.values = {tuple(ids): -1 - number for number, ids in enumerate(unannotated) if number}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with marked label maps and without the names."""
        marked = dict(data)
        ids = tuple(_ids(marked.pop(UNANNOTATED, []), self.ids))
        for key in self.key_iterator(marked) if ids else ():
            marked[key] = marked[key].masked_fill(marked[key] == 0, self.values[ids])
        return marked
