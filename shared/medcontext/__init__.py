"""MedContext: contextual self-distillation for volumetric medical image segmentation, as MONAI bundles."""

from __future__ import annotations

import logging
import os
import warnings

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# where pydicom is installed, MONAI tells every run that NVIDIA's decoder for DICOM, which nothing here uses, is not
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")

__all__ = ["__version__"]

__version__ = "0.1.0"
