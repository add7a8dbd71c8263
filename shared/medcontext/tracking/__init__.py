"""Tracking of runs in MLflow."""

from __future__ import annotations

from medcontext.tracking.address import resolve_tracking_uri
from medcontext.tracking.tracker import MLflowTracker

__all__ = ["MLflowTracker", "resolve_tracking_uri"]
