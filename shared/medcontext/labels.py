"""Names of labels, their ids, and the mapping from a dataset's ids to those of a network.

``labels`` are always those of the network, by name; ``names`` are always those of a dataset's files, by id.

Voxels that nobody annotated have negative values in the label maps that a network learns from or is measured with:
:data:`IGNORED` where the voxel may be anything, and ``-1 - k`` where it is background or one of the ids in
``unannotated[k]``, see :func:`medcontext.data.unannotated_labels`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from medcontext.checks import nearest_name
from medcontext.text import printable

__all__ = [
    "IGNORED",
    "Labels",
    "component_ids",
    "count_classes",
    "ignored_id",
    "label_ids",
    "label_names",
    "map_labels",
    "named_labels",
    "unannotated_ids",
]

IGNORED = -1
"""Value of voxels that are left out, whatever they show."""

_IGNORE = "ignore"

Labels: TypeAlias = Mapping[str, int | Sequence[int]]
"""The network's id by name, or several ids where a region is the union of labels (BraTS: ``{"TC": [1, 3]}``)."""


def label_ids(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Check labels and return the ids of each as a tuple.

    Args:
        labels: foreground names with their id (``{"spleen": 1}``) or, for a region, with several ids.

    Returns:
        The names in their order, each with a tuple of at least one id.

    Raises:
        ValueError: If there is no label, a name is not text, or an id is not an integer above 0.

    Example:
        >>> label_ids({"edema": 2, "TC": [1, 3]})
        {'edema': (2,), 'TC': (1, 3)}
    """
    if not isinstance(labels, Mapping) or not labels:
        raise ValueError(f"labels must map names to ids, such as {{'spleen': 1}}, got {labels!r}.")
    return {_checked_name(name): _checked_ids(name, value) for name, value in labels.items()}


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            f"label names must be non-empty text, got {name!r}. Write labels as name to id, such as {{'spleen': 1}}."
        )
    _check_printable(name, "labels")
    if is_ignore(name):
        raise ValueError(f"labels names {name!r}, which stands for voxels that are not learned; leave it out.")
    return name


def is_label_id(value: object) -> bool:
    """Return whether a value reads as the id of a label: a whole number of at most nine digits.

    Example:
        >>> is_label_id("13"), is_label_id("-1"), is_label_id("9" * 5000)
        (True, False, False)
    """
    return str(value).isdecimal() and len(str(value)) <= 9


def _check_printable(name: str, place: str) -> None:
    if printable(name) != name:
        raise ValueError(f"{place} names {name!r}, which has control characters; rename it.")


def is_ignore(name: str) -> bool:
    """Return whether a dataset's files name an id so whose voxels are left out, as in nnU-Net."""
    return name.strip().lower() == _IGNORE


def _checked_ids(name: str, value: object) -> tuple[int, ...]:
    ids = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not ids or any(not isinstance(i, int) or isinstance(i, bool) or i < 1 for i in ids):
        raise ValueError(
            f"the id of label {name!r} must be an integer above 0 (0 is the background) or a list of such integers, "
            f"got {value!r}. Name the foreground labels only."
        )
    return ids


def label_names(content: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the label ids in a dataset's files, background included; none if ``dataset.json`` has none.

    The id of voxels to ignore is left out, see :func:`ignored_id`.

    Args:
        content: content of ``dataset.json``.

    Raises:
        ValueError: If its ``labels`` do not map ids to names, several ids have the same name, or the id of ``ignore``
            is not the highest.

    Example:
        >>> label_names({"labels": {"0": "background", "1": "spleen", "2": "ignore"}})
        {0: 'background', 1: 'spleen'}
    """
    return {index: name for index, name in _names_in_files(content).items() if not is_ignore(name)}


def ignored_id(content: Mapping[str, Any]) -> int | None:
    """Return the id in a dataset's files of voxels to ignore, named ``ignore`` as in nnU-Net; ``None`` if none is.

    Args:
        content: content of ``dataset.json``.

    Raises:
        ValueError: As :func:`label_names`.

    Example:
        >>> ignored_id({"labels": {"0": "background", "1": "spleen", "2": "ignore"}})
        2
    """
    return next((index for index, name in _names_in_files(content).items() if is_ignore(name)), None)


def check_ignored(names: Mapping[int, str], place: str) -> None:
    """Check that the id of voxels to ignore is the highest, as in nnU-Net.

    Args:
        names: names by id.
        place: where they were given, for the message.

    Raises:
        ValueError: If a structure has a higher one, or several ids are ignored.
    """
    ignored = [index for index, name in names.items() if is_ignore(name)]
    if ignored and ignored != [max(names)]:
        raise ValueError(
            f"{place} gives 'ignore' the id {ignored[0]}, but ids go up to {max(names)}; its id must be the highest, "
            "as in nnU-Net."
        )


def _names_in_files(content: Mapping[str, Any]) -> dict[int, str]:
    labels = content.get("labels", {})
    if not isinstance(labels, Mapping) or not all(
        is_label_id(index) and isinstance(name, str) and name.strip() for index, name in labels.items()
    ):
        raise ValueError(f"'labels' of dataset.json must map ids to names, such as {{'1': 'spleen'}}, got {labels!r}.")
    names = {int(index): name for index, name in labels.items()}
    for name in names.values():
        _check_printable(name, "'labels' of dataset.json")
    repeated = sorted(name for name, count in Counter(names.values()).items() if count > 1)
    if repeated:
        raise ValueError(f"'labels' of dataset.json names several ids {repeated[0]!r}; give each a name of its own.")
    check_ignored(names, "'labels' of dataset.json")
    return names


def count_classes(labels: Mapping[str, Any]) -> int:
    """Return the number of channels that a network needs for these labels, background included.

    Raises:
        ValueError: If a label does not have a single id, an integer above 0.

    Example:
        >>> count_classes({"spleen": 1, "liver": 2})
        3
    """
    for name, index in labels.items():
        if isinstance(index, bool) or not isinstance(index, int) or index < 1:
            raise ValueError(
                f"labels gives {name!r} {index!r}; each label needs one id, 1 or more. Put regions in reported."
            )
    return 1 + max(labels.values(), default=0)


def component_ids(labels: Labels, names: Sequence[str] | None) -> list[int]:
    """Return the ids of the labels of which only the largest component is kept.

    Args:
        labels: all labels.
        names: names of some of them; none or ``None`` for no such labels.

    Raises:
        ValueError: If it is no list, or names something else than a label with one id.

    Example:
        >>> component_ids({"spleen": 1, "liver": 2}, ["liver"])
        [2]
    """
    ids = label_ids(labels)
    single = {name: members[0] for name, members in ids.items() if len(members) == 1}
    if names is not None and not isinstance(names, list | tuple):
        raise ValueError(f"largest_components must be a list of labels, such as {[next(iter(ids))]}, got {names!r}.")
    for name in names or ():
        if name not in single:
            hint = nearest_name(str(name), sorted(single)) or f" It has {', '.join(map(repr, single))}."
            raise ValueError(f"largest_components names {name!r}, which labels does not have.{hint}")
    return [single[name] for name in names or ()]


def map_labels(names: Mapping[int, str], labels: Labels, ignored: int | None = None) -> list[list[int]]:
    """Return which id of a network each id of a dataset's files becomes, matched by name.

    Args:
        names: names of the ids in the files, from :func:`label_names`.
        labels: names with the network's ids.
        ignored: id of voxels to ignore, from :func:`ignored_id`; it becomes :data:`IGNORED`.

    Returns:
        The ids in the files, in order, and the ids that they become: equal where ``names`` is empty.

    Raises:
        ValueError: If ``names`` lacks a name of ``labels``, or an id of a region has no name of its own.

    Example:
        >>> map_labels({0: "background", 1: "spleen", 2: "liver", 3: "aorta"}, {"liver": 1, "spleen": 2})
        [[0, 1, 2, 3], [0, 2, 1, 0]]
    """
    ids = label_ids(labels)
    if not names:
        unchanged = sorted({0, *(index for members in ids.values() for index in members)})
        return [unchanged, list(unchanged)]
    classes = named_labels(names, labels)
    for region, members in ids.items():
        unnamed = sorted(set(members) - set(classes.values()))
        if unnamed:
            raise ValueError(
                f"labels has {unnamed[0]} in the region {region!r} but no name for {unnamed[0]} alone, by which to "
                f"find it in dataset.json ({', '.join(map(repr, sorted(names.values())))})."
            )
    targets = {index: classes.get(names[index], 0) if index else 0 for index in sorted(names)}
    targets |= {} if ignored is None else {ignored: IGNORED}
    return [list(targets), list(targets.values())]


def unannotated_ids(lowest: float, unannotated: Sequence[Sequence[int]]) -> list[int]:
    """Return the ids of the structures that are not annotated in a case.

    Args:
        lowest: lowest value of its label map.
        unannotated: what negative values stand for, from :func:`medcontext.data.unannotated_labels`.

    Example:
        >>> unannotated_ids(-2, [[1, 2, 3], [3]]), unannotated_ids(-1, [[1, 2, 3], [3]])
        ([3], [])
    """
    return list(unannotated[-1 - int(lowest)]) if unannotated and lowest < IGNORED else []


def named_labels(names: Mapping[int, str], labels: Labels) -> dict[str, int]:
    """Return the labels that are not regions, with the network's id of each.

    Raises:
        ValueError: If ``dataset.json`` has names, but not one of these; names the most similar one.

    Example:
        >>> named_labels({1: "edema", 2: "enhancing"}, {"edema": 1, "enhancing": 2, "tumor": [1, 2]})
        {'edema': 1, 'enhancing': 2}
    """
    known, ids = sorted(set(names.values())), label_ids(labels)
    single = {name: members[0] for name, members in ids.items() if isinstance(labels[name], int) or name in known}
    for name in single:
        if known and name not in known:
            hint = nearest_name(name, known) or f" It has {', '.join(map(repr, known))}."
            raise ValueError(f"labels names {name!r}, which dataset.json does not have.{hint}")
    return single
