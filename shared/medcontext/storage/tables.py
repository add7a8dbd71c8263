"""Tables as CSV, which spreadsheets open too."""

from __future__ import annotations

from typing import Any

import pandas as pd

from medcontext.text import printable

__all__ = ["csv_bytes", "read_csv_text"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters with which a spreadsheet begins a formula, which may run programs (OWASP, CSV injection)."""


def csv_bytes(table: pd.DataFrame) -> bytes:
    """Return a table as CSV, with numbers to six digits.

    Text that a spreadsheet would run as a formula begins with an apostrophe, and control characters are escaped.
    """
    return table.map(_cell).to_csv(index=False, float_format="%.6g").encode()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.startswith(_FORMULA) else printable(value)


def read_csv_text(values: pd.Series) -> pd.Series:
    """Return a column of texts of :func:`csv_bytes` without the apostrophes before formulas."""
    return values.str.replace(r"^'(?=[=+\-@]|\\[tr])", "", regex=True)
