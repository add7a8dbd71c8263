from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medcontext.comparison.statistics import MEAN, holm, interval, label_table, paired_cases, wilcoxon_p
from tracked_runs import table, tracked_run

NAN = math.nan


def pair(ours: dict[str, list[float | None]], theirs: dict[str, list[float | None]], seed: int = 0, **kwargs: object):
    return (
        tracked_run("medcontext", table(ours, hd95=2.0), seed=seed, **kwargs),
        table(theirs, hd95=5.0),
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        (0.9, 0.8, 0.1),
        (0.9, 0, 0.9),  # missed by the control
        (0, 0, 0.0),  # missed by both
        (None, -1, 1.0),  # spurious in the control alone
        (-1, None, -1.0),
        (-1, -1, 0.0),
        (None, None, NAN),
    ],
)
def test_difference_of_one_case(ours: float | None, theirs: float | None, difference: float) -> None:
    cases = paired_cases([pair({"liver": [ours]}, {"liver": [theirs]})])
    assert cases["difference"].tolist() == pytest.approx([difference], nan_ok=True)


def test_what_one_pair_predicts_in_vain_counts_in_all() -> None:
    pairs = [
        pair({"liver": [None, 0.9, None]}, {"liver": [-1, 0.8, None]}, seed=0),
        pair({"liver": [None, 0.9, None]}, {"liver": [None, 0.8, None]}, seed=1),
    ]
    cases = paired_cases(pairs)
    assert cases["difference"].tolist() == pytest.approx([1.0, 0.1, NAN, 0.0, 0.1, NAN], nan_ok=True)
    result = label_table(cases)
    assert result.loc["liver", "difference"] == pytest.approx((1.0 + 0.1 + 0.0 + 0.1) / 4)
    assert result.loc["liver", "cases"] == 2


def test_table_of_a_comparison() -> None:
    result = label_table(
        paired_cases(
            [
                pair({"liver": [0.9, 0.8], "spleen": [0.5, None]}, {"liver": [0.7, 0], "spleen": [0.6, -1]}, seed=0),
                pair({"liver": [0.9, 0.8], "spleen": [0.5, None]}, {"liver": [0.5, 0], "spleen": [0.4, -1]}, seed=1),
            ]
        )
    )
    assert list(result.index) == ["liver", "spleen", MEAN]
    liver, spleen = (0.2 + 0.8 + 0.4 + 0.8) / 4, (-0.1 + 1 + 0.1 + 1) / 4
    assert result["difference"].tolist() == pytest.approx([liver, spleen, (liver + spleen) / 2])
    # as the runs' own reports count: spurious 0, correct absence not at all
    assert result["dice_medcontext"].tolist() == pytest.approx([0.85, 0.5, 0.675])
    assert result["dice_control"].tolist() == pytest.approx([0.3, 0.25, 0.275])
    assert result["missed_control"].tolist() == [2, 0, 2]
    assert result["spurious_control"].tolist() == [0, 2, 2]
    assert result["missed_medcontext"].tolist() == [0, 0, 0]
    # where both have a distance: in the first case alone
    assert result["hd95_difference"].tolist() == [-3.0, -3.0, -3.0]
    assert result["hd95_cases"].tolist() == [2, 2, 4]
    assert result["p"].isna().all()  # two cases


def test_tables_without_distances_are_compared() -> None:
    without = table({"liver": [0.5]}).drop(columns="hd95_mm")
    pairs = [(tracked_run("medcontext", without), without)]
    result = label_table(paired_cases(pairs))
    assert result["hd95_difference"].isna().all()
    assert result.loc[MEAN, "hd95_cases"] == 0


def test_cases_of_other_datasets_are_other_cases() -> None:
    dice = {"liver": [0.9, 0.8]}
    cases = paired_cases([pair(dice, dice, tags={"dataset": name}) for name in ("btcv", "mine")])
    assert cases["case"].tolist() == ["btcv/a", "btcv/b", "mine/a", "mine/b"]


