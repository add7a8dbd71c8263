"""How much the context mask alone tells about the label, beyond what the place in the body tells anyway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medcontext.data import make_btcv_phantom
from medcontext.transforms import RandOrganDropout

SIZE, SPACING = (48, 48, 48), (3.0, 3.0, 4.0)
TRAINING, HELD_OUT = 32, 12
MASKS_PER_CASE = 3
VOXELS_PER_MASK = 3000
STEPS = 600
THRESHOLDS = np.linspace(0.05, 0.6, 12)


class Cohort(NamedTuple):
    """Phantoms in the same field: images in [0, 1], label ids, and where organs can lie at all.

    ``log_prior`` holds log P(label | place) for the places in ``support`` (flat voxel indices), one column per label.
    """

    images: list[NDArray[np.float32]]
    labels: list[NDArray[np.uint8]]
    support: NDArray[np.intp]
    log_prior: torch.Tensor


class Gain(NamedTuple):
    """Mean Dice of the prior and of the classifier that also sees the mask, over organs of held-out cases."""

    prior: float
    with_mask: float


class RecordingDropout(RandOrganDropout):
    """Organ dropout that remembers which organs it dropped last."""

    dropped: NDArray[np.intp]

    def _choose(self, organs: NDArray[np.intp]) -> NDArray[np.intp]:
        self.dropped = super()._choose(organs)
        return self.dropped


class MaskClassifier(torch.nn.Module):
    """P(label | place, mask around it) per voxel; before training it is the prior, so it can only gain on it."""

    def __init__(self, features: int, labels: int) -> None:
        super().__init__()
        last = torch.nn.Linear(48, labels)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        self.correction = torch.nn.Sequential(
            torch.nn.Linear(labels + features, 48), torch.nn.ReLU(), torch.nn.Linear(48, 48), torch.nn.ReLU(), last
        )

    def forward(self, log_prior: torch.Tensor, mask_features: torch.Tensor) -> torch.Tensor:
        return log_prior + self.correction(torch.cat([log_prior, mask_features], dim=1))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Run on one thread: the layers are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    phantoms = [make_btcv_phantom(0, case, SIZE, SPACING) for case in range(1, TRAINING + HELD_OUT + 1)]
    images = [((phantom.image.clip(-175, 250) + 175) / 425).astype(np.float32) for phantom in phantoms]
    labels = [phantom.label for phantom in phantoms]
    ids = range(int(max(label.max() for label in labels)) + 1)
    counts = np.stack([np.mean([label == i for label in labels[:TRAINING]], axis=0) for i in ids])
    prior = np.stack([ndimage.gaussian_filter(share, 0.7) for share in counts]).reshape(len(ids), -1).T
    support = np.flatnonzero(prior[:, 1:].sum(axis=1) > 0.02)
    log_prior = torch.from_numpy(np.log(prior[support] + 1e-3)).float()
    return Cohort(images, labels, support, log_prior.log_softmax(dim=1))


def describe(mask: NDArray[np.bool_], support: NDArray[np.intp]) -> torch.Tensor:
    """The mask at every supported voxel and its mean around it at four scales."""
    value = mask.astype(np.float32)
    means = [ndimage.uniform_filter(value, scale, mode="constant") for scale in (3, 7, 13, 25)]
    return torch.from_numpy(np.stack([feature.ravel()[support] for feature in (value, *means)], axis=1))


def sample_masks(dropout: RecordingDropout, cohort: Cohort, case: int) -> list[tuple[torch.Tensor, set[int]]]:
    """Mask features and dropped organs of a few draws for one case."""
    samples = []
    for _ in range(MASKS_PER_CASE):
        mask = np.asarray(dropout(cohort.images[case][None], cohort.labels[case][None])[1][0] > 0)
        samples.append((describe(mask, cohort.support), set(dropout.dropped.tolist())))
    return samples


def fit(log_prior: torch.Tensor, features: torch.Tensor, target: torch.Tensor) -> MaskClassifier:
    classifier = MaskClassifier(features.shape[1], log_prior.shape[1])
    optimizer = torch.optim.Adam(classifier.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=STEPS)
    for _ in range(STEPS):
        batch = torch.randint(len(target), (2048,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(classifier(log_prior[batch], features[batch]), target[batch]).backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


def dice(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float(2 * (predicted & true).sum() / max(1, predicted.sum() + true.sum()))


def best_thresholds(logits: torch.Tensor, target: torch.Tensor) -> list[float]:
    """For every label, the probability above which predicting it gives the best Dice."""
    probability, true = logits.softmax(dim=1).numpy(), target.numpy()
    return [
        max(THRESHOLDS, key=lambda threshold: dice(probability[:, i] > threshold, true == i))
        for i in range(probability.shape[1])
    ]


def dice_per_label(logits: torch.Tensor, thresholds: list[float], true: NDArray[np.uint8]) -> dict[int, float]:
    probability = logits.softmax(dim=1).numpy()
    return {int(i): dice(probability[:, i] > thresholds[i], true == i) for i in np.unique(true) if i > 0}


@torch.random.fork_rng()
def measure(cohort: Cohort, **arguments: Any) -> tuple[Gain, Gain]:
    """Train both classifiers and return what the mask gains over all organs, and over the dropped ones alone."""
    torch.manual_seed(0)
    random = np.random.RandomState(0)
    dropout = RecordingDropout(**arguments)
    dropout.set_random_state(1)
    rows: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for case in range(TRAINING):
        target = torch.from_numpy(cohort.labels[case].ravel()[cohort.support]).long()
        for features, _ in sample_masks(dropout, cohort, case):
            chosen = torch.from_numpy(random.choice(len(target), VOXELS_PER_MASK, replace=False))
            rows.append((cohort.log_prior[chosen], features[chosen], target[chosen]))
    log_prior, features, target = (torch.cat(column) for column in zip(*rows, strict=True))
    classifier = fit(log_prior, features, target)
    every: list[tuple[float, float]] = []
    dropped: list[tuple[float, float]] = []
    with torch.no_grad():
        prior_thresholds = best_thresholds(log_prior, target)
        thresholds = best_thresholds(classifier(log_prior, features), target)
        for case in range(TRAINING, TRAINING + HELD_OUT):
            true = cohort.labels[case].ravel()[cohort.support]
            before = dice_per_label(cohort.log_prior, prior_thresholds, true)
            for features, organs in sample_masks(dropout, cohort, case):
                after = dice_per_label(classifier(cohort.log_prior, features), thresholds, true)
                every += [(before[organ], after[organ]) for organ in before]
                dropped += [(before[organ], after[organ]) for organ in before if organ in organs]
    return Gain(*np.mean(every, axis=0)), Gain(*np.mean(dropped, axis=0))


@pytest.mark.parametrize("arguments", [{}, {"cell_size": 4}], ids=["default", "cells of 4"])
def test_mask_tells_no_more_than_the_place(cohort: Cohort, arguments: dict[str, Any]) -> None:
    every, dropped = measure(cohort, **arguments)
    assert every.with_mask - every.prior <= 0.05
    assert dropped.with_mask - dropped.prior <= 0.05


def test_organs_own_voxels_give_them_away(cohort: Cohort) -> None:
    _, dropped = measure(cohort, extent="organ", shape="voxel", decoy_fraction=0)
    assert dropped.with_mask - dropped.prior > 0.15
