"""MedContext with networks that it does not know, by a file that sets ``network_def`` alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle_runs import UNETR, run, train

CHANNELS = {"in_channels": "@in_channels", "out_channels": "@out_channels"}
OTHERS: dict[str, dict[str, Any]] = {
    "SegResNet": {"_target_": "SegResNet", **CHANNELS, "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "DynUNet": {
        "_target_": "DynUNet",
        "spatial_dims": 3,
        **CHANNELS,
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 8, 16],
    },
}


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("name", [pytest.param("SegResNet", marks=pytest.mark.slow), "DynUNet"])
def test_any_network_trains_evaluates_and_predicts(name: str, home: Path) -> None:
    own = home / "my_network.json"
    own.write_text(json.dumps({"network_def": OTHERS[name]}))
    folder = train(UNETR, home, str(own))
    models = folder / "models"
    weights, teacher = (torch.load(models / file, weights_only=True) for file in ("model.pt", "teacher.pt"))
    assert weights.keys() == teacher.keys()
    assert any(not torch.equal(weights[key], teacher[key]) for key in weights)
    run(UNETR, "evaluating", "train", str(own), "evaluate", ckpt_dir=str(models))
    assert (folder / "evaluation" / "report.html").is_file()
    cohort = str(home / "data" / "btcv")
    run(UNETR, "inferring", "inference", str(own), ckpt_dir=str(models), dataset_dir=cohort)
    assert len(list((folder / "predictions").glob("*.nii.gz"))) == 2
