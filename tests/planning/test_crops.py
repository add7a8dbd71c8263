from __future__ import annotations

from collections.abc import Sequence
from math import prod

import pytest

from medcontext.planning.crops import Size, crops_of, largest_crop


@pytest.mark.parametrize(
    ("shape", "divisors", "first", "last"),
    [
        ((100, 50, 20), (16, 16, 16), (112, 64, 32), (32, 16, 16)),
        ((100, 50, 20), (32, 32, 32), (128, 64, 32), (64, 32, 32)),
        ((30, 200, 200), (16, 32, 32), (32, 224, 224), (16, 32, 64)),
        # one step at least beyond the divisors, which leave one voxel to normalise
        ((10, 12, 8), (32, 32, 32), (32, 64, 32), (32, 64, 32)),
    ],
)
def test_crops_from_a_whole_scan_down(shape: Sequence[float], divisors: Size, first: Size, last: Size) -> None:
    crops = crops_of(shape, divisors)
    assert (crops[0], crops[-1]) == (first, last)
    assert all(size % divisor == 0 for crop in crops for size, divisor in zip(crop, divisors, strict=True))
    assert list(map(prod, crops)) == sorted(map(prod, crops), reverse=True)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(10**9, (512, 512, 400)), (96**3 * 1.5 + 10, (112, 112, 96)), (32 * 16 * 16 * 2, None), (100, None)],
)
def test_the_largest_crop_is_found_with_few_questions(budget: float, expected: Size | None) -> None:
    """What a crop needs grows a little faster than its voxels."""
    asked: list[Size] = []

    def need(crop: Size) -> float:
        asked.append(crop)
        return 10_000 + prod(crop) ** 1.02

    crops = crops_of((512, 512, 400), (16, 16, 16))
    found = largest_crop(crops, need, budget)
    brute = next((crop for crop in crops if 10_000 + prod(crop) ** 1.02 <= budget), None)
    assert found == brute
    assert len(asked) <= 6
    assert (found is None) == (expected is None)
