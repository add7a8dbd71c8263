"""Values of the command line."""

from __future__ import annotations

from typing import Any

__all__ = ["as_tuple"]


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One value, or the several that commas separate, as a tuple."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)
