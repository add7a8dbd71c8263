from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medcontext.reliability import CalibrationError, fit_calibration, read_calibration, write_calibration

WEIGHTS = {"model.pt": "a", "teacher.pt": "b"}
FEATURES = ("moving_average", "dropped_organs")


def fitted(agreement: torch.Tensor, dice: torch.Tensor) -> Any:
    """Calibration of agreements (N, 2) and Dice (N,) of one label."""
    return fit_calibration(
        list(agreement[:, None]), list(dice[:, None]), {"liver": 1}, weights=WEIGHTS, features=FEATURES
    )


def test_a_line_is_recovered_and_its_estimates_stay_within_0_and_1() -> None:
    agreement = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    calibration = fitted(agreement, 0.1 + 0.7 * agreement.mean(1))
    fit = calibration.labels["liver"]
    assert (fit.intercept, fit.slope) == pytest.approx((0.1, 0.7), abs=1e-5)
    assert fit.error < 1e-5 < fit.error_of_mean
    assert calibration.estimates(torch.tensor([[0.4, 0.6]]))["liver"] == pytest.approx(0.45, abs=1e-5)
    assert calibration.estimates(torch.tensor([[2.0, 2.0]]))["liver"] == 1
    assert math.isnan(calibration.estimates(torch.tensor([[math.nan, 0.5]]))["liver"])


def test_noise_draws_the_slope_to_the_expected_one() -> None:
    """Agreements of 0.4 and 0.6, ten each, at both of which the Dice is 0.4 or 0.6: worked out by hand."""
    agreement = torch.tensor([0.4, 0.6]).repeat(10)[:, None].expand(20, 2)
    fit = fitted(agreement, torch.tensor([0.4, 0.4, 0.6, 0.6]).repeat(5)).labels["liver"]
    information, noise = 20 * 0.1**2, 20 * 0.1**2 / 18  # slope 0 by the cases alone
    assert fit.slope == pytest.approx(noise / (information + noise), abs=1e-5)


def test_more_agreement_never_lowers_the_estimate() -> None:
    agreement = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    fit = fitted(agreement, 0.9 - 0.8 * agreement.mean(1)).labels["liver"]
    assert fit.slope == 0
    assert fit.error == pytest.approx(fit.error_of_mean)  # it says no more than the mean


def test_the_error_is_that_of_cases_left_out() -> None:
    """Of eleven equal Dice and one other, each is estimated as the mean of the others; worked out by hand."""
    dice = torch.tensor([0.6] * 11 + [0.48])
    fit = fitted(torch.ones(12, 2), dice).labels["liver"]
    # the outlier is 0.12 from 0.6, each other one 0.12 / 11 from the mean of ten of 0.6 and one of 0.48
    assert fit.error == pytest.approx((0.12 + 11 * 0.12 / 11) / 12, abs=1e-6)
    assert fit.error == pytest.approx(fit.error_of_mean, abs=1e-6)


def test_labels_with_few_cases_have_no_estimate() -> None:
    agreement, dice = torch.full((12, 2, 2), 0.9), torch.full((12, 2), 0.8)
    dice[9:, 1] = math.nan  # where the spleen does not count
    labels = {"liver": 1, "spleen": 2}
    calibration = fit_calibration(list(agreement), list(dice), labels, weights=WEIGHTS, features=FEATURES)
    assert calibration.estimates(agreement[0]) == {
        "liver": pytest.approx(0.8),
        "spleen": pytest.approx(math.nan, nan_ok=True),
    }
    assert calibration.mean({"liver": math.nan, "spleen": math.nan}) == 0  # all cases have a liver
    assert calibration.mean({"liver": 0.5, "spleen": math.nan}) == 0.5
    assert "The Dice of spleen is not estimated: that needs 10 labelled cases" in calibration.reason
    assert "there are 9" in calibration.reason
    nothing = fit_calibration([], [], labels, weights=WEIGHTS, features=FEATURES)
    assert not nothing.is_known
    assert "The Dice of any label is not estimated" in nothing.reason


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(CalibrationError, match="cannot be written"):
        write_calibration(fitted(torch.rand(12, 2), torch.rand(12)), tmp_path / "models")


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    agreement = torch.rand(12, 2, generator=torch.Generator().manual_seed(0))
    calibration = fitted(agreement, agreement.mean(1))
    labels = {"liver": replace(calibration.labels["liver"], test_error=0.125)}
    calibration = replace(calibration, labels=labels, test_cases=4)
    write_calibration(calibration, tmp_path)
    assert read_calibration(tmp_path, WEIGHTS) == calibration
    assert read_calibration(tmp_path / "elsewhere", WEIGHTS) is None
    with pytest.raises(CalibrationError, match="was made for other weights"):
        read_calibration(tmp_path, {**WEIGHTS, "teacher.pt": "c"})


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"liver": {"ids": [1], "cases": 12, "intercept": 0.1, "slopes": [0.5]}}},
        {"labels": {"liver": {"ids": [1], "cases": 12, "intercept": None, "slope": 0.5}}},
        {"labels": {"liver": {"ids": ["$x"], "cases": 12}}},
        {"labels": []},
        {"other": 1},
    ],
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write_calibration(fitted(torch.rand(12, 2), torch.rand(12)), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CalibrationError, match=r"quality\.json is not a calibration .*; remove it and evaluate"):
        read_calibration(tmp_path, WEIGHTS)
