"""Which unlabelled scans to label next."""

from __future__ import annotations

from medcontext.ranking.measuring import MeasuredScan, measure_scans
from medcontext.ranking.order import RankedScan, order_scans
from medcontext.ranking.page import write_ranking
from medcontext.ranking.rank import rank_scans
from medcontext.ranking.trained import TrainedNetwork

__all__ = [
    "MeasuredScan",
    "RankedScan",
    "TrainedNetwork",
    "measure_scans",
    "order_scans",
    "rank_scans",
    "write_ranking",
]