def cells(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.nan_to_num(differences), np.isfinite(differences).astype(float)


def test_interval_by_hand() -> None:
    # seeds 0.2, 0.3, 0.4 on average: variance 0.01 / 3; cases 0.2 and 0.4: variance 0.02 / 2
    differences = np.array([[0.1, 0.3], [0.2, 0.4], [0.3, 0.5]])[..., None]
    seeds, cases = 0.01 / 3, 0.02 / 2
    freedom = (seeds + cases) ** 2 / (seeds**2 / 2 + cases**2 / 1)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(seeds + cases)
    for bounds, expected in zip(interval(*cells(differences)), (0.3, 0.3 - half, 0.3 + half), strict=True):
        assert bounds.tolist() == pytest.approx([expected, expected])  # a single label is the mean


def test_interval_is_students_where_cases_agree() -> None:
    differences = np.repeat([0.09, 0.10, 0.11], 4).reshape(3, 4, 1)
    value, low, high = (bound[0] for bound in interval(*cells(differences)))
    expected = stats.t.interval(0.95, 2, loc=0.10, scale=0.01 / math.sqrt(3))
    assert (value, low, high) == pytest.approx((0.10, *expected))


def test_interval_with_labels_that_are_not_in_all_cases() -> None:
    generator = np.random.default_rng(3)
    differences = generator.normal(0.05, 0.1, (4, 5, 2))
    differences[:, :2, 1] = NAN

    def mean(values: np.ndarray) -> float:
        return float(np.mean([np.nanmean(values[..., 0]), np.nanmean(values[..., 1])]))

    parts = []
    for axis, count in ((0, 4), (1, 5)):
        left_out = [mean(np.delete(differences, i, axis)) for i in range(count)]
        parts.append((np.var(left_out) * (count - 1), count))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / (count - 1) for part, count in parts)
    value, low, high = interval(*cells(differences))
    assert value[-1] == pytest.approx(mean(differences))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    assert (low[-1], high[-1]) == pytest.approx((mean(differences) - half, mean(differences) + half))
    # the second label alone is as if its cases were all
    alone = interval(*cells(differences[:, 2:, 1:]))
    assert [bound[1] for bound in (value, low, high)] == pytest.approx([bound[0] for bound in alone])


@pytest.mark.parametrize("shape", [(1, 5), (3, 1)])
def test_no_interval_from_one_seed_or_one_case(shape: tuple[int, int]) -> None:
    value, low, high = interval(*cells(np.full((*shape, 1), 0.2)))
    assert value.tolist() == pytest.approx([0.2, 0.2])
    assert np.isnan([low, high]).all()


def test_equal_differences_leave_no_doubt() -> None:
    value, low, high = interval(*cells(np.full((3, 4, 2), 0.25)))
    assert value.tolist() == low.tolist() == high.tolist() == [0.25] * 3


def test_intervals_from_three_seeds_cover_what_they_say() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        seeds, cases = generator.normal(0, 0.04, (3, 1, 1)), generator.normal(0, 0.01, (1, 12, 1))
        _, low, high = interval(*cells(seeds + cases + generator.normal(0, 0.03, (3, 12, 1))))
        covered += low[0] <= 0 <= high[0]
    assert 0.91 <= covered / 400 <= 0.98  # a percentile bootstrap over seeds and cases: 0.81


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2 / 64),  # all of one sign
        ([0.1, 0.2, 0.3, 0.4, 0.5, -0.6], 28 / 64),  # 14 subsets of the ranks 1 to 6 sum to 6 or less
        ([0.1, 0.2, 0.3, 0.4, 0.5, NAN], NAN),  # five values
        ([0.0] * 8, 1.0),
        ([0.1, 0.2, 0.0, 0.0, 0.0, 0.0, NAN], 0.5),  # two that are not zero
    ],
)
def test_wilcoxon(differences: list[float], p: float) -> None:
    assert wilcoxon_p(np.array(differences)) == pytest.approx(p, nan_ok=True)


def test_wilcoxon_is_over_cases_averaged_over_seeds() -> None:
    gains = [[0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07], [0.03, 0.02, 0.01, -0.1, 0.05, 0.06, 0.09]]
    pairs = [
        pair({"liver": [0.5 + gain for gain in some]}, {"liver": [0.5] * 7}, seed=seed)
        for seed, some in enumerate(gains)
    ]
    result = label_table(paired_cases(pairs))
    expected = stats.wilcoxon(np.round(np.mean(gains, axis=0), 9)).pvalue
    assert result.loc["liver", "p"] == pytest.approx(expected)
    assert result.loc["liver", "p_holm"] == result.loc["liver", "p"]
    assert pd.isna(result.loc[MEAN, "p_holm"])


def test_holm() -> None:
    assert holm(np.array([0.01, 0.04, NAN, 0.03, 0.9])).tolist() == pytest.approx(
        [0.04, 0.09, NAN, 0.09, 0.9], nan_ok=True
    )
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
