"""An experiment with a cross-validation that was never run: the files that its folds would have left."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from medcontext.data import data_hash
from medcontext.data.datalist import case_name, cross_validation_folds
from medcontext.experiment import Cell
from medcontext.networks.model_file import weights_hash
from medcontext.storage.file_memory import sha256_of

SETTINGS: dict[str, Any] = {
    "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
    "in_channels": 1,
    "out_channels": 2,
    "labels": {"liver": 1},
    "reported": {"liver": 1},
    "roi_size": [4, 4, 4],
}
NAME = "mine-unetr-data-baseline-f1-s0-3folds"
DICE = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def write_experiment(home: Path, datalist: Path, num_folds: int = 3) -> Path:
    """Six cases in folds of the seed 0, the n-th with a Dice of (5 + n) / 10, and the experiment's folder."""
    experiment = home / "runs" / "experiments" / "mine"
    experiment.mkdir(parents=True)
    dice = iter(DICE)
    for fold, cases in enumerate(cross_validation_folds(datalist, num_folds)):
        cell = Cell("bundles/unetr", "data", 1.0, 0, "baseline", None, fold, num_folds)
        run_dir = home / "runs" / "unetr" / f"mine-{cell.name}"
        (run_dir / "models").mkdir(parents=True)
        (run_dir / "evaluation").mkdir()
        training = {"config_file": ["train.json"], "max_epochs": 30, "fold": fold, "num_folds": num_folds, "seed": 0}
        record = {
            "cell": asdict(cell),
            "state": "evaluated",
            "training": {**training, "run_name": run_dir.name},
            "evaluating": {"ckpt_dir": str(run_dir / "models")},
        }
        (experiment / f"{run_dir.name}.json").write_text(json.dumps(record))
        write_fold_run(run_dir, fold, cases, [next(dice) for _ in cases])
    (experiment / "costs.json").write_text("[]")
    return experiment


def write_fold_run(run_dir: Path, fold: int, cases: list[dict[str, Any]], dice: list[float]) -> None:
    config = {"fold": fold, "run_name": run_dir.name, "learning_rate": 0.1, "select_checkpoint": "best"}
    (run_dir / "train_config.json").write_text(json.dumps(config))
    models, state = run_dir / "models", {"weight": torch.full((2, 1, 1, 1, 1), float(fold)), "bias": torch.zeros(2)}
    torch.save(state, models / "model.pt")
    info = {"weights": "student", "epoch": 20, "dataset": "data", "settings": SETTINGS}
    (models / "model.json").write_text(json.dumps({**info, "sha256": {"model.pt": weights_hash(state)}}))
    history = {
        "epoch": [10, 15, 20, 30],
        "val_mean_dice": [0.5, None, 0.7 + fold / 10, 0.6],
        "val_mean_dice_ema": [0.4, None, 0.5, 0.7],
    }
    pd.DataFrame(history).to_csv(models / "history.csv", index=False)
    counts = [
        {
            "case": case["label"],
            "label": "liver",
            "structure": "liver",
            **{"predicted": 110, "predicted_largest": 100, "common": 90, "common_largest": 90, "reference": 100},
        }
        for case in cases
    ]
    pd.DataFrame(counts).to_csv(models / "components.csv", index=False)
    rows = [
        {"case": case_name(case), "label": "liver", "dice": value, "missed": False, "spurious": False}
        for case, value in zip(cases, dice, strict=True)
    ]
    pd.DataFrame(rows).to_csv(run_dir / "evaluation" / "metrics.csv", index=False)
    evaluated = {"data_hash": data_hash(cases), "checkpoint_sha256": sha256_of(models / "model.pt")}
    (run_dir / "evaluation" / "summary.json").write_text(json.dumps({"info": evaluated}))


def write_dataset(folder: Path, **content: Any) -> Path:
    """Six labelled cases as empty files, one of them for validation, and one to test."""
    folder.mkdir()
    names = [f"case{number}" for number in range(6)]
    cases = [{"image": f"{name}.nii", "label": f"{name}_seg.nii"} for name in [*names, "tested"]]
    for case in cases:
        for file in case.values():
            (folder / file).write_bytes(b"x")
    listed = {"training": cases[:5], "validation": cases[5:6], "test": cases[6:]}
    (folder / "dataset.json").write_text(json.dumps({"labels": {"1": "liver"}, **listed, **content}))
    return folder / "dataset.json"


def changed_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
