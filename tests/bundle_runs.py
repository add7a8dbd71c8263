"""Bundles run in this process with settings that make a step a matter of milliseconds."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow
from monai.bundle import run as run_bundle

ROOT = Path(__file__).parents[1]
BUNDLES = sorted(path.name for path in (ROOT / "bundles").iterdir() if (path / "configs").is_dir())

# every value is an override as a user would type it
TINY: dict[str, dict[str, Any]] = {
    "medcontext_unetr": {
        "spacing": [4.5, 4.5, 6.0],
        "roi_size": [32, 32, 32],
        "network_def#img_size": [32, 32, 32],
        "network_def#feature_size": 4,
        "network_def#hidden_size": 24,
        "network_def#mlp_dim": 48,
        "network_def#num_heads": 2,
        "batch_size": 2,
        "num_samples": 1,
        "sw_batch_size": 2,
        "num_workers": 0,
        "validation_cases": 1,
        "val_interval": 1,
        "checkpoint_interval": 1,
        "max_epochs": 2,
        "amp": False,
        "device": "cpu",
    }
}
EVALUATION_KEYS = {"dataset_dir", "spacing", "roi_size", "sw_batch_size", "num_workers", "amp", "device"}


def config_files(bundle: str, *names: str) -> list[str]:
    return [f"bundles/{bundle}/configs/{name}.json" for name in names]


def overrides_for(bundle: str, *names: str, **overrides: Any) -> dict[str, Any]:
    """The tiny settings, less those that an overlay sets or that the entry does not have."""
    if names[0] == "inference":
        tiny = {k: v for k, v in TINY[bundle].items() if k in EVALUATION_KEYS or k.startswith("network_def")}
    else:
        tiny = dict(TINY[bundle])
    return {**tiny, **overrides}


def workflow_for(bundle: str, *names: str, **overrides: Any) -> ConfigWorkflow:
    """The parsed configuration, not yet run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workflow = ConfigWorkflow(
            config_file=config_files(bundle, *names),
            logging_file=False,
            workflow_type="infer" if names[0] == "inference" else "train",
            **overrides_for(bundle, *names, **overrides),
        )
    workflow.initialize()
    return workflow


def run(bundle: str, entry: str | None, *names: str, **overrides: Any) -> None:
    """``python -m monai.bundle run`` in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_bundle(
            run_id=entry,
            config_file=config_files(bundle, *names),
            logging_file=False,
            **overrides_for(bundle, *names, **overrides),
        )


def train(bundle: str, home: Path, *modes: str, run_name: str = "one", **overrides: Any) -> Path:
    """Train two epochs and return the run's folder."""
    run(bundle, "training", "train", *modes, run_name=run_name, **overrides)
    return home / "runs" / bundle / run_name


def snapshot(folder: Path) -> set[str]:
    """What lies in a folder and below, caches aside."""
    skipped = (".git", "__pycache__", ".venv", "_cache")
    return {
        os.path.join(root, file)
        for root, _, files in os.walk(folder)
        if not any(word in root for word in skipped)
        for file in files
    }


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class Threshold(torch.nn.Module):
    """A network whose first class is everything above the middle of the intensities, and which has nothing to learn."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(image.shape[0], self.out_channels, *image.shape[2:])
        logits[:, 1:2] = (image - 0.5) * 100
        return logits
