"""A choice of a plan, and the table that explains all of them."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Choice", "table"]

WIDEST_VALUE = 34


@dataclass(frozen=True)
class Choice:
    """One choice.

    Attributes:
        setting: the key of the configuration, or what is estimated or remarked.
        value: its value; for a key a JSON value.
        why: the reason, without a full stop.
        shown: the value as the table shows it, where that is not its text.
        is_key: whether the plan sets it; remarks and estimates are only shown.
    """

    setting: str
    value: Any
    why: str
    shown: str | None = None
    is_key: bool = True

    @property
    def text(self) -> str:
        """The value as the table shows it."""
        if self.shown is not None:
            return self.shown
        return ", ".join(map(str, self.value)) if isinstance(self.value, (list, tuple)) else str(self.value)


def table(title: str, choices: Sequence[Choice], width: int | None = None) -> str:
    """Format choices as a table of setting, value and reason under a title.

    Args:
        title: first line.
        choices: the choices, in the order of the rows.
        width: characters in a line; by default those of the terminal.
    """
    columns = [("setting", "value", "why"), *((choice.setting, choice.text, choice.why) for choice in choices)]
    first = max(len(row[0]) for row in columns)
    second = min(max(len(row[1]) for row in columns), WIDEST_VALUE)
    third = max((width or shutil.get_terminal_size((120, 24)).columns) - first - second - 6, 30)
    return "\n".join([title, *(line for row in columns for line in _lines(row, (first, second, third)))])


def _lines(row: Iterable[str], widths: Sequence[int]) -> list[str]:
    """Return the lines of a row whose cells are broken at these widths."""
    cells = [textwrap.wrap(text, width) or [""] for text, width in zip(row, widths, strict=True)]
    height = max(map(len, cells))
    filled = [[*cell, *[""] * (height - len(cell))] for cell in cells]
    return [
        "  ".join(["", *(text.ljust(width) for text, width in zip(line, widths, strict=True))]).rstrip()
        for line in zip(*filled, strict=True)
    ]
