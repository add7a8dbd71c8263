from __future__ import annotations

import math

import numpy as np
import pytest

from medcontext.comparison.learning_curves import LearningCurve, fit_curves

CASES = np.array([6.0, 12.0, 24.0])
ONES = np.ones(3)


def fit(*dice: float, weights: np.ndarray = ONES) -> LearningCurve:
    (curve,) = fit_curves(CASES, np.array([dice]), weights)
    return curve


@pytest.mark.parametrize(
    ("removable", "exponent", "floor"), [(0.6, 0.5, 0.0), (0.3, 0.5, 0.1), (0.2, 1.5, 0.05), (0.4, 0.1, 0.0)]
)
def test_a_power_law_is_found_again(removable: float, exponent: float, floor: float) -> None:
    truth = LearningCurve(6, 24, removable, exponent, floor)
    found = fit(*(truth.dice(cases) for cases in CASES))
    for cases in (6, 11, 24):
        assert found.dice(cases) == pytest.approx(truth.dice(cases), abs=2e-3)
        assert found.cases(truth.dice(cases)) == pytest.approx(cases, rel=0.02)


def test_known_points_of_a_curve() -> None:
    curve = LearningCurve(6, 24, 0.4, 1.0, 0.1)  # error 0.1 + 2.4 / n
    assert curve.dice(12) == pytest.approx(0.7)
    assert curve.cases(0.7) == pytest.approx(12)
    assert curve.cases(0.9) == curve.cases(0.95) == math.inf  # above what it reaches


def test_more_labels_never_hurt() -> None:
    falling = fit(0.7, 0.65, 0.6)
    assert (falling.removable, falling.floor) == (0, pytest.approx(0.35))
    assert falling.dice(100) == pytest.approx(0.65)
    noisy = fit(0.6, 0.7, 0.65)
    assert noisy.dice(6) <= noisy.dice(12) <= noisy.dice(24)
    assert noisy.dice(24) == pytest.approx(0.675, abs=1e-3)  # the error is gone with the second number


def test_the_error_never_falls_below_zero() -> None:
    straight = fit(0.6, 0.8, 1.0)
    assert straight.floor == 0
    assert straight.dice(1000) <= 1


def test_a_flat_curve_says_nothing_about_numbers_of_cases() -> None:
    flat = fit(0.7, 0.7, 0.7)
    assert [flat.cases(dice) for dice in (0.6, 0.8)] == [0, math.inf]
    assert math.isnan(flat.cases(0.7))


def test_numbers_with_more_runs_weigh_more() -> None:
    heavy = fit(0.6, 0.75, 0.7, weights=np.array([1.0, 3.0, 1.0]))
    assert heavy.dice(12) == pytest.approx((3 * 0.75 + 0.7) / 4, abs=3e-3)


def test_curves_are_fitted_each_for_itself() -> None:
    both = fit_curves(CASES, np.array([[0.6, 0.7, 0.8], [0.5, 0.6, 0.65]]), ONES)
    assert both == [fit(0.6, 0.7, 0.8), fit(0.5, 0.6, 0.65)]


def test_two_numbers_make_no_curve() -> None:
    with pytest.raises(ValueError, match="at least three numbers of cases, got 2"):
        fit_curves(CASES[:2], np.array([[0.6, 0.7]]), ONES[:2])
