"""Values of the metrics where the label, the prediction or both are empty, by the name of a protocol.

``default``: our own columns, in mm, with any protocol. NaN means "no such value".

=================  ================  ====================  ====================
in the label       in the            ``dice``,             ``hd95_mm``,
                   prediction        ``surface_dice``      ``assd_mm``
=================  ================  ====================  ====================
yes                no (missed)       0                     NaN
no                 yes (spurious)    0                     NaN
no                 no (absent)       NaN                   NaN
=================  ================  ====================  ====================

``paper`` and ``paper_unetr`` add two columns that repeat what published scripts compute, for comparison with published
numbers. Nothing is left out of their averages, and a missed organ has the best possible distance:

=================  ================  ====================  ====================  =====================
in the label       in the            ``paper_dice``:       ``paper_dice``:       ``paper_hd95_voxels``
                   prediction        ``paper``             ``paper_unetr``
=================  ================  ====================  ====================  =====================
yes                no (missed)       0                     0                     0
no                 yes (spurious)    0                     0                     0
no                 no (absent)       1                     0                     0
=================  ================  ====================  ====================  =====================

``paper_hd95_voxels`` is the 95th percentile of the surface distances of both directions taken together, without the
spacing: in voxels of the masks' grid, however thick its slices are. The published numbers were taken on the authors'
grids (nnFormer and UNETR++: that of the files; UNETR: 1.5 × 1.5 × 2 mm).

Sources: ``paper`` is ``inference_synapse.py``, ``inference_acdc.py`` and ``inference_tumor.py`` of nnFormer, which
UNETR++ and MedContext repeat (BraTS in the regions WT, TC and ET; UNETR++ averages edema and non-enhancing tumor in as
well); ``paper_unetr`` is MedContext's ``test_8.py`` for UNETR on BTCV, which averages all 13 organs and also gives an
average surface distance, left out here. All use ``hd95`` of MedPy, whose definition is repeated here without MedPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from medcontext.checks import check_choice

__all__ = ["EmptyCases", "MetricProtocol", "PROTOCOLS", "metric_protocol"]


@dataclass(frozen=True)
class EmptyCases:
    """Values of a metric where it cannot be computed.

    Attributes:
        missed: in the label, not in the prediction.
        spurious: in the prediction, not in the label.
        absent: in neither.
    """

    missed: float
    spurious: float
    absent: float


@dataclass(frozen=True)
class MetricProtocol:
    """Rules for empty masks.

    Attributes:
        overlap: of the Dice coefficients.
        distance: of the surface distances.
    """

    overlap: EmptyCases
    distance: EmptyCases


_NO_DISTANCE = EmptyCases(missed=math.nan, spurious=math.nan, absent=math.nan)
_PERFECT_DISTANCE = EmptyCases(missed=0.0, spurious=0.0, absent=0.0)

PROTOCOLS: Mapping[str, MetricProtocol] = MappingProxyType(
    {
        "default": MetricProtocol(EmptyCases(missed=0.0, spurious=0.0, absent=math.nan), _NO_DISTANCE),
        "paper": MetricProtocol(EmptyCases(missed=0.0, spurious=0.0, absent=1.0), _PERFECT_DISTANCE),
        "paper_unetr": MetricProtocol(EmptyCases(missed=0.0, spurious=0.0, absent=0.0), _PERFECT_DISTANCE),
    }
)
"""The protocols by name; see the module's tables."""


def metric_protocol(name: str) -> MetricProtocol:
    """Look up a protocol.

    Args:
        name: key of :data:`PROTOCOLS`.

    Raises:
        ValueError: If there is no such protocol.

    Example:
        >>> metric_protocol("paper").overlap.absent
        1.0
    """
    return PROTOCOLS[check_choice("protocol", name, PROTOCOLS)]
