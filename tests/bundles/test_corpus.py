"""Hostile scans are reported or used for what they are, whatever command meets them, and nothing else happens."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle_runs import UNETR, run
from hostile import SCANS, scan
from medcontext.data import check_dataset, errors_of
from medcontext.text import printable

THRESHOLD = {"_target_": "bundle_runs.Threshold", "out_channels": "@out_channels"}
REFUSED = {printable(one.name): one.said for one in SCANS if one.said}
LISTED = REFUSED | dict.fromkeys(("loop.nii.gz", "folder.nii.gz"), "is missing")
USED = {one.name.removesuffix(".nii.gz") for one in SCANS if not one.said}


@pytest.fixture
def dataset(home: Path) -> Path:
    """A dataset whose test cases are the hostile scans, each with a sound label map."""
    folder = home / "hostile"
    folder.mkdir()
    cases = []
    for number, one in enumerate(SCANS):
        one.write(folder / one.name)
        (folder / "labels").mkdir(exist_ok=True)
        affine = np.diag([4.5, 4.5, 4.5, 1])
        if one.said is None:
            affine = nib.load(folder / one.name).affine
        nib.save(nib.Nifti1Image((scan() == 200).astype(np.uint8), affine), folder / "labels" / f"{number}.nii.gz")
        cases.append({"image": one.name, "label": f"labels/{number}.nii.gz"})
    content = {"labels": {"0": "background", "1": "spleen"}, "training": [], "test": cases}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def assert_all_said(reasons: dict[str, str], refused: dict[str, str]) -> None:
    """Each scan that cannot be used has its reason, in one line, and no other has one."""
    assert reasons.keys() == refused.keys()
    assert {name: reasons[name] for name, said in refused.items() if said not in reasons[name]} == {}
    assert not [reason for reason in reasons.values() if printable(reason) != reason]


def failures(folder: Path) -> dict[str, str]:
    with (folder / "failures.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {Path(row["image"]).name: row["reason"] for row in rows}


def one_line(said: BaseException) -> None:
    assert printable(str(said)) == str(said)
    assert "Traceback" not in str(said)


@pytest.mark.slow
def test_prediction(home: Path, dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (dataset / "dataset.json").unlink()
    settings = {"network": THRESHOLD, "predictions_dir": str(home / "out"), "save_overlay": False}
    with pytest.raises(SystemExit, match=f"medcontext: {len(REFUSED)} of {len(SCANS)} cases failed") as end:
        run(UNETR, "inferring", "inference", dataset_dir=str(dataset), **settings)
    one_line(end.value)
    shown = "".join(capfd.readouterr()).replace("\x1b[A", "")  # of the progress bar
    assert "\x1b[31m" not in shown
    assert "Traceback" not in shown
    assert_all_said(failures(home / "out"), REFUSED)
    predicted = {path.name.removesuffix("_seg.nii.gz"): path for path in (home / "out").glob("*_seg.nii.gz")}
    assert predicted.keys() == USED
    voxels = {name: np.count_nonzero(nib.load(path).dataobj) for name, path in predicted.items() if name != "minute"}
    assert set(voxels.values()) == {480}


@pytest.mark.slow
@pytest.mark.usefixtures("blank_pictures")
def test_evaluation(home: Path, dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=f"medcontext: {len(REFUSED)} of {len(SCANS)} cases failed") as end:
        run(
            UNETR,
            "evaluating",
            "train",
            "evaluate",
            dataset="hostile",
            dataset_dir=str(dataset),
            output_dir=str(home / "out"),
            network=THRESHOLD,
            labels={"spleen": 1},
            reported={"spleen": 1},
            log_case_names=True,
        )
    one_line(end.value)
    out = home / "out" / "evaluation"
    assert_all_said(failures(out), LISTED)
    with (out / "metrics.csv").open(encoding="utf-8") as stream:
        assert {row["case"] for row in csv.DictReader(stream)} == {
            f"'{name}" if name[0] == "=" else name for name in USED
        }
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    shown = "".join(capfd.readouterr())
    assert "\x1b[31m" not in shown
    assert "Traceback" not in shown


def test_check(dataset: Path) -> None:
    problems = errors_of(check_dataset(dataset / "dataset.json", in_channels=1, labels={"spleen": 1}))
    found = {problem.image.removeprefix(f"{dataset}/"): str(problem) for problem in problems if problem.image}
    assert_all_said({printable(name): printable(text) for name, text in found.items()}, LISTED)
