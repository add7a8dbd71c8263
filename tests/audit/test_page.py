from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medcontext import cli


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Six cases with two boxes, exchanged in the fifth; the first is named as HTML."""
    random, cases = np.random.default_rng(0), []
    for number in range(6):
        label = np.zeros((20, 12, 12), dtype=np.uint8)
        label[2:7, 4:9, 4:9], label[13:18, 4:9, 4:9] = (2, 1) if number == 4 else (1, 2)
        image = label.clip(0, 1) * 50 + random.normal(100, 5, label.shape)
        name = "<b>bold" if number == 0 else f"case_{number}"
        for kind, volume in (("image", image.astype(np.float32)), ("label", label)):
            nib.save(nib.Nifti1Image(volume, np.diag([1, 1, 2, 1])), tmp_path / f"{name}_{kind}.nii.gz")
        cases.append({"image": f"{name}_image.nii.gz", "label": f"{name}_label.nii.gz"})
    names = {"0": "background", "1": "left_box", "2": "right_box"}
    content = {"labels": names, "modality": {"0": "MR"}, "training": cases[:4], "test": cases[4:]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def test_check_lists_and_shows_what_to_look_at(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.check(str(dataset), audit_dir=str(dataset / "audit"))
    printed = capsys.readouterr().out
    assert "case_4_image: left_box and right_box lie where the other one usually does" in printed
    assert "1 of 6 cases to look at" in printed
    table = pd.read_csv(dataset / "audit" / "audit.csv")
    assert table[["case", "kind", "labels"]].values.tolist() == [["case_4_image", "exchanged", "left_box; right_box"]]
    page = (dataset / "audit" / "audit.html").read_text(encoding="utf-8")
    assert page.count("<img") == 1
    assert "case_4_image" in page


def test_what_is_not_annotated_is_not_missing(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((dataset / "dataset.json").read_text())
    cases = [*content["training"], *content["test"]]
    label = nib.load(dataset / cases[1]["label"])
    values = np.asarray(label.dataobj)
    nib.save(nib.Nifti1Image(np.where(values == 2, 3, values), label.affine), dataset / cases[1]["label"])
    content["labels"]["3"] = "ignore"
    for unannotated, lines in ([], ["case_1_image: right_box is missing; 5 of 6 cases have it."]), (["right_box"], []):
        cases[1]["unannotated"] = unannotated
        (dataset / "dataset.json").write_text(json.dumps({**content, "training": cases, "test": []}))
        cli.check(str(dataset), audit_dir=str(dataset / "audit"))
        assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("case_1")] == lines


def test_names_are_escaped(dataset: Path) -> None:
    label = dataset / "<b>bold_label.nii.gz"
    empty = nib.load(label)
    nib.save(nib.Nifti1Image(np.where(np.asarray(empty.dataobj) == 1, 0, 2).astype(np.uint8), empty.affine), label)
    cli.check(str(dataset), audit_dir=str(dataset / "audit"))
    page = (dataset / "audit" / "audit.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;bold" in page
    assert "<b>" not in page


def test_an_audit_without_findings_says_so(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((dataset / "dataset.json").read_text())
    content["training"] += content["test"][1:]
    (dataset / "dataset.json").write_text(json.dumps({**content, "test": []}))
    cli.check(str(dataset), audit_dir=str(dataset / "audit"))
    assert "0 of 5 cases to look at" in capsys.readouterr().out
    assert "0 of 5" in (dataset / "audit" / "audit.html").read_text(encoding="utf-8")
