"""From the label ids in a dataset's files to those that a network learns, by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any

from medcontext.data.datalist import load_datalist
from medcontext.metrics.label_ids import LabelMapping, label_ids

__all__ = ["count_classes", "label_mapping", "label_names", "map_labels", "named_labels"]


def label_names(content: Mapping[str, Any]) -> dict[int, str]:
    """Names of the label ids in a dataset's files, background included; empty where ``dataset.json`` gives none.

    Args:
        content: of ``dataset.json``.

    Raises:
        ValueError: when ``labels`` is there and does not map ids to names, or gives a name twice.
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
        ValueError: When a label has no id of its own, a whole number above 0.
    """
    for name, index in labels.items():
        if isinstance(index, bool) or not isinstance(index, int) or index < 1:
            raise ValueError(
                f"labels gives {name!r} {index!r}; each label needs one id, 1 or more. Regions belong into reported."
            )
    return 1 + max(labels.values(), default=0)


def label_mapping(datalist: str | os.PathLike[str], labels: LabelMapping) -> list[list[int]]:
    """Original and target labels for MONAI's ``MapLabelValued``, matched by name.

    The ids that the files hold are named in ``dataset.json``; what a network calls the same label is said by the
    configuration. Labels that the configuration does not mention become background, so that a network can be trained
    on some of a dataset's organs, or on another edition of it.

    Args:
        datalist: path of the ``dataset.json``.
        labels: names with the network's ids. A region, a name with several ids, is a union of the network's ids; each
            of these must also have a name of its own, which is what is looked up in ``dataset.json``.

    Returns:
        The ids in the files, in order, and the ids that they become: equal where ``dataset.json`` names no labels.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when ``dataset.json`` does not have a name, naming its nearest; or an id of a region has no name.
    """
    return map_labels(label_names(load_datalist(datalist)), labels)


def map_labels(names: Mapping[int, str], labels: LabelMapping) -> list[list[int]]:
    """As :func:`label_mapping`, from the names that :func:`label_names` gives."""
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


def named_labels(names: Mapping[int, str], labels: LabelMapping) -> dict[str, int]:
    """The configuration's labels that are no regions, by name, with the network's id.

    Raises:
        ValueError: when ``dataset.json`` names labels, but not one of these; naming the nearest.
    """
    known, ids = set(names.values()), label_ids(labels)
    single = {name: some[0] for name, some in ids.items() if isinstance(labels[name], int) or name in known}
    for name in single:
        if known and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(map(repr, sorted(known)))}."
            raise ValueError(f"labels names {name!r}, which dataset.json does not have; {hint}")
    return single
