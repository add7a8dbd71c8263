"""How much dropped context tells about the label, beyond what the place in the body tells anyway.

By the mask alone, and by the filled image of a body without organs to see, where holes are all that could tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medcontext.phantoms import make_btcv_phantom
from medcontext.transforms import BatchOrganDropout, RandOrganDropout

SIZE, SPACING = (48, 48, 48), (3.0, 3.0, 4.0)
TRAINING, HELD_OUT = 32, 12
MASKS_PER_CASE = 3
VOXELS_PER_MASK = 3000
STEPS = 600
SCALES = (3, 7, 13, 25)
THRESHOLDS = np.linspace(0.05, 0.6, 12)


Describe = Callable[[NDArray[np.float32], NDArray[np.float32]], list[NDArray[np.float32]]]


class Cohort(NamedTuple):
    """Phantoms in the same field: images in [0, 1], label ids, and where organs can lie at all.

    ``bodies`` are images of the same bodies with tissue of one kind, in which no organ can be seen. ``log_prior`` holds
    log P(label | place) for the places in ``support`` (flat voxel indices), one column per label.
    """

    images: list[NDArray[np.float32]]
    bodies: list[NDArray[np.float32]]
    labels: list[NDArray[np.uint8]]
    support: NDArray[np.intp]
    log_prior: torch.Tensor


class Gain(NamedTuple):
    """Mean Dice of the prior and of the classifier that also sees the holes, over organs of held-out cases."""

    prior: float
    with_holes: float


class RecordingDropout(RandOrganDropout):
    """Organ dropout that remembers which organs it dropped last."""

    dropped: NDArray[np.intp]

    def _choose_organs(self, organs: NDArray[np.intp]) -> NDArray[np.intp]:
        self.dropped = super()._choose_organs(organs)
        return self.dropped


class RecordingBatchDropout:
    """The dropout of batches, in the place of the other; it tells of the organs that it hid at least a quarter of."""

    def __init__(self, **arguments: Any) -> None:
        self.dropout = BatchOrganDropout(14, **arguments)
        self.dropped = np.zeros(0, np.intp)

    def __call__(self, image: NDArray[Any], label: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        masked, mask = self.dropout(torch.from_numpy(image)[None], torch.from_numpy(label)[None])
        hidden = mask[0].numpy() > 0
        organs = [organ for organ in np.unique(label) if organ > 0]
        self.dropped = np.asarray([organ for organ in organs if hidden[label == organ].mean() > 0.25])
        return masked[0].numpy(), mask[0].numpy()


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
    noise = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    bodies = [ndimage.binary_fill_holes(image > 0.05) * (0.5 + 0.1 * noise) for image in images]
    bodies = [body.astype(np.float32) for body in bodies]
    return Cohort(images, bodies, labels, support, log_prior.log_softmax(dim=1))


def describe_mask(masked: NDArray[np.float32], mask: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The mask and its mean around each voxel at four scales."""
    value = (mask > 0).astype(np.float32)
    return [value, *(ndimage.uniform_filter(value, scale, mode="constant") for scale in SCALES)]


def describe_image(masked: NDArray[np.float32], mask: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The filled image, whether it is as flat at a voxel as no tissue is, and the means of both at four scales."""
    steps = [np.abs(masked - np.roll(masked, by, axis)) for axis in range(3) for by in (-1, 1)]
    flat = ((np.min(steps, axis=0) < 1e-6) & (masked > 0)).astype(np.float32)
    means = [ndimage.uniform_filter(each, scale) for each in (masked, flat) for scale in SCALES]
    return [masked, flat, *means]


def sample(
    dropout: RecordingDropout | RecordingBatchDropout, cohort: Cohort, case: int, describe: Describe
) -> list[tuple[torch.Tensor, set[int]]]:
    """Features of every supported voxel, and the dropped organs, of a few draws for one case."""
    images = cohort.images if describe is describe_mask else cohort.bodies
    samples = []
    for _ in range(MASKS_PER_CASE):
        masked, mask = (np.asarray(each[0]) for each in dropout(images[case][None], cohort.labels[case][None]))
        features = [feature.ravel()[cohort.support] for feature in describe(masked, mask)]
        samples.append((torch.from_numpy(np.stack(features, axis=1)), set(dropout.dropped.tolist())))
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
def measure(cohort: Cohort, dropout: RecordingDropout | RecordingBatchDropout, describe: Describe) -> tuple[Gain, Gain]:
    """Train the classifier and return what it gains over all organs, and over the dropped ones alone."""
    torch.manual_seed(0)
    random = np.random.RandomState(0)
    if isinstance(dropout, RecordingDropout):
        dropout.set_random_state(1)
    rows: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for case in range(TRAINING):
        target = torch.from_numpy(cohort.labels[case].ravel()[cohort.support]).long()
        for features, _ in sample(dropout, cohort, case, describe):
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
            for features, organs in sample(dropout, cohort, case, describe):
                after = dice_per_label(classifier(cohort.log_prior, features), thresholds, true)
                every += [(before[organ], after[organ]) for organ in before]
                dropped += [(before[organ], after[organ]) for organ in before if organ in organs]
    return Gain(*np.mean(every, axis=0)), Gain(*np.mean(dropped, axis=0))


SLOW = pytest.mark.slow
RECIPE = {"cell_size": 8, "num_organs": 1, "extent": "part", "decoy_fraction": 0.0}  # as train.json has it


@pytest.mark.parametrize(
    ("dropout", "describe"),
    [
        pytest.param(RecordingDropout(), describe_mask, id="default, by the mask", marks=SLOW),
        pytest.param(RecordingDropout(cell_size=4), describe_mask, id="cells of 4, by the mask", marks=SLOW),
        pytest.param(RecordingDropout(), describe_image, id="default, by the image", marks=SLOW),
        pytest.param(RecordingDropout(**RECIPE), describe_mask, id="recipe, by the mask"),
        pytest.param(RecordingDropout(**RECIPE), describe_image, id="recipe, by the image", marks=SLOW),
        pytest.param(RecordingBatchDropout(**RECIPE), describe_mask, id="batches, by the mask", marks=SLOW),
        pytest.param(RecordingBatchDropout(**RECIPE), describe_image, id="batches, by the image"),
    ],
)
def test_holes_tell_no_more_than_the_place(
    cohort: Cohort, dropout: RecordingDropout | RecordingBatchDropout, describe: Describe
) -> None:
    every, dropped = measure(cohort, dropout, describe)
    assert every.with_holes - every.prior <= 0.05
    assert dropped.with_holes - dropped.prior <= 0.05


@pytest.mark.parametrize("describe", [pytest.param(describe_mask, marks=SLOW), describe_image])
def test_organs_own_voxels_give_them_away(cohort: Cohort, describe: Describe) -> None:
    dropout = RecordingDropout(extent="organ", shape="voxel", decoy_fraction=0)
    _, dropped = measure(cohort, dropout, describe)
    assert dropped.with_holes - dropped.prior > 0.15
