"""Metrics of segmentations: per case and label, their averages, and Dice by label during validation."""

from __future__ import annotations

from medcontext.metrics.case_metrics import SurfaceTolerance, case_metrics, surface_tolerances
from medcontext.metrics.components import ComponentEvidence, choose_components, component_counts
from medcontext.metrics.estimates import ESTIMATE, estimate_errors
from medcontext.metrics.label_dice import LabelDice
from medcontext.metrics.protocols import PROTOCOLS, EmptyCases, MetricProtocol, metric_protocol
from medcontext.metrics.summary import MetricSummary, case_mean_dice, summarise

__all__ = [
    "case_metrics",
    "SurfaceTolerance",
    "surface_tolerances",
    "ComponentEvidence",
    "choose_components",
    "component_counts",
    "PROTOCOLS",
    "EmptyCases",
    "MetricProtocol",
    "metric_protocol",
    "LabelDice",
    "MetricSummary",
    "ESTIMATE",
    "case_mean_dice",
    "estimate_errors",
    "summarise",
]
