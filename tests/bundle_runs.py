"""Bundles run in this process with settings that make a step a matter of milliseconds."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from monai.bundle import ConfigWorkflow
from monai.bundle import run as run_bundle
from monai.utils import path_to_sqlite_uri

ROOT = Path(__file__).parents[1]
BUNDLES = sorted(path.name for path in (ROOT / "bundles").iterdir() if (path / "configs").is_dir())

# every value is an override as a user would type it
COMMON: dict[str, Any] = {
    "spacing": [4.5, 4.5, 6.0],
    "roi_size": [32, 32, 32],
    "batch_size": 2,
    "num_samples": 1,
    "sw_batch_size": 2,
    "num_workers": 0,
    "validation_cases": 1,
    "val_interval": 1,
    "preview_interval": 0,
    "checkpoint_interval": 1,
    "max_epochs": 2,
    "amp": False,
    "device": "cpu",
}
NETWORKS: dict[str, dict[str, Any]] = {
    "medcontext_unetr": {"feature_size": 4, "hidden_size": 24, "mlp_dim": 48, "num_heads": 2},
    "medcontext_swin_unetr": {
        "feature_size": 12,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 1, 1],
        "window_size": 4,
    },
    "medcontext_nnformer": {"embed_dim": 12, "depths": [1, 2], "num_heads": [1, 2], "window_size": [4, 2]},
    "medcontext_unetr_plus_plus": {
        "feature_size": 4,
        "hidden_size": 16,
        "num_heads": 2,
        "depths": [1, 1],
        "dims": [8, 16],
        "decoder_depths": 1,
        "proj_sizes": [8, 8],
    },
    "medcontext_resenc_unet": {"features_per_stage": [2, 4, 4, 4], "n_blocks_per_stage": [1, 1, 1, 1]},
}
GEOMETRIES: dict[str, dict[str, Any]] = {
    "medcontext_swin_unetr": {"roi_size": [32, 32, 64]},  # 32 along every axis is one voxel at the deepest stage
    "medcontext_nnformer": {"spacing": [6.0, 4.5, 4.5]},
    "medcontext_unetr_plus_plus": {"spacing": [6.0, 4.5, 4.5]},
    "medcontext_resenc_unet": {"spacing": [6.0, 4.5, 4.5]},
}
TINY: dict[str, dict[str, Any]] = {
    name: {
        **COMMON,
        **GEOMETRIES.get(name, {}),
        **{f"network_def#{argument}": value for argument, value in arguments.items()},
    }
    for name, arguments in NETWORKS.items()
}
UNETR, SWIN_UNETR, NNFORMER, UNETR_PLUS_PLUS, RESENC_UNET = TINY
# what the overlays of the other datasets need besides
OTHER_DATASETS: dict[tuple[str, str], dict[str, Any]] = {
    (UNETR, "acdc"): {"spacing": [3.0, 3.0, 10.0], "roi_size": [32, 32, 16]},
    (SWIN_UNETR, "acdc"): {"spacing": [3.0, 3.0, 10.0], "roi_size": [64, 32, 32]},
    (NNFORMER, "acdc"): {
        "spacing": [10.0, 3.0, 3.0],
        "roi_size": [7, 32, 32],
        "network_def#window_size": [[3, 4, 4], [3, 2, 2]],
        "network_def#merging_strides": [2],
    },
    (UNETR_PLUS_PLUS, "acdc"): {"spacing": [10.0, 3.0, 3.0], "roi_size": [8, 32, 32]},
    (RESENC_UNET, "acdc"): {
        "spacing": [10.0, 3.0, 3.0],
        "roi_size": [8, 32, 32],
        "network_def#strides": [1, [1, 2, 2], 2, 2],
        "network_def#kernel_sizes": [[1, 3, 3], 3, 3, 3],
    },
    (NNFORMER, "brats"): {"network_def#decoder_num_heads": [2]},
    **{(name, "hippocampus"): {"spacing": [1.5, 1.5, 1.5]} for name in TINY},
}


def for_bundles(*quick: str) -> pytest.MarkDecorator:
    """Run a test for every bundle: for these always, for the others with the slow tests; if none are named, for all."""
    params = [pytest.param(name, marks=[pytest.mark.slow] * bool(quick and name not in quick)) for name in BUNDLES]
    return pytest.mark.parametrize("bundle", params)


EVALUATION_KEYS = {"dataset_dir", "spacing", "roi_size", "sw_batch_size", "num_workers", "amp", "device"}


def config_files(bundle: str, *names: str) -> list[str]:
    """Paths of a bundle's configuration files by name; paths are left as they are."""
    return [name if name.endswith(".json") else f"bundles/{bundle}/configs/{name}.json" for name in names]


def overrides_for(bundle: str, *names: str, **overrides: Any) -> dict[str, Any]:
    """The tiny settings, less those that the entry lacks and, beside a user's own file, those of the network."""
    tiny = dict(TINY[bundle])
    for dataset in {"acdc", "brats", "hippocampus"}.intersection(names):
        tiny |= OTHER_DATASETS.get((bundle, dataset), {})
    if names[0] == "inference":
        tiny = {key: value for key, value in tiny.items() if key in EVALUATION_KEYS or key.startswith("network_def")}
    if "multi_gpu_train" in names:
        del tiny["device"]  # the overlay chooses each process's own
    if any(name.endswith(".json") for name in names):
        tiny = {key: value for key, value in tiny.items() if not key.startswith("network_def")}
    return {**tiny, **overrides}


def workflow_for(bundle: str, *names: str, tiny: bool = True, **overrides: Any) -> ConfigWorkflow:
    """The parsed configuration, with the tiny settings or as it is, not yet run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workflow = ConfigWorkflow(
            config_file=config_files(bundle, *names),
            logging_file=False,
            workflow_type="infer" if names[0] == "inference" else "train",
            **(overrides_for(bundle, *names, **overrides) if tiny else overrides),
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


def run_trained(bundle: str, entry: str, *names: str, **overrides: Any) -> None:
    """The same with trained weights, whose settings are in their ``model.json``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_bundle(
            run_id=entry, config_file=config_files(bundle, *names), logging_file=False, num_workers=0, **overrides
        )


def command(bundle: str, entry: str | None, *names: str, processes: int = 0, **overrides: Any) -> list[str]:
    """The same as the words of a command line, with ``processes`` under ``torchrun``."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes else []
    words = [sys.executable, *launcher, "-m", "monai.bundle", "run", *([entry] if entry else [])]
    words += ["--config_file", str(config_files(bundle, *names))]
    for key, value in overrides_for(bundle, *names, **overrides).items():
        words += [f"--{key}", str(value)]
    return words


def train(bundle: str, home: Path, *modes: str, run_name: str = "one", **overrides: Any) -> Path:
    """Train two epochs and return the run's folder."""
    run(bundle, "training", "train", *modes, run_name=run_name, **overrides)
    return home / "runs" / bundle / run_name


def runs_of(home: Path) -> list[Any]:
    """All MLflow runs of a home."""
    client = MlflowClient(path_to_sqlite_uri(str(home / "mlruns.db")))
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def snapshot(folder: Path) -> set[str]:
    """What lies in a folder and below, caches aside."""
    skipped = (".git", "__pycache__", ".venv", "_cache", ".egg-info")  # the last is made by whoever builds a wheel
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
        logits[:, 1:2] = (image[:, :1] - 0.5) * 100
        return logits
