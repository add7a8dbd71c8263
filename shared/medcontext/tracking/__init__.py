"""Training runs in MLflow."""

from __future__ import annotations

from medcontext.tracking.tracker import MLflowTracker

__all__ = ["MLflowTracker"]
