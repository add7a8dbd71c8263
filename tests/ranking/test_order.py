from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medcontext.ranking import MeasuredScan, order_scans


def scans(places: Sequence[Sequence[float]], disagreement: Sequence[float]) -> list[MeasuredScan]:
    return [
        MeasuredScan({"image": f"{number}.nii.gz"}, value, np.array(place, dtype=float))
        for number, (place, value) in enumerate(zip(places, disagreement, strict=True))
    ]


def order(found: list[MeasuredScan], labeled: Sequence[MeasuredScan] = ()) -> list[int]:
    return [int(scan.case["image"].split(".")[0]) for scan in order_scans(found, labeled)]


def test_equal_scans_are_not_labelled_one_after_the_other() -> None:
    groups = [[0, 0], [0, 0], [0, 0.1], [5, 5], [5, 5.1], [9, 0]]
    ranked = order(scans(groups, [0.9, 0.9, 0.9, 0.8, 0.8, 0.7]))
    assert {place // 3 if place < 5 else 2 for place in ranked[:3]} == {0, 1, 2}
    assert ranked[0] == 0
    assert ranked[-1] == 1  # the same as the first


def test_scans_like_those_labelled_come_last() -> None:
    found = scans([[0, 0], [4, 0], [8, 0]], [0.5, 0.5, 0.5])
    assert order(found, scans([[8, 0]], [np.nan]))[0] == 0
    assert order(found, scans([[8, 0], [0, 0]], [np.nan] * 2))[0] == 1


def test_disagreement_decides_between_equally_distant_scans() -> None:
    found = scans([[1, 0], [-1, 0]], [0.2, 0.4])
    assert order(found, scans([[0, 0]], [np.nan])) == [1, 0]


def test_scans_that_are_all_alike_are_ranked_too() -> None:
    ranked = order_scans(scans([[1, 1]] * 3, [0.1, 0.3, 0.2]), [])
    assert [scan.rank for scan in ranked] == [1, 2, 3]
    assert ranked[0].disagreement == 0.3
    assert [scan.score for scan in ranked[1:]] == [0, 0]
