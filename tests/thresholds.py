"""A models folder as training leaves it, of a network that finds what is brighter than a threshold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import nn

from medcontext.data.datalist import hashed_name
from medcontext.networks.model_file import weights_hash

SIZE = 24
SETTINGS: dict[str, Any] = {
    "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
    "in_channels": 1,
    "out_channels": 2,
    "labels": {"block": 1},
    "reported": {"block": 1},
    "sided_labels": [],
    "orientation": "RAS",
    "spacing": [4.5, 4.5, 6.0],
    "intensity": {"_target_": "ScaleIntensityd", "keys": "image", "minv": 0.0, "maxv": 1.0, "factor": None},
    "roi_size": [SIZE, SIZE, SIZE],
}


def threshold(level: float) -> nn.Conv3d:
    """A network whose class 1 is what is brighter than a level."""
    network = nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([0.0, 20.0]).view(2, 1, 1, 1, 1))
        network.bias.copy_(torch.tensor([0.0, -20.0 * level]))
    return network


def write_models(folder: Path, trained_on: Sequence[str], student: float = 0.5, teacher: float = 0.56) -> Path:
    """``model.pt``, the student's, ``student.pt``, ``teacher.pt`` and ``model.json``."""
    folder.mkdir(parents=True)
    states = {name: threshold(level).state_dict() for name, level in (("student", student), ("teacher", teacher))}
    files = {"model.pt": states["student"], "student.pt": states["student"], "teacher.pt": states["teacher"]}
    for name, state in files.items():
        torch.save(state, folder / name)
    content = {
        "weights": "student",
        "dataset": "mine",
        "settings": SETTINGS,
        "sha256": {name: weights_hash(state) for name, state in files.items()},
        "cases": {"training": {"hash": "0", "cases": [hashed_name(name) for name in trained_on]}},
    }
    (folder / "model.json").write_text(json.dumps(content))
    return folder


def write_scans(folder: Path, training: int, test: int = 2, unlabeled: int = 2) -> Path:
    """Scans of a bright block that is harder to see from case to case; ``scans`` holds those without a label."""
    random, cases = np.random.default_rng(0), []
    (folder / "scans").mkdir(parents=True)
    affine = np.diag([4.5, 4.5, 6.0, 1.0])
    for number in range(training + test + unlabeled):
        label = np.zeros((SIZE, SIZE, SIZE), np.uint8)
        label[4:14, 6:20, 8:20] = 1
        image = 150 * label + random.normal(0, 15 + 4 * (number % training), label.shape)
        name = f"case{number:02}.nii.gz"
        place = folder / "scans" if number >= training + test else folder
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), place / name)
        nib.save(nib.Nifti1Image(label, affine), folder / f"label{number:02}.nii.gz")
        cases.append({"image": name, "label": f"label{number:02}.nii.gz"})
    content = {"labels": {"0": "background", "1": "block"}, "modality": {"0": "MR"}}
    content |= {"training": cases[:training], "test": cases[training : training + test]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder
