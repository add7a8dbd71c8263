"""Names of labels, the ids that they stand for, and the mapping from a dataset's ids to a network's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

__all__ = ["Labels", "count_classes", "label_ids", "label_names", "map_labels", "named_labels"]

Labels: TypeAlias = Mapping[str, int | Sequence[int]]
"""Name to id, or name to ids where a region is the union of several labels (BraTS: ``{"TC": [1, 3]}``)."""


def label_ids(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Check a mapping of label names and return every label's ids as a tuple.

    Args:
        labels: foreground names with their id (``{"spleen": 1}``) or, for a region, with several ids.

    Returns:
        The names in their order, each with a tuple of at least one id.

    Raises:
        ValueError: If there is no label, a name is no text, or an id is not an integer above 0.
    """
    if not isinstance(labels, Mapping) or not labels:
        raise ValueError(f"labels must map names to ids, such as {{'spleen': 1}}, got {labels!r}.")
    return {_name(name): _ids(name, value) for name, value in labels.items()}


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            f"label names must be non-empty text, got {name!r}. Write labels as name to id, such as {{'spleen': 1}}."
        )
    return name


def _ids(name: str, value: object) -> tuple[int, ...]:
    ids = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not ids or any(not isinstance(i, int) or isinstance(i, bool) or i < 1 for i in ids):
        raise ValueError(
            f"the id of label {name!r} must be an integer above 0 (0 is the background) or a list of such integers, "
            f"got {value!r}. Name the foreground labels only."
        )
    return ids


def label_names(content: Mapping[str, Any]) -> dict[int, str]:
    """Names of the label ids in a dataset's files, background included; empty where ``dataset.json`` gives none.

    Args:
        content: of ``dataset.json``.

    Raises:
        ValueError: If ``labels`` is there and does not map ids to names, or gives a name twice.
    """
    labels = content.get("labels", {})
    if not isinstance(labels, Mapping) or not all(
        str(index).isdecimal() and isinstance(name, str) for index, name in labels.items()
    ):
        raise ValueError(f"'labels' of dataset.json must map ids to names, such as {{'1': 'spleen'}}, got {labels!r}.")
    names = {int(index): name for index, name in labels.items()}
    twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if twice:
        raise ValueError(f"'labels' of dataset.json names several ids {twice[0]!r}; give each a name of its own.")
    return names


def count_classes(labels: Mapping[str, Any]) -> int:
    """Channels that a network of these labels needs, background included.

    Raises:
        ValueError: If a label has no id of its own, a whole number above 0.
    """
    for name, index in labels.items():
        if isinstance(index, bool) or not isinstance(index, int) or index < 1:
            raise ValueError(
                f"labels gives {name!r} {index!r}; each label needs one id, 1 or more. Regions belong into reported."
            )
    return 1 + max(labels.values(), default=0)


def map_labels(names: Mapping[int, str], labels: Labels) -> list[list[int]]:
    """Map the ids of a dataset's files to those of a network, by name.

    Args:
        names: names of the ids in the files, from :func:`label_names`.
        labels: names with the network's ids.

    Returns:
        The ids in the files, in order, and the ids that they become: equal where ``names`` is empty.

    Raises:
        ValueError: If ``names`` lacks a name of ``labels``; the nearest one is given. If an id of a region has no name.
    """
    ids = label_ids(labels)
    if not names:
        same = sorted({0, *(index for some in ids.values() for index in some)})
        return [same, list(same)]
    classes = named_labels(names, labels)
    for region, some in ids.items():
        unnamed = sorted(set(some) - set(classes.values()))
        if unnamed:
            raise ValueError(
                f"labels has {unnamed[0]} in the region {region!r} but no name for {unnamed[0]} alone, by which to "
                f"find it in dataset.json ({', '.join(map(repr, sorted(names.values())))})."
            )
    return [sorted(names), [classes.get(names[index], 0) if index else 0 for index in sorted(names)]]


def named_labels(names: Mapping[int, str], labels: Labels) -> dict[str, int]:
    """The configuration's labels that are no regions, by name, with the network's id.

    Raises:
        ValueError: If ``dataset.json`` names labels, but not one of these; naming the nearest.
    """
    known, ids = set(names.values()), label_ids(labels)
    single = {name: some[0] for name, some in ids.items() if isinstance(labels[name], int) or name in known}
    for name in single:
        if known and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(map(repr, sorted(known)))}."
            raise ValueError(f"labels names {name!r}, which dataset.json does not have; {hint}")
    return single
