from __future__ import annotations

import math

import pandas as pd
import pytest

from medcontext.report.page import number
from medcontext.report.tables import LABEL_COLUMNS, PAPER_COLUMNS, Column, label_table

NAN = math.nan
METRICS = pd.DataFrame(
    [
        ("one", "spleen", 0.8, 2.0, 10.0, 12.0, False, False),
        ("one", "liver", 0.9, 4.0, 100.0, 99.0, False, False),
        ("two", "spleen", 0.0, NAN, 5.0, 0.0, True, False),
        ("two", "liver", NAN, NAN, 0.0, 0.0, False, False),
    ],
    columns=[
        "case",
        "label",
        "dice",
        "hd95_mm",
        "label_volume_ml",
        "prediction_volume_ml",
        "missed",
        "spurious",
    ],
)


def test_means_medians_and_what_is_left_out() -> None:
    table = label_table(METRICS, LABEL_COLUMNS)
    assert table is not None
    assert table.headings == ["mean Dice", "median Dice", "mean HD95 (mm)", "mean volume error (ml)"]
    values = {label: [value for value, _ in row] for label, row in table.rows.items()}
    # the spleen's volume errors are 2 and -5; the liver counts in one case only
    assert values == {"spleen": ["0.400", "0.400", "2.0", "-1.5"], "liver": ["0.900", "0.900", "4.0", "-1.0"]}
    assert [value for value, _ in table.overall] == ["0.650", "", "3.0", ""]


def test_intervals_lie_below_means() -> None:
    table = label_table(METRICS, LABEL_COLUMNS)
    assert table is not None
    # of two cases, one in four draws is one case twice: the bounds are the cases themselves
    assert table.rows["spleen"] == [
        ("0.400", "0.000 to 0.800"),
        ("0.400", ""),
        ("2.0", "2.0 to 2.0"),
        ("-1.5", "-5.0 to 2.0"),
    ]
    one = label_table(METRICS.iloc[:2], LABEL_COLUMNS)
    assert one is not None
    assert {interval for row in [*one.rows.values(), one.overall] for _, interval in row} == {""}


def test_columns_that_are_not_there() -> None:
    assert label_table(METRICS, PAPER_COLUMNS) is None
    table = label_table(METRICS.assign(paper_dice=[1.0, 0.5, 0.5, 0.5]), PAPER_COLUMNS)
    assert table is not None
    assert table.headings == ["mean Dice", "median Dice"]
    assert [value for value, _ in table.overall] == ["0.625", ""]
    plain = label_table(METRICS.drop(columns="label_volume_ml"), [Column("volume_error_ml", "volume error", 1)])
    assert plain is None


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (-0.0001, "0.000"), (NAN, "–"), (math.inf, "–")])
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text
