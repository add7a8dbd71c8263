"""One colour per label, the same in every figure."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["label_colours"]

# Okabe and Ito (2008) without black and grey, then Paul Tol's "muted": they stay apart under colour blindness.
# No palette does so for more than about ten colours, so outlines and legends have to help. Its two blues stand apart,
# or they become a kidney's and that of the liver beside it.
_COLOURS = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#D55E00",
    "#CC79A7",
    "#882255",
    "#6A5BC4",
    "#0072B2",
    "#44AA99",
    "#DDCC77",
    "#999933",
    "#CC6677",
    "#117733",
    "#AA4499",
    "#88CCEE",
)


def label_colours(labels: Iterable[str]) -> dict[str, str]:
    """Return a fixed colour for every label as ``"#rrggbb"``, by its index in ``labels``, repeating after sixteen."""
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(labels)}
