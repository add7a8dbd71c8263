"""Reports: figures of slices and metrics, and the page that shows an evaluation."""

from __future__ import annotations

from medcontext.report.evaluation import write_report
from medcontext.report.figures import curves_figure, draw_planes, metrics_boxplot, overlay_figure
from medcontext.report.palette import label_colours
from medcontext.report.planes import Plane, label_planes
from medcontext.report.preview import preview_figure

__all__ = [
    "write_report",
    "Plane",
    "label_planes",
    "draw_planes",
    "overlay_figure",
    "preview_figure",
    "metrics_boxplot",
    "curves_figure",
    "label_colours",
]
