"""MedContext: contextual self-distillation for volumetric medical image segmentation, as MONAI bundles."""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

__all__ = ["__version__"]

__version__ = "0.1.0"
