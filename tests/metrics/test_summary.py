from __future__ import annotations

import math

import pandas as pd
import pytest

from medcontext.metrics import case_mean_dice, summarise

NAN = math.nan


def table(*rows: tuple[str, str, float, float, bool, bool]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["case", "label", "dice", "hd95_mm", "missed", "spurious"])


METRICS = table(
    ("one", "spleen", 0.8, 2.0, False, False),
    ("one", "liver", 0.9, 4.0, False, False),
    ("two", "spleen", 0.0, NAN, True, False),
    ("two", "liver", NAN, NAN, False, False),
    ("three", "spleen", 0.4, 6.0, False, False),
    ("three", "liver", 0.0, NAN, False, True),
)


def test_averages_by_hand() -> None:
    summary = summarise(METRICS)
    spleen, liver = summary.labels.loc["spleen"], summary.labels.loc["liver"]
    assert list(summary.labels.index) == ["spleen", "liver"]
    assert spleen["dice_mean"] == pytest.approx((0.8 + 0.0 + 0.4) / 3)
    assert spleen["dice_median"] == pytest.approx(0.4)
    assert spleen["dice_std"] == pytest.approx(0.4)  # deviations 0.4, -0.4 and 0 over n - 1 = 2
    assert spleen["dice_count"] == 3
    assert spleen["hd95_mm_mean"] == pytest.approx(4.0)
    assert spleen["hd95_mm_count"] == 2
    assert (spleen["missed"], spleen["spurious"], spleen["cases"]) == (1, 0, 3)
    assert liver["dice_mean"] == pytest.approx(0.45)
    assert (liver["missed"], liver["spurious"], liver["cases"], liver["dice_count"]) == (0, 1, 3, 2)
    assert summary.mean_dice == pytest.approx((0.4 + 0.45) / 2)
    assert (summary.cases, summary.missed, summary.spurious) == (3, 1, 1)


def test_labels_weigh_the_same_however_often_they_occur() -> None:
    rows = [(f"case{i}", "common", 1.0, 0.0, False, False) for i in range(9)]
    summary = summarise(table(*rows, ("case0", "rare", 0.0, NAN, True, False)))
    assert summary.mean_dice == pytest.approx(0.5)


def test_label_that_counts_nowhere_is_left_out_of_the_mean() -> None:
    summary = summarise(table(("a", "x", 0.6, 1.0, False, False), ("a", "y", NAN, NAN, False, False)))
    assert summary.mean_dice == pytest.approx(0.6)
    assert math.isnan(summary.labels.loc["y", "dice_mean"])


def test_further_columns_are_summarised_too() -> None:
    summary = summarise(METRICS.assign(surface_dice=0.5, corrected=True, comment="fine"))
    assert summary.labels.loc["liver", "surface_dice_mean"] == 0.5
    assert summary.labels.loc["liver", "corrected"] == 3
    assert not [name for name in summary.labels.columns if str(name).startswith("comment")]


def test_interval_is_seeded_and_surrounds_the_mean() -> None:
    values = [0.1 * i for i in range(1, 10)]
    metrics = table(*((f"case{i}", "spleen", v, 1.0, False, False) for i, v in enumerate(values)))
    first, again, other = summarise(metrics), summarise(metrics), summarise(metrics, seed=1)
    low, high = first.mean_dice_interval
    assert first.mean_dice_interval == again.mean_dice_interval
    assert first.mean_dice_interval != other.mean_dice_interval
    # the mean of nine evenly spread values has a standard error of 0.258 / 3, times 1.96
    assert (low, high) == pytest.approx((0.5 - 0.169, 0.5 + 0.169), abs=0.02)
    assert (first.labels.loc["spleen", "dice_low"], first.labels.loc["spleen", "dice_high"]) == (low, high)


def test_equal_cases_give_an_interval_without_width() -> None:
    summary = summarise(table(*((c, "spleen", 0.7, 1.0, False, False) for c in "abc")))
    assert summary.mean_dice_interval == pytest.approx((0.7, 0.7))


def test_one_case_has_no_interval() -> None:
    summary = summarise(table(("a", "spleen", 0.7, 1.0, False, False)))
    assert all(math.isnan(bound) for bound in summary.mean_dice_interval)
    assert math.isnan(summary.labels.loc["spleen", "dice_low"])


def test_cases_best_first_with_uncounted_last() -> None:
    metrics = pd.concat([METRICS, table(("four", "spleen", NAN, NAN, False, False))])
    ranked = case_mean_dice(metrics)
    assert list(ranked.index) == ["one", "three", "two", "four"]
    assert ranked["one"] == pytest.approx(0.85)
    assert math.isnan(ranked["four"])


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (METRICS.drop(columns="missed"), r"must have the columns .* but lack \['missed'\]"),
        (METRICS.iloc[:0], "at least one row"),
        (pd.concat([METRICS, METRICS]), r"every label once, got more for \['one', 'spleen'\]"),
    ],
)
def test_refuses_unusable_metrics(metrics: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarise(metrics)


def test_refuses_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        summarise(METRICS, confidence=95)
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        summarise(METRICS, resamples=0)
