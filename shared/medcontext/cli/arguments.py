"""Values from the command line."""

from __future__ import annotations

from typing import Any

__all__ = ["as_tuple"]


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Return a value, or several that are separated by commas, as a tuple.

    Example:
        >>> as_tuple("unetr"), as_tuple([0, 1])
        (('unetr',), (0, 1))
    """
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)
