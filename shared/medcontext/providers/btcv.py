"""BTCV, abdominal CT, in the layout of Synapse."""

from __future__ import annotations

from medcontext.data.datasets import BTCV_LABELS
from medcontext.providers.layouts import Edition, Pattern

__all__ = ["EDITIONS"]

EDITIONS = (
    Edition(
        name="BTCV",
        channels=(Pattern(r"img(?P<case>\d{4})", "Training/img/img{case}"),),
        label=Pattern(r"label(?P<case>\d{4})", "Training/label/label{case}"),
        modality={0: "CT"},
        labels=BTCV_LABELS,
        description="Multi-Atlas Labeling Beyond the Cranial Vault, abdomen, with the split of TransUNet",
        reference="https://www.synapse.org/Synapse:syn3193805 (RawData.zip)",
        other=r"(^|/)Testing/",
    ),
)
"""``RawData.zip``: ``Training/img/img0001.nii.gz`` and ``Training/label/label0001.nii.gz``; ``Testing`` has none."""
