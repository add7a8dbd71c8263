"""What a person should look at: cases whose label maps are unlike those of the other cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["CENTRE", "Finding", "find_unusual"]

CENTRE = ["x_mm", "y_mm", "z_mm"]

LEAST_CASES = 5
"""Cases that a comparison needs: with fewer, the others say too little about what is usual."""
OUTLYING = 3.5
"""Modified z-score above which a value is reported, as Iglewicz and Hoaglin suggest (1993)."""
USUAL_SHARE = 0.8
"""Share of the cases that have a structure from which its absence is reported."""
OUTSIDE_SHARE = 0.05
"""Share of a structure's voxels outside its largest part that is reported where the others are in one piece."""


class Finding(NamedTuple):
    """Something unusual in a case.

    Attributes:
        case: name of the case.
        kind: ``missing``, ``volume``, ``intensity``, ``islands``, ``exchanged`` or ``shifted``.
        labels: names of the structures; none where it is the label map as a whole.
        text: sentence with the value found and the usual one.
    """

    case: str
    kind: str
    labels: tuple[str, ...]
    text: str


def find_unusual(structures: pd.DataFrame, shifts: pd.DataFrame) -> list[Finding]:
    """Compare every case with the others, and report those that a person should look at.

    Args:
        structures: a row for each case and structure: ``case``, and the columns of
            :func:`~medcontext.audit.measure_labels`.
        shifts: a row for each case: ``case``, ``shift``, three numbers of voxels, and ``gain``, from
            :func:`~medcontext.audit.label_shift`.

    Returns:
        Findings by case, in the order of the cases; none where there are fewer than five cases, or about a structure
        that is annotated in fewer.
    """
    if structures["case"].nunique() < LEAST_CASES:
        return []
    order = {case: place for place, case in enumerate(structures["case"].unique())}
    structures = structures.groupby("label", sort=False).filter(lambda rows: len(rows) >= LEAST_CASES)
    found = [
        finding
        for name, rows in structures.groupby("label", sort=False)
        for finding in (
            *_missing(str(name), rows),
            *_volumes(str(name), rows),
            *_intensities(str(name), rows),
            *_islands(str(name), rows),
        )
    ]
    found += [*_exchanged(structures), *_shifted(shifts)]
    return sorted(found, key=lambda finding: order[finding.case])


def _missing(label: str, rows: pd.DataFrame) -> Iterator[Finding]:
    present = rows["volume_ml"] > 0
    if USUAL_SHARE <= present.mean() < 1:
        text = f"{label} is missing; {present.sum()} of {len(rows)} cases have it."
        yield from (Finding(case, "missing", (label,), text) for case in rows.loc[~present, "case"])


def _volumes(label: str, rows: pd.DataFrame) -> Iterator[Finding]:
    rows = rows[rows["volume_ml"] > 0]
    usual = rows["volume_ml"].median()
    for row in rows[outlying(np.log(rows["volume_ml"].to_numpy()), least=np.log(1.1))].itertuples():
        yield Finding(
            str(row.case), "volume", (label,), f"{label} has {row.volume_ml:.3g} ml; the median is {usual:.3g} ml."
        )


def _intensities(label: str, rows: pd.DataFrame) -> Iterator[Finding]:
    rows = rows[rows["volume_ml"] > 0]
    usual = rows["intensity"].median()
    for row in rows[outlying(rows["intensity"].to_numpy(), least=0.1)].itertuples():
        text = (
            f"{label} lies {row.intensity:+.2f} standard deviations from its image's mean; the median is {usual:+.2f}."
        )
        yield Finding(str(row.case), "intensity", (label,), text)


def _islands(label: str, rows: pd.DataFrame) -> Iterator[Finding]:
    """Report parts apart from the largest one, where a structure is in one piece in most cases."""
    rows = rows[rows["volume_ml"] > 0]
    if not len(rows) or rows["outside_share"].median() > OUTSIDE_SHARE / 5:
        return
    for row in rows[rows["outside_share"] > OUTSIDE_SHARE].itertuples():
        text = f"{label} is in {row.pieces:.0f} pieces, {row.outside_share:.0%} of it apart from the largest one."
        yield Finding(str(row.case), "islands", (label,), text)


def outlying(values: npt.NDArray[Any], least: float) -> npt.NDArray[np.bool_]:
    """Find the values that are far from the median.

    Args:
        values: one for each case.
        least: smallest median absolute deviation that is believed, so that nearly equal values are not told apart.

    Returns:
        For each value whether its modified z-score, 0.6745 times its distance from the median over the median absolute
        deviation, is above 3.5.
    """
    if not values.size:
        return np.zeros(0, dtype=bool)
    distance = np.abs(values - np.median(values))
    return np.asarray(0.6745 * distance / max(float(np.median(distance)), least) > OUTLYING)


def _exchanged(structures: pd.DataFrame) -> Iterator[Finding]:
    """Report pairs of structures that lie where the other one usually does, such as the left and the right kidney."""
    usual = structures.groupby("label", sort=False)[CENTRE].median()
    for case, rows in structures.dropna(subset=CENTRE).groupby("case", sort=False):
        places = {str(row.label): np.array([row.x_mm, row.y_mm, row.z_mm]) for row in rows.itertuples()}
        for first, second in combinations(places, 2):
            here = _distance((places[first], places[second]), usual.loc[[first, second]])
            exchanged = _distance((places[second], places[first]), usual.loc[[first, second]])
            apart = float(np.linalg.norm(usual.loc[first] - usual.loc[second]))
            if exchanged < here / 3 and here > apart:
                text = f"{first} and {second} lie where the other one usually does; they may be exchanged."
                yield Finding(str(case), "exchanged", (first, second), text)


def _distance(places: Sequence[npt.NDArray[Any]], usual: pd.DataFrame) -> float:
    return float(sum(np.linalg.norm(place - other) for place, other in zip(places, usual.to_numpy(), strict=True)))


def _shifted(shifts: pd.DataFrame) -> Iterator[Finding]:
    """Report label maps that fit their image better when moved, by more and in another direction than the others."""
    moved = np.array(shifts["shift"].to_list(), dtype=float)
    usual = np.median(moved, axis=0)
    far = np.linalg.norm(moved - usual, axis=1) >= 2
    for row in shifts[far & outlying(shifts["gain"].to_numpy(), least=0.3)].itertuples():
        x, y, z = row.shift
        text = f"The label map fits its image better when moved by ({x}, {y}, {z}) voxels; it may be shifted."
        yield Finding(str(row.case), "shifted", (), text)
