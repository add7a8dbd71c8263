from __future__ import annotations

import io

import pandas as pd

from medcontext.storage.tables import csv_bytes, read_csv_text

NAMES = ["=cmd|' /C calc'!A0", "+1", "-2", "@SUM(A1)", "a=b", "'", "-"]


def test_no_cell_is_a_formula_or_an_escape_and_numbers_stay_numbers() -> None:
    table = pd.DataFrame({"case": [*NAMES, "\t=1", "x\x1b[31m"], "value": [-0.123456789] * 9})
    written = pd.read_csv(io.BytesIO(csv_bytes(table)), dtype={"case": str})
    assert list(written["case"]) == [
        "'=cmd|' /C calc'!A0",
        "'+1",
        "'-2",
        "'@SUM(A1)",
        "a=b",
        "'",
        "'-",
        r"'\t=1",
        r"x\x1b[31m",
    ]
    assert list(written["value"]) == [-0.123457] * 9
    assert list(read_csv_text(written["case"][:7])) == NAMES
