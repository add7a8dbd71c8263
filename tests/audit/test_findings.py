from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from medcontext.audit import find_unusual

CASES = [f"case_{number}" for number in range(8)]


@pytest.fixture
def structures() -> pd.DataFrame:
    """Eight similar cases with two kidneys, 60 mm to both sides."""
    random, rows = np.random.default_rng(0), []
    for case in CASES:
        for label, x in (("left_kidney", -60), ("right_kidney", 60)):
            place = dict(zip(("x_mm", "y_mm", "z_mm"), np.array([x, 0, 0]) + random.normal(0, 3, 3), strict=True))
            volume, intensity = 150 + random.normal(0, 10), 1 + random.normal(0, 0.05)
            measures = {"volume_ml": volume, "pieces": 1, "outside_share": 0.0, "intensity": intensity}
            rows.append({"case": case, "label": label, **place, **measures})
    return pd.DataFrame(rows)


@pytest.fixture
def shifts() -> pd.DataFrame:
    return pd.DataFrame({"case": CASES, "shift": [(0, 1, 0)] * 8, "gain": [0.2, 0.0, 0.5, 0.3, 0.1, 0.4, 0.2, 0.3]})


def test_similar_cases_are_not_reported(structures: pd.DataFrame, shifts: pd.DataFrame) -> None:
    assert find_unusual(structures, shifts) == []


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"volume_ml": 0.0, "x_mm": np.nan}, "missing", "left_kidney is missing; 7 of 8 cases have it."),
        ({"volume_ml": 30.0}, "volume", r"left_kidney has 30 ml; the median is 1\d\d ml."),
        ({"volume_ml": 700.0}, "volume", "left_kidney has 700 ml"),
        ({"intensity": -1.0}, "intensity", r"lies -1.00 standard deviations .* the median is \+"),
        ({"pieces": 3.0, "outside_share": 0.4}, "islands", "in 3 pieces, 40% of it apart from the largest one"),
    ],
)
def test_an_unusual_structure_is_reported(
    changes: dict[str, Any], kind: str, text: str, structures: pd.DataFrame, shifts: pd.DataFrame
) -> None:
    chosen = (structures["case"] == "case_3") & (structures["label"] == "left_kidney")
    structures.loc[chosen, list(changes)] = list(changes.values())
    (finding,) = find_unusual(structures, shifts)
    assert (finding.case, finding.kind, finding.labels) == ("case_3", kind, ("left_kidney",))
    assert pd.Series([finding.text]).str.contains(text, regex=True).item(), finding.text


def test_exchanged_structures_are_reported(structures: pd.DataFrame, shifts: pd.DataFrame) -> None:
    structures.loc[structures["case"] == "case_5", "x_mm"] *= -1
    (finding,) = find_unusual(structures, shifts)
    assert (finding.case, finding.kind, finding.labels) == ("case_5", "exchanged", ("left_kidney", "right_kidney"))


@pytest.mark.parametrize(
    ("shift", "gain", "reported"), [((3, 1, 0), 3.0, True), ((3, 1, 0), 0.6, False), ((0, 2, 0), 3.0, False)]
)
def test_a_shift_unlike_the_usual_one_is_reported(
    shift: tuple[int, int, int], gain: float, reported: bool, structures: pd.DataFrame, shifts: pd.DataFrame
) -> None:
    shifts.at[2, "shift"], shifts.at[2, "gain"] = shift, gain
    found = find_unusual(structures, shifts)
    assert [(finding.case, finding.kind) for finding in found] == ([("case_2", "shifted")] if reported else [])


def test_islands_of_what_is_always_in_pieces_are_not_reported(structures: pd.DataFrame, shifts: pd.DataFrame) -> None:
    structures["outside_share"] = 0.3
    assert find_unusual(structures, shifts) == []


def test_few_cases_are_not_compared(structures: pd.DataFrame, shifts: pd.DataFrame) -> None:
    few = structures[structures["case"].isin(CASES[:4])].reset_index(drop=True)
    few.loc[0, "volume_ml"] = 5000
    assert find_unusual(few, shifts[:4]) == []


def test_a_structure_that_few_cases_have_annotated_is_not_compared(
    structures: pd.DataFrame, shifts: pd.DataFrame
) -> None:
    structures.loc[(structures["case"] == "case_1") & (structures["label"] == "left_kidney"), "volume_ml"] = 5.0
    assert [finding.case for finding in find_unusual(structures, shifts)] == ["case_1"]
    few = structures[(structures["label"] != "left_kidney") | structures["case"].isin(CASES[:4])]
    assert find_unusual(few, shifts) == []
