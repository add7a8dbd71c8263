"""Reports: figures of slices and metrics, and the page of an evaluation."""

from __future__ import annotations

from medcontext.report.charts import curves_figure, metrics_boxplot, read_history
from medcontext.report.evaluation_page import write_report
from medcontext.report.figures import draw_planes, overlay_figure
from medcontext.report.palette import label_colours
from medcontext.report.planes import Plane, label_planes
from medcontext.report.prediction import prediction_figure
from medcontext.report.preview import preview_figure
from medcontext.report.provenance import (
    checkpoint_sha256,
    circumstances,
    device_name,
    evaluation_dir,
    selected_weights,
    training_settings,
)

__all__ = [
    "write_report",
    "Plane",
    "label_planes",
    "draw_planes",
    "overlay_figure",
    "prediction_figure",
    "preview_figure",
    "metrics_boxplot",
    "curves_figure",
    "read_history",
    "label_colours",
    "checkpoint_sha256",
    "circumstances",
    "device_name",
    "evaluation_dir",
    "selected_weights",
    "training_settings",
]
