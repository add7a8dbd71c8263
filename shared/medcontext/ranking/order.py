"""The order in which scans are worth labelling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medcontext.data.datalist import Case
from medcontext.ranking.measuring import MeasuredScan

__all__ = ["RankedScan", "order_scans"]

Array = npt.NDArray[np.float64]


class RankedScan(NamedTuple):
    """A scan and its place.

    Attributes:
        rank: its place, from 1.
        case: the scan, with ``image``.
        score: product of the two values below.
        disagreement: how far its predictions differ, from 0 to 1.
        distance: distance of its features from the nearest labelled scan or scan of a lower rank, in units of the
            root mean squared distance between scans; 1 for the first scan where none is labelled.
    """

    rank: int
    case: Case
    score: float
    disagreement: float
    distance: float


def order_scans(scans: Sequence[MeasuredScan], labeled: Sequence[MeasuredScan]) -> list[RankedScan]:
    """Order scans by disagreement times distance, each in turn counted as labelled once it has its place.

    Args:
        scans: unlabelled scans.
        labeled: scans that are labelled already; may be none.

    Returns:
        All unlabelled scans, the most valuable first.

    Source: greedy choice of the farthest scan as in Sener and Savarese, Active Learning for Convolutional Neural
    Networks: A Core-Set Approach, ICLR 2018; weighted here by disagreement.
    """
    features = _standardised(np.stack([scan.features for scan in [*labeled, *scans]]))
    known, new = features[: len(labeled)], features[len(labeled) :]
    unit = _typical_distance(features)
    nearest = np.array([_distances(known, row).min(initial=np.inf) for row in new]) / unit
    disagreement = np.array([scan.disagreement for scan in scans])
    left = list(range(len(scans)))
    ranked: list[RankedScan] = []
    while left:
        distance = np.where(np.isinf(nearest), 1.0, nearest)
        scores = disagreement * distance
        best = max(left, key=lambda place: scores[place])
        values = (float(array[best]) for array in (scores, disagreement, distance))
        ranked.append(RankedScan(len(ranked) + 1, scans[best].case, *values))
        left.remove(best)
        nearest = np.minimum(nearest, _distances(new, new[best]) / unit)
    return ranked


def _standardised(features: Array) -> Array:
    """Return features (N, F) with mean 0 and deviation 1; those that do not vary become 0."""
    deviation = features.std(axis=0)
    return np.asarray((features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1))


def _distances(features: Array, point: Array) -> Array:
    return np.asarray(np.linalg.norm(features - point, axis=1))


def _typical_distance(features: Array) -> float:
    """Return the root mean squared distance between two of several scans, 1 if they are all alike."""
    return float(np.sqrt(2 * features.var(axis=0).sum())) or 1.0
