"""Values from the command line."""

from __future__ import annotations

from typing import Any

__all__ = ["as_tuple"]


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Return a value, or several that are separated by commas, as a tuple.

    Example:
        >>> as_tuple("unetr"), as_tuple([0, 1]), as_tuple("data/a,data/b")
        (('unetr',), (0, 1), ('data/a', 'data/b'))
    """
    if isinstance(value, str):  # names with a slash, unlike plain ones, are not separated yet
        return tuple(part.strip() for part in value.split(","))
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)
