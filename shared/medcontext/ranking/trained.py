"""A trained network with all that it takes to predict a scan, from the files of its training run alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose, EnsureChannelFirstd, Orientationd, Spacingd
from torch import Tensor, nn

from medcontext.data import CheckImaged
from medcontext.data.datalist import Case
from medcontext.inferers import AveragingInferer
from medcontext.networks import load_weights
from medcontext.networks.model_file import MODEL_FILE, build_component, read_settings
from medcontext.scans import LoadImageScand

__all__ = ["TrainedNetwork"]

NEEDED = ("network_def", "in_channels", "labels", "orientation", "spacing", "intensity", "roi_size")
OVERLAP, WINDOWS = 0.5, 4


class TrainedNetwork:
    """A network, and the preprocessing and the sliding window of its prediction.

    Args:
        ckpt_dir: folder of ``model.pt`` and ``model.json``.
        device: device to compute on; the GPU by default, if there is one.

    Attributes:
        network: the network, ready to predict.
        settings: what ``model.json`` says that the weights need.
        path: the file of the weights.

    Raises:
        FileNotFoundError: If there are no weights.
        ValueError: If ``model.json`` is missing, of an earlier version or damaged, or the weights are.
    """

    def __init__(self, ckpt_dir: str | os.PathLike[str], device: str | None = None) -> None:
        self.path = Path(ckpt_dir) / MODEL_FILE
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no {self.path}; give the models folder of a training run as --ckpt_dir.")
        self.settings = read_settings(self.path)
        missing = [key for key in NEEDED if key not in self.settings]
        if missing:
            raise ValueError(
                f"model.json beside {self.path} does not say which {missing[0]} the weights need; give the models "
                "folder of a training run of this version as --ckpt_dir."
            )
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        network: nn.Module = build_component("network_def", self.settings["network_def"])
        self.network = load_weights(network, self.path).to(self.device).eval()
        self.preprocessing = self._preprocessing()
        self.inferer = AveragingInferer(self.settings["roi_size"], WINDOWS, OVERLAP, mode="gaussian")

    def _preprocessing(self) -> Compose:
        """Return the transforms of ``inference.json``."""
        intensity = build_component("intensity", self.settings["intensity"])
        return Compose(
            [
                LoadImageScand("image"),
                EnsureChannelFirstd("image"),
                CheckImaged("image", intensity=intensity),
                Orientationd("image", axcodes=self.settings["orientation"], labels=None),
                Spacingd("image", pixdim=self.settings["spacing"], mode="bilinear"),
                intensity,
            ]
        )

    def load(self, case: Case) -> Tensor:
        r"""Return a scan as the network sees it (1, C, \*spatial)."""
        data: Any = self.preprocessing({"image": case["image"]})
        image: Tensor = data["image"][None].to(self.device)
        return image

    @torch.no_grad()
    def predict(self, image: Tensor, network: nn.Module | None = None) -> Tensor:
        r"""Return the logits (1, classes, \*spatial) of a scan, by default of this network."""
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            return self.inferer(image, network or self.network)
