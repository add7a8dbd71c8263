"""Labels that have sides, along which no image may be mirrored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["sided_axes", "sided_labels"]

# what a name says of its side, and the anatomical directions between which mirroring would exchange the two
_SIDES = (
    ("left", "right", "LR"),
    ("anterior", "posterior", "AP"),
    ("superior", "inferior", "SI"),
    ("upper", "lower", "SI"),
)


def sided_labels(labels: Mapping[str, Any]) -> list[list[str]]:
    """Find the pairs of labels whose names differ only in left and right, or in another pair of sides.

    Sides are words of their own, in any case: ``left_kidney`` and ``Right Kidney`` are a pair, ``left_kidney`` and
    ``right_adrenal_gland`` are none, since their other words differ. Names such as ACDC's ``left_ventricle``, which is
    no mirror image of the right one, must be declared as no pair.

    Args:
        labels: by name.

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
        pairs: of names, from :func:`sided_labels` or declared; where the names do not say along which axis they are
            opposite, it is left and right.
        orientation: what the axes run towards, such as ``"RAS"`` or ``"SPL"``.

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
