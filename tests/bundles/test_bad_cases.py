"""One bad case does not end the others, and is reported."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bundle_runs import UNETR, read_json, run, runs_of
from dicom_scans import OBLIQUE, write_series
from medcontext.data.datalist import hashed_name

THRESHOLD = {"_target_": "bundle_runs.Threshold", "out_channels": "@out_channels"}
VOXELS = OBLIQUE @ np.diag([3, 3.75, 1.5, 1])


def volume() -> np.ndarray:
    """Soft tissue in fat: a block of 8 × 6 × 10 voxels that a threshold finds."""
    image = np.full((20, 24, 28), -150, np.int16)
    image[4:12, 10:16, 6:16] = 200
    return image


def save(array: np.ndarray, path: Path) -> None:
    nib.save(nib.Nifti1Image(array, VOXELS), path)


def damaged(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def failures(folder: Path) -> dict[str, str]:
    return pd.read_csv(folder / "failures.csv").set_index("case")["reason"].to_dict()


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_other_scans_are_predicted(home: Path, num_workers: int) -> None:
    scans = home / "scans"
    scans.mkdir()
    for name in ("a", "broken", "c", "with_nan"):
        save(volume(), scans / f"{name}.nii.gz")
    damaged(scans / "broken.nii.gz")
    save(np.where(volume() == 200, np.nan, volume()), scans / "with_nan.nii.gz")
    (scans / "empty.nii.gz").touch()
    settings = {"network": THRESHOLD, "predictions_dir": str(home / "out"), "num_workers": num_workers}
    with pytest.raises(SystemExit, match=r"medcontext: 3 of 5 cases failed, listed in .*/out/failures.csv: ") as end:
        run(UNETR, "inferring", "inference", dataset_dir=str(scans), **settings)
    assert "\n" not in str(end.value)
    assert {path.stem for path in (home / "out").glob("*.json")} == {"a", "c"}
    assert np.count_nonzero(nib.load(home / "out" / "c_seg.nii.gz").dataobj) == 480
    reasons = failures(home / "out")
    assert reasons.keys() == {"broken", "empty", "with_nan"}
    assert (
        reasons["with_nan"]
        == f"{scans}/with_nan.nii.gz has 480 voxels that are NaN or infinite, or beyond 1e+15; repair the file."
    )
    assert reasons["empty"] == f"{scans}/empty.nii.gz is empty; get it again."

    run(UNETR, "inferring", "inference", dataset_dir=str(scans / "a.nii.gz"), **settings)
    assert not (home / "out" / "failures.csv").exists()


def test_other_series_are_predicted(home: Path) -> None:
    write_series(home / "ct" / "good", volume(), VOXELS)
    write_series(
        home / "ct" / "bolus", volume(), VOXELS, description="Bolus", ImagePositionPatient=[0, 0, 0], SeriesNumber=4
    )
    (home / "ct" / "I1").write_bytes(b"\0" * 128 + b"DICM" + b"garbage")
    with pytest.raises(SystemExit, match="medcontext: 2 of 3 cases failed"):
        run(
            UNETR,
            "inferring",
            "inference",
            dataset_dir=str(home / "ct"),
            network=THRESHOLD,
            predictions_dir=str(home / "out"),
        )
    (predicted,) = (home / "out").glob("*_seg.nii.gz")
    assert np.count_nonzero(nib.load(predicted).dataobj) == 480
    garbage, bolus = sorted(failures(home / "out").values(), key=lambda reason: "several images" in reason)
    assert garbage.startswith(f"{home}/ct/I1 is not a readable DICOM file")
    assert re.fullmatch(r"4_Bolus_\w{8} has several images at one place, .*", bolus)


def test_other_cases_are_evaluated(home: Path) -> None:
    data = home / "mine"
    data.mkdir()
    label = (volume() == 200).astype(np.uint8)
    names = ("good", "broken", "undeclared", "missing")
    for number, name in enumerate(names):
        save(volume() - number, data / f"{name}.nii.gz")
        save(label * (9 if name == "undeclared" else 1), data / f"{name}_label.nii.gz")
    damaged(data / "broken.nii.gz")
    (data / "missing_label.nii.gz").unlink()
    cases = [{"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"} for name in names]
    content = {"labels": {"0": "background", "1": "spleen"}, "training": [], "test": cases}
    (data / "dataset.json").write_text(json.dumps(content))
    settings = {"network": THRESHOLD, "labels": {"spleen": 1}, "reported": {"spleen": 1}, "log_case_names": False}
    with pytest.raises(SystemExit, match=f"medcontext: 3 of 4 cases failed, listed in {home}/out/evaluation"):
        run(
            UNETR,
            "evaluating",
            "train",
            "evaluate",
            dataset="mine",
            dataset_dir=str(data),
            output_dir=str(home / "out"),
            **settings,
        )
    out = home / "out" / "evaluation"
    assert set(pd.read_csv(out / "metrics.csv")["case"]) == {"good"}
    assert failures(out).keys() == {"broken", "undeclared", "missing"}
    summary = read_json(out / "summary.json")
    assert (summary["cases"], len(summary["failed_cases"])) == (1, 3)
    assert "3 of 4 cases could not be evaluated" in (out / "report.html").read_text()
    hidden = (out / "anonymous" / "report.html").read_text()
    assert hashed_name("broken") in hidden
    assert "broken" not in hidden
    (logged,) = runs_of(home)
    assert "**3 test cases failed**" in logged.data.tags["mlflow.note.content"]
    assert logged.data.metrics["test_failed_cases"] == 3
    assert logged.data.metrics["dice/test_mean_dice"] == 1
