"""Estimates of the Dice: calibrated by an evaluation and given with predictions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bundle_runs import UNETR, read_json, run_trained
from thresholds import write_models, write_scans

pytestmark = pytest.mark.usefixtures("blank_pictures")


def evaluate(models: Path, data: Path, **overrides: Any) -> Path:
    keys = {
        "dataset_dir": str(data),
        "dataset": "mine",
        "ckpt_dir": str(models),
        "output_dir": str(models.parent),
        "device": "cpu",
        "amp": False,
    }
    run_trained(UNETR, "evaluating", "train", "evaluate", estimate_quality=True, **keys, **overrides)
    return models.parent / "evaluation"


def predict(models: Path, data: Path, **overrides: Any) -> Path:
    keys = {
        "dataset_dir": str(data / "scans"),
        "ckpt_dir": str(models),
        "output_dir": str(models.parent),
        "device": "cpu",
        "save_overlay": False,
    }
    run_trained(UNETR, "inferring", "inference", **{"estimate_quality": True, **keys, **overrides})
    return models.parent / "predictions"


def test_estimates_come_from_cases_that_were_not_trained_on(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_scans(home / "mine", 13, unlabeled=3)
    models = write_models(home / "run" / "models", ["case00"])
    report = evaluate(models, data)
    calibration = read_json(models / "quality.json")
    block = calibration["labels"]["block"]
    assert (calibration["cases"], block["cases"], calibration["test_cases"]) == (12, 12, 2)
    assert block["error"] < block["error_of_mean"] / 3
    table = pd.read_csv(report / "metrics.csv")
    errors = (table["estimated_dice"] - table["dice"]).abs()
    assert errors.max() < 0.1
    assert block["test_error"] == pytest.approx(errors.mean(), abs=1e-5)
    assert "Estimated Dice" in (report / "report.html").read_text(encoding="utf-8")

    caplog.set_level(logging.WARNING)
    out = predict(models, data, review_first=2)
    table = pd.read_csv(out / "quality.csv")
    assert table["case"].tolist() == ["case17", "case16", "case15"]  # the noisiest first
    quality = read_json(out / "case17.json")["quality"]
    assert quality["estimates"]["block"] == {
        "dice": pytest.approx(table["block"][0], abs=1e-4),
        "error": block["error"],
        "test_error": block["test_error"],
    }
    assert "look first at case17 (" in caplog.text
    assert "case15" not in caplog.text.partition("look first at ")[2].partition(":")[0]

    other = {**calibration, "weights": {**calibration["weights"], "teacher.pt": "0"}}
    (models / "quality.json").write_text(json.dumps(other))
    with pytest.raises(SystemExit, match="was made for other weights than those beside it; remove it and evaluate"):
        predict(models, data)
    evaluate(models, data)  # which makes a new one
    assert read_json(models / "quality.json")["labels"] == calibration["labels"]


def test_with_few_cases_a_sentence_says_why_there_is_no_estimate(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_scans(home / "mine", 11)
    models = write_models(home / "run" / "models", ["case00", "case01"])
    out = predict(models, data)
    reason = read_json(out / "case13.json")["quality"]["reason"]
    assert f"{models / 'model.pt'} has not been calibrated; evaluate it with --estimate_quality True" in reason
    report = evaluate(models, data)
    assert "estimated_dice" not in pd.read_csv(report / "metrics.csv").columns
    reason = "needs 10 labelled cases with it that the network did not see in training, and there are 9"
    assert reason in (report / "report.html").read_text(encoding="utf-8")
    assert reason in caplog.text
    assert reason in read_json(predict(models, data) / "case13.json")["quality"]["reason"]
    assert not (out / "quality.csv").exists()

    next(iter(data.rglob("case05*.nii.gz"))).write_bytes(b"")  # a case that cannot be read does not end the others
    evaluate(models, data)
    assert reason.replace("are 9", "are 8") in caplog.text


def test_several_checkpoints_have_no_estimate(home: Path) -> None:
    data = write_scans(home / "mine", 2)
    paths = [str(write_models(home / name / "models", []) / "model.pt") for name in ("one", "two")]
    with pytest.raises(SystemExit, match="belongs to one network; give one checkpoint, not 2"):
        predict(home / "one" / "models", data, ckpt_path=paths)
