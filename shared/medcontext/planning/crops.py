"""The largest crop that a network takes and a budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import TypeAlias

__all__ = ["Size", "crops_of", "largest_crop"]

Size: TypeAlias = tuple[int, int, int]


def crops_of(shape: Sequence[float], divisors: Sequence[int]) -> list[Size]:
    """Return crops that a network takes, from a whole scan down, in the proportions of the scan.

    Each is shorter than the one before by one divisor, along the axis that is longest in proportion to the scan.

    Args:
        shape: voxels of the median scan along each axis.
        divisors: the network takes their multiples.

    Returns:
        Sizes, of which the first is the scan rounded up. The divisors alone are not among them, since normalisation
        needs more than the one voxel that remains of such a crop at the deepest stage.

    Example:
        >>> crops_of((40, 40, 10), (16, 16, 16))
        [(48, 48, 16), (32, 48, 16), (32, 32, 16), (16, 32, 16)]
    """
    size = [max(ceil(length / divisor), 1) * divisor for length, divisor in zip(shape, divisors, strict=True)]
    if size == list(divisors):
        axis = max(range(3), key=lambda index: shape[index] / divisors[index])
        size[axis] *= 2
    found: list[Size] = []
    while size != list(divisors):
        first, second, third = size
        found.append((first, second, third))
        longer = [axis for axis in range(3) if size[axis] > divisors[axis]]
        axis = max(longer, key=lambda index: (size[index] / shape[index], -index))
        size[axis] -= divisors[axis]
    return found


def largest_crop(crops: Sequence[Size], need: Callable[[Size], float], budget: float) -> Size | None:
    """Return the first crop that the budget allows, ``None`` if none does.

    What a crop needs is expensive to find, and almost proportional to its voxels, so that few crops are asked about.

    Args:
        crops: sizes in descending order.
        need: what a crop needs.
        budget: what there is.
    """
    low, high, guess = 0, len(crops), 0
    while low < high:
        needed = need(crops[guess])
        low, high = (low, guess) if needed <= budget else (guess + 1, high)
        allowed = budget * prod(crops[guess]) / needed
        expected = next((index for index, crop in enumerate(crops) if prod(crop) <= allowed), len(crops))
        guess = min(max(expected, low), max(high - 1, low))
    return crops[low] if low < len(crops) else None
