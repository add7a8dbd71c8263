from __future__ import annotations

import itertools

import pandas as pd
import pytest

from rank_trial import result_lines


def trial(gain: list[float]) -> pd.DataFrame:
    """Networks of three seeds, those of ranked cases ahead by so much."""
    rounds = itertools.product((4, 8, 12), range(3), ("random", "rank"))
    rows = [(seed, way, cases, 0.7 + (cases > 4 and way == "rank") * gain[seed]) for cases, seed, way in rounds]
    return pd.DataFrame(rows, columns=["seed", "strategy", "cases", "mean_dice"])


@pytest.mark.parametrize(
    ("gain", "text", "verdict"),
    [
        # deviation 0.01, Student's t of two degrees 4.303: half the interval is 4.303 · 0.01 / √3 = 0.025
        ([0.04, 0.05, 0.06], "| 8 | 3 | 0.700 | 0.750 | +0.050 (+0.025 to +0.075) |", "Ranking beat random"),
        ([-0.01, 0.0, 0.01], "| 12 | 3 | 0.700 | 0.700 | +0.000 (−0.025 to +0.025) |", "did not clearly beat random"),
    ],
)
def test_ranking_beats_random_choice_only_if_its_interval_does(gain: list[float], text: str, verdict: str) -> None:
    lines = list(result_lines(trial(gain)))
    assert text in lines
    assert verdict in lines[-1]


def test_single_seeds_give_no_verdict() -> None:
    table = trial([0.04, 0.05, 0.06])
    lines = list(result_lines(table[table["seed"] == 0]))
    assert "| 8 | 1 | 0.700 | 0.740 | +0.040 |" in lines
    assert "did not clearly beat" in lines[-1]
    assert "Nothing has been compared" in list(result_lines(table[table["cases"] == 4]))[-1]
