"""Names of labels and the ids that they stand for in a label map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

__all__ = ["LabelMapping", "label_ids"]

LabelMapping: TypeAlias = Mapping[str, int | Sequence[int]]
"""Name to id, or name to ids where a region is the union of several labels (BraTS: ``{"TC": [1, 3]}``)."""


def label_ids(labels: LabelMapping) -> dict[str, tuple[int, ...]]:
    """Check a mapping of label names and return every label's ids as a tuple.

    Args:
        labels: foreground names with their id (``{"spleen": 1}``) or, for a region, with several ids.

    Returns:
        The names in their order, each with a tuple of at least one id.

    Raises:
        ValueError: when there is no label, a name is no text, or an id is not an integer above 0.
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
