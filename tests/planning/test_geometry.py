from __future__ import annotations

from collections.abc import Sequence

import pytest

from cohorts import facts, fingerprint
from medcontext.planning.geometry import is_thick, median_shape, target_spacing


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ([((9, 9, 9), (1.0, 1.0, 2.0)), ((9, 9, 9), (1.5, 1.5, 4.0)), ((9, 9, 9), (2.0, 2.0, 6.0))], (1.5, 1.5, 4.0)),
        # thick and few slices: the 10th percentile of 5, 8, 10 is 5.6
        ([((99, 99, 9), (1.0, 1.0, z)) for z in (5.0, 8.0, 10.0)], (1.0, 1.0, 5.6)),
        # thick but many slices keep the median, as in nnU-Net
        ([((99, 99, 50), (1.0, 1.0, z)) for z in (5.0, 8.0, 10.0)], (1.0, 1.0, 8.0)),
        # never finer than within slices: the 10th percentile of 0.5, 9, 9 is 2.2
        ([((99, 99, 9), (2.5, 2.5, z)) for z in (0.5, 9.0, 9.0)], (2.5, 2.5, 2.5)),
        # thick along the first axis
        ([((9, 99, 99), (10.0, 1.0, 1.0)), ((9, 99, 99), (10.0, 1.0, 1.0))], (10.0, 1.0, 1.0)),
    ],
)
def test_the_spacing_to_resample_to(
    cases: Sequence[tuple[Sequence[int], Sequence[float]]], expected: tuple[float, ...]
) -> None:
    planned, why = target_spacing(fingerprint(*(facts(shape=shape, spacing=spacing) for shape, spacing in cases)))
    assert planned == pytest.approx(expected)
    assert why.startswith(f"median of {len(cases)} cases")


@pytest.mark.parametrize(("spacing", "thick"), [((1, 1, 3), False), ((1, 1, 3.1), True), ((5, 1, 4), False)])
def test_thick_slices(spacing: Sequence[float], thick: bool) -> None:
    assert is_thick(spacing) is thick


def test_the_median_scan_in_new_voxels() -> None:
    cases = [facts(shape=(10, 20, 30), spacing=(1.0, 1.0, size)) for size in (1.0, 2.0, 4.0)]
    assert median_shape(fingerprint(*cases), (2.0, 3.0, 2.0)) == (5, 7, 30)
