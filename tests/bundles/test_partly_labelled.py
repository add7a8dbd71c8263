"""A cohort with ignored voxels and a structure that is not annotated in some cases, in whole configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from bundle_runs import NNFORMER, UNETR, for_bundles, read_json, run, train, workflow_for
from medcontext.bundle import check_configuration

pytestmark = pytest.mark.usefixtures("blank_pictures")

IGNORING, WITHOUT_LUNG = (0, 5), (1, 4)


@pytest.fixture
def keys(home: Path) -> dict[str, Any]:
    """Settings of six cases, four for training, whose hearts (1) all have, and lungs (2) those that are annotated."""
    folder = home / "partly"
    folder.mkdir()
    rng, affine = np.random.default_rng(0), np.diag([-4.5, 4.5, 6.0, 1.0])
    cases: dict[str, list[dict[str, Any]]] = {"training": [], "test": []}
    for number in range(6):
        label = np.zeros((32, 32, 32), np.uint8)
        label[4:14, 6:20, 8:24], label[18:28, 6:20, 8:24] = 1, 2
        image = rng.normal(0, 20, label.shape) + 150.0 * (label == 1) - 150.0 * (label == 2)
        case: dict[str, Any] = {"image": f"case{number}.nii.gz", "label": f"label{number}.nii.gz"}
        if number in WITHOUT_LUNG:
            label[label == 2], case["unannotated"] = 0, ["lung"]
        if number in IGNORING:
            label[..., 20:] = 3
        for kind, volume in (("image", image.astype(np.float32)), ("label", label)):
            nib.save(nib.Nifti1Image(volume, affine), folder / case[kind])
        cases["test" if number > 3 else "training"].append(case)
    labels = {"0": "background", "1": "heart", "2": "lung", "3": "ignore"}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, **cases}))
    return {"dataset_dir": str(folder), "labels": {"heart": 1, "lung": 2}, "reported": "@labels", "sided_labels": []}


def write_scan(folder: Path) -> Path:
    folder.mkdir()
    image = np.random.default_rng(1).normal(0, 100, (32, 32, 32)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.diag([-4.5, 4.5, 6.0, 1.0])), folder / "scan.nii.gz")
    return folder


@for_bundles(UNETR, NNFORMER)
def test_what_nobody_annotated_reaches_the_loss_as_such(bundle: str, keys: dict[str, Any]) -> None:
    unmoved = {"augmentation#spatial": []}
    workflow = workflow_for(bundle, "train", "baseline", **keys, **unmoved, validation_cases=0)
    check_configuration(workflow)
    parser = workflow.parser
    transform, cases = (parser.get_parsed_content(key) for key in ("train#preprocessing", "cases#training"))
    labels = [transform(case)[0]["label"] for case in cases[:3]]
    found = [set(label.unique().tolist()) - {0} for label in labels]  # 0 is also what pads small scans
    assert found == [{-1, 1, 2}, {-2, 1}, {1, 2}]
    loss, batch = parser.get_parsed_content("loss"), torch.stack(labels)
    logits = torch.randn(3, 3, *batch.shape[2:], requires_grad=True)
    loss.supervised([logits, logits] if bundle == NNFORMER else logits, batch).backward()
    assert logits.grad is not None
    left_out = (batch == -1).expand_as(logits)
    assert not logits.grad[left_out].any()
    assert logits.grad[~left_out].all()


def test_a_label_that_no_training_case_of_a_run_has_annotated(keys: dict[str, Any]) -> None:
    datalist = Path(keys["dataset_dir"]) / "dataset.json"
    content = read_json(datalist)
    datalist.write_text(json.dumps({**content, "training": [content["training"][1], content["test"][0]], "test": []}))
    with pytest.raises(
        SystemExit, match="No training case of this run has lung annotated, so it cannot be learned; give"
    ):
        check_configuration(workflow_for(UNETR, "train", **keys, validation_cases=0))


@pytest.mark.slow
@for_bundles()
@pytest.mark.parametrize("mode", [(), ("paper",), ("pseudo_labels",)])
def test_training_and_evaluation(bundle: str, mode: tuple[str, ...], keys: dict[str, Any], home: Path) -> None:
    unlabeled = {"unlabeled_dir": str(write_scan(home / "scans"))} if mode == ("pseudo_labels",) else {}
    folder = train(bundle, home, *mode, **keys, **unlabeled)
    models = folder / "models"
    assert pd.read_csv(models / "history.csv")["val_dice_heart"].notna().all()
    settings = read_json(models / "model.json")["settings"]
    assert (settings["labels"], settings["out_channels"]) == (keys["labels"], 3)
    run(bundle, "evaluating", "train", "evaluate", ckpt_dir=str(models), **keys)
    rows = pd.read_csv(folder / "evaluation" / "metrics.csv").set_index(["case", "label"])
    assert rows.loc[("case4", "lung"), "dice":"prediction_volume_ml"].isna().all()
    assert rows.drop(index=("case4", "lung"))["dice"].notna().all()
    assert rows.loc[("case5", "heart"), "label_volume_ml"] == pytest.approx(10 * 14 * 12 * 4.5 * 4.5 * 6 / 1000)
    assert read_json(folder / "evaluation" / "summary.json")["labels"]["lung"]["cases"] == 1
    assert "lung is annotated in 1 of the 2 cases" in (folder / "evaluation" / "report.html").read_text()
