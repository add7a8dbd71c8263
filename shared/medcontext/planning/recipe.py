"""The recipe of a bundle, from which a plan starts."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

__all__ = ["Recipe"]

RECIPE_CASES = 15
"""Training cases of BTCV, for which the epochs of ``train.json`` are chosen: 18, less three for validation."""
SMALL_SCAN = 64
"""Voxels of the longest axis up to which a scan takes the network of ``hippocampus.json``, with smaller patches."""
CPU_KEYS = (
    *("learning_rate", "warmup_fraction", "max_grad_norm", "amp", "sw_batch_size", "overlap", "num_workers"),
    "optimizer",
)
"""Keys of ``phantom.json``, the recipe of two CPU cores, that a plan for the CPU takes."""


@dataclass(frozen=True)
class Recipe:
    """Configuration of a bundle.

    Attributes:
        folder: folder of the bundle.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.folder.name

    @functools.cached_property
    def train(self) -> dict[str, Any]:
        """Content of ``train.json``."""
        return self.file("train")

    def file(self, name: str) -> dict[str, Any]:
        """Return the content of a configuration file."""
        return dict(json.loads((self.folder / "configs" / f"{name}.json").read_text(encoding="utf-8")))

    @property
    def orientation(self) -> str:
        """Orientation of the tensors."""
        return str(self.train["orientation"])

    @property
    def crops(self) -> int:
        """Number of crops of a step on a GPU."""
        return int(self.train["batch_size"]) * int(self.train["num_samples"])

    @property
    def steps(self) -> int:
        """Number of steps of a training run on a GPU."""
        return int(self.train["max_epochs"]) * ceil(RECIPE_CASES / int(self.train["batch_size"]))

    def network(self, *, thick: bool, longest: float, on_cpu: bool) -> tuple[dict[str, Any], str]:
        """Return the ``network_def`` for a kind of scans, and the reason for it.

        Args:
            thick: whether slices are thick.
            longest: voxels of the median scan along its longest axis.
            on_cpu: whether the network trains on the CPU.
        """
        if on_cpu:
            text = json.dumps(self.file("phantom")["network_def"])
            for key, value in self.file("acdc" if thick else "train")["phantom"].items():
                text = text.replace(f'"@phantom#{key}"', json.dumps(value))
            return dict(json.loads(text)), "the small network of phantom.json, for a CPU"
        if thick:
            return dict(self.file("acdc")["network_def"]), "that of acdc.json, for thick slices"
        if longest <= SMALL_SCAN:
            return dict(self.file("hippocampus")["network_def"]), "that of hippocampus.json, for small scans"
        return dict(self.train["network_def"]), "that of train.json, at full size"
