from __future__ import annotations

import pytest

from medcontext.losses import deep_supervision_weights


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [(1, [1]), (2, [1, 0]), (3, [2 / 3, 1 / 3, 0]), (5, [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0])],
)
def test_weights_halve_and_the_coarsest_has_none(outputs: int, expected: list[float]) -> None:
    assert deep_supervision_weights(outputs) == pytest.approx(expected)
