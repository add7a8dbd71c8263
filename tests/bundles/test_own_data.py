"""A user's own volumes: a ``dataset.json`` written by hand, and top-level keys alone."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813  (as its documentation does)
import torch
from monai.bundle import run as run_bundle

from bundle_runs import NNFORMER, UNETR_PLUS_PLUS, config_files, for_bundles, run, train
from medcontext.planning import make_plans, write_plans

pytestmark = pytest.mark.usefixtures("blank_pictures")


def write_own(folder: Path, channels: int) -> Path:
    """Six cases of a bright and a dark block, one healthy, as one 4D file or one file for each channel by turns.

    Label maps are NIfTI, NRRD and MetaImage by turns.
    """
    rng = np.random.default_rng(0)
    cases: dict[str, list[dict[str, Any]]] = {"training": [], "test": []}
    for number in range(6):
        label = np.zeros((32, 32, 32), np.uint8)
        label[4:14, 6:20, 8:24], label[18:28, 6:20, 8:24] = 5, 9
        image = (
            rng.normal(0, 20, (32, 32, 32, channels)) + 150 * (label == 5)[..., None] - 150 * (label == 9)[..., None]
        )
        affine = np.diag([-4.5, 4.5, 6.0, 1.0])
        names = [f"case{number}_{channel}.nii.gz" for channel in range(channels)]
        if number % 2 and channels > 1:
            for channel, name in enumerate(names):
                nib.save(nib.Nifti1Image(image[..., channel].astype(np.float32), affine), folder / name)
        else:
            names = [f"case{number}.nii.gz"]
            nib.save(nib.Nifti1Image(image.squeeze().astype(np.float32), affine), folder / names[0])
        name = f"label{number}{('.nii.gz', '.nrrd', '.mha')[number % 3]}"
        nib.save(nib.Nifti1Image(label * (number != 1), affine), folder / "label.nii.gz")
        sitk.WriteImage(sitk.ReadImage(str(folder / "label.nii.gz")), str(folder / name))
        case = {"image": names if len(names) > 1 else names[0], "label": name}
        cases["test" if number > 3 else "training"].append(case)
    content = {"labels": {"0": "background", "5": "heart", "9": "lung"}, **cases}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@for_bundles(UNETR_PLUS_PLUS)
def test_any_channels_and_classes(bundle: str, home: Path) -> None:
    (home / "mine").mkdir()
    data = write_own(home / "mine", channels=2)
    keys = {"dataset": "mine", "dataset_dir": str(data), "in_channels": 2, "labels": {"lung": 1, "heart": 2}}
    folder = train(bundle, home, **keys, max_epochs=1)
    models = str(folder / "models")
    run(bundle, "evaluating", "train", "evaluate", ckpt_dir=models, **keys)
    table = pd.read_csv(folder / "evaluation" / "metrics.csv")
    assert sorted(table["label"]) == ["heart", "heart", "lung", "lung"]
    del keys["dataset"]
    run(bundle, "inferring", "inference", ckpt_dir=models, **keys)
    predictions = [nib.load(path) for path in sorted((folder / "predictions").glob("*.nii.gz"))]
    assert [np.asarray(prediction.dataobj).max() <= 2 for prediction in predictions] == [True, True]
    assert nib.aff2axcodes(predictions[0].affine) == ("L", "A", "S")


@for_bundles(NNFORMER)
def test_starting_from_the_weights_of_other_classes(bundle: str, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = train(bundle, home, run_name="source", max_epochs=1)
    (home / "mine").mkdir()
    keys = {"dataset_dir": str(write_own(home / "mine", channels=1)), "labels": {"lung": 1, "heart": 2}}
    pretrained = source / "models" / "model.pt"
    with caplog.at_level(logging.INFO, "medcontext"):
        folder = train(
            bundle, home, run_name="tuned", max_epochs=1, learning_rate=1e-30, pretrained=str(pretrained), **keys
        )
    before, after = (torch.load(f / "models" / "model.pt", weights_only=True) for f in (source, folder))
    kept = [key for key in before if before[key].shape == after[key].shape]
    assert 0 < len(before) - len(kept) <= 4  # weight and bias of each head
    assert any(
        f"{len(kept)} of {len(before)} tensors loaded from {pretrained}" in message for message in caplog.messages
    )
    for key in kept:
        if "running_" in key or key.endswith("num_batches_tracked"):  # batch norm goes on counting
            continue
        torch.testing.assert_close(after[key], before[key], rtol=0, atol=1e-6)
    with pytest.raises(SystemExit, match="medcontext: There is no checkpoint nowhere.pt"):
        train(bundle, home, run_name="other", pretrained="nowhere.pt", **keys)


@pytest.mark.slow
@for_bundles()
def test_a_plan_trains_evaluates_and_predicts(bundle: str, home: Path) -> None:
    """The plan as it is, but for the number of epochs."""
    (home / "mine").mkdir()
    data = write_own(home / "mine", channels=2)
    (file,) = write_plans(make_plans(data, "cpu", [bundle]), data)
    settings: dict[str, Any] = {"logging_file": False, "device": "cpu"}
    models = str(home / "runs" / bundle / "planned" / "models")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = config_files(bundle, "train", str(file))
        run_bundle("training", config_file=files, run_name="planned", max_epochs=1, preview_interval=0, **settings)
        files = config_files(bundle, "train", str(file), "evaluate")
        run_bundle("evaluating", config_file=files, ckpt_dir=models, **settings)
        run_bundle("inferring", config_file=config_files(bundle, "inference", str(file)), ckpt_dir=models, **settings)
    assert len(pd.read_csv(home / "runs" / bundle / "planned" / "evaluation" / "metrics.csv")) == 4
    assert len(list((home / "runs" / bundle / "planned" / "predictions").glob("*_seg.nii.gz"))) == 2
