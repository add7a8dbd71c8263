"""Labels that have sides, along which images must not be mirrored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["sided_axes", "sided_labels"]

# the words for two sides in names, and the anatomical directions that exchange them when mirrored
_SIDES = (
    ("left", "right", "LR"),
    ("anterior", "posterior", "AP"),
    ("superior", "inferior", "SI"),
    ("upper", "lower", "SI"),
)


def sided_labels(labels: Mapping[str, Any]) -> list[list[str]]:
    """Find the pairs of labels whose names differ only in left and right, or in another pair of sides.

    Sides are separate words, in upper or lower case: ``left_kidney`` and ``Right Kidney`` are a pair, ``left_kidney``
    and ``right_adrenal_gland`` are not, since their other words differ. Exceptions such as ACDC's ``left_ventricle``,
    which is no mirror image of the right one, must be declared.

    Args:
        labels: labels by name.

    Returns:
        Pairs of names.
    """
    by_rest: dict[tuple[str, str], dict[str, str]] = {}
    for name in labels:
        for first, second, axis in _SIDES:
            words = re.split(r"[\W_]+", name.lower())
            side = next((word for word in words if word in (first, second)), None)
            if side is not None:
                rest = " ".join("" if word in (first, second) else word for word in words)
                by_rest.setdefault((axis + first, rest), {})[side] = name
    return [list(pair.values()) for pair in by_rest.values() if len(pair) == 2]


def sided_axes(pairs: Iterable[Sequence[str]], orientation: str) -> list[int]:
    """Return the spatial axes along which mirroring would exchange the labels of a pair.

    Args:
        pairs: pairs of names, from :func:`sided_labels` or declared; they are taken as left and right where the names
            say nothing else.
        orientation: ends that the axes run towards, such as ``"RAS"`` or ``"SPL"``.

    Raises:
        ValueError: If a pair is not two names.
    """
    directions = set()
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise ValueError(
                f"sided_labels must be pairs of names, such as ['left_kidney', 'right_kidney'], got {pair!r}."
            )
        words = set(re.split(r"[\W_]+", " ".join(pair).lower()))
        directions.add(next((axis for first, second, axis in _SIDES if {first, second} <= words), "LR"))
    return [axis for axis, code in enumerate(orientation.upper()) if any(code in pair for pair in directions)]
