"""Agreement of a prediction with those of the same training run that should not differ from it."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from medcontext.labels import Labels, label_ids
from medcontext.networks import load_weights
from medcontext.networks.model_file import MODEL_FILE, STUDENT_FILE, TEACHER_FILE, read_model_file, weights_hash
from medcontext.transforms import BatchOrganDropout

__all__ = ["Agreement", "label_dice"]

logger = logging.getLogger(__name__)

Predict = Callable[[Tensor, nn.Module], Tensor]

DRAWS = 2  # of dropped organs; each costs a prediction
SEED = 0
PARTS, LARGEST_CELL = 4, 8  # cells are a quarter of an organ and at most so many voxels


def label_dice(first: Tensor, second: Tensor, labels: Labels) -> Tensor:
    r"""Return the Dice of two label maps by label.

    Args:
        first: label ids of any shape.
        second: label ids of the same shape.
        labels: names with their id or ids.

    Returns:
        Dice (L,) in the order of the labels, NaN for a label that neither has.

    Example:
        >>> label_dice(torch.tensor([1, 1, 0]), torch.tensor([1, 0, 0]), {"liver": 1, "spleen": 2})
        tensor([0.6667,    nan])
    """
    named = [list(ids) for ids in label_ids(labels).values()]
    one, other = (label.flatten().int() for label in (first, second))
    classes = 1 + max(int(one.max()), int(other.max()), *(max(ids) for ids in named))
    counts = torch.bincount(one * classes + other, minlength=classes**2).view(classes, classes)  # one pass for all
    return torch.stack([2 * counts[ids][:, ids].sum() / (counts[ids].sum() + counts[:, ids].sum()) for ids in named])


class Agreement:
    """Compare a network's prediction of a scan with others that it should agree with.

    These are, first, the prediction of its student if it is the moving average, or of its moving average if it is the
    student; second, its own prediction where parts of all organs that it found are dropped from the image. The draw of
    these parts depends on the scan and the prediction alone.

    Args:
        network: the trained network.
        ckpt_path: the file of its weights. ``student.pt`` or ``teacher.pt`` beside it holds the other network; without
            it, as beside weights of earlier versions, dropped organs alone are compared, with a warning.

    Attributes:
        features: names of the comparisons, ``moving_average`` and ``dropped_organs``.
        weights: hashes of the weights that are compared, by file.

    Raises:
        ValueError: If there are several files, or the other network's is damaged.

    Source: disagreement of networks as a sign of errors follows Lakshminarayanan et al., Deep Ensembles, NeurIPS 2017;
    the moving average as the second network costs no second training run. Dropped organs are added here.
    """

    def __init__(self, network: nn.Module, ckpt_path: str | os.PathLike[str]) -> None:
        if not isinstance(ckpt_path, str | os.PathLike):
            raise ValueError(
                "The agreement of student and moving average belongs to one network; give one checkpoint, not "
                f"{len(ckpt_path)}, or leave out estimate_quality."
            )
        self.network, path = network, Path(ckpt_path)
        other = _other_file(path)
        self.other = None
        self.weights = {path.name: weights_hash(network.state_dict())}
        if other is not None and other.is_file():
            self.other = load_weights(copy.deepcopy(network), other)
            self.weights[other.name] = weights_hash(self.other.state_dict())
        else:
            logger.warning("There is no %s beside %s: only dropped organs are compared.", other or TEACHER_FILE, path)
        self.features = ("moving_average", "dropped_organs")[self.other is None :]

    @torch.no_grad()
    def __call__(self, image: Tensor, logits: Tensor, labels: Labels, predict: Predict) -> Tensor:
        r"""Measure the agreement for one scan.

        Args:
            image: the scan as the network sees it (1, C, \*spatial).
            logits: the network's output for it (1, classes, \*spatial).
            labels: names with their id or ids.
            predict: returns the logits of an image by a network, as MONAI's inferers do.

        Returns:
            Dice (L, F) of the prediction and each other one, by label and feature; NaN where neither has the label.
        """
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        label = _label_map(logits)
        found = []
        if self.other is not None:
            self.other.eval()
            found.append(label_dice(label, _label_map(predict(image, self.other)), labels))
        views = _with_dropped_organs(image, label.to(image.device), logits.shape[1])
        dropped = [label_dice(label, _label_map(predict(view, self.network)), labels) for view in views]
        return torch.stack([*found, torch.stack(dropped).mean(0)], dim=1)


def _label_map(logits: Tensor) -> Tensor:
    r"""Return label ids (1, 1, \*spatial) on the CPU."""
    label = logits.argmax(1, keepdim=True)
    return (label.as_tensor() if isinstance(label, MetaTensor) else label).cpu()


def _other_file(path: Path) -> Path | None:
    """Return the file of the student where a file holds the moving average, and the reverse."""
    if path.name not in (MODEL_FILE, STUDENT_FILE, TEACHER_FILE):
        return None
    averaged = path.name == TEACHER_FILE or (
        path.name == MODEL_FILE and read_model_file(path).get("weights") == "teacher"
    )
    return path.with_name(STUDENT_FILE if averaged else TEACHER_FILE)


def _with_dropped_organs(image: Tensor, label: Tensor, classes: int) -> Iterator[Tensor]:
    """Yield the image with a part of every organ dropped, always the same for the same image and label map."""
    dropout = BatchOrganDropout(
        classes, cell_size=_cell_size(label), organ_fraction=1.0, extent="part", decoy_fraction=0.0
    )
    devices = [image.device] if image.device.type == "cuda" else []
    for draw in range(DRAWS):
        with torch.random.fork_rng(devices):
            torch.manual_seed(SEED + draw)
            view = dropout(image, label)[0]
        yield view


def _cell_size(label: Tensor) -> list[int]:
    """Return the cells to drop, a quarter of the median organ in a label map along each axis."""
    boxes = [box for box in scipy.ndimage.find_objects(label[0, 0].cpu().numpy().astype(np.int32)) if box is not None]
    extents: Any = [[side.stop - side.start for side in box] for box in boxes] or [[1] * (label.ndim - 2)]
    return [int(min(max(round(size / PARTS), 1), LARGEST_CELL)) for size in np.median(extents, axis=0)]
