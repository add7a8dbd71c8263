"""BraTS, four MRI channels: the Decathlon's Task01, and the challenges of 2021 and 2023, whose label ids all differ."""

from __future__ import annotations

from medcontext.data.datasets import BRATS_LABELS
from medcontext.providers.layouts import Edition, Pattern

__all__ = ["EDITIONS", "TASK"]

TASK = "Task01_BrainTumour"
MODALITY = {0: "FLAIR", 1: "T1w", 2: "T1gd", 3: "T2w"}
UNLABELLED = r"(?i)validation_?data"
NAMES = ("background", "non_enhancing_tumor", "edema", "enhancing_tumor")


def _challenge(
    name: str,
    case: str,
    suffixes: tuple[str, ...],
    label_ids: tuple[int, ...],
    *,
    description: str,
    reference: str,
    patient: str | None = None,
) -> Edition:
    """Build an edition with one folder for each case and one file for each channel."""

    def pattern(suffix: str) -> Pattern:
        return Pattern(rf"(?P<case>{case})[_-]{suffix}", "{case}/{case}" + f"{'-' if '-' in case else '_'}{suffix}")

    return Edition(
        name=name,
        channels=tuple(pattern(suffix) for suffix in suffixes),
        label=pattern("seg"),
        modality=MODALITY,
        labels=dict(zip(label_ids, NAMES, strict=True)),
        other=UNLABELLED,
        description=description,
        reference=reference,
        patient=patient,
        published_split=False,
    )


EDITIONS = (
    Edition(
        name="BraTS of the Medical Segmentation Decathlon",
        channels=(Pattern(r"imagesTr/(?P<case>BRATS_\d{3})", "imagesTr/{case}"),),
        label=Pattern(r"labelsTr/(?P<case>BRATS_\d{3})", "labelsTr/{case}"),
        modality=MODALITY,
        labels=BRATS_LABELS,
        description=f"Medical Segmentation Decathlon {TASK}, with the split of nnFormer",
        example="BRATS_*",
        reference="http://medicaldecathlon.com",
        other=r"(^|/)imagesTs/",
    ),
    _challenge(
        "BraTS 2021",
        r"BraTS2021_\d{5}",
        ("flair", "t1", "t1ce", "t2"),
        (0, 1, 2, 4),
        description="RSNA-ASNR-MICCAI Brain Tumor Segmentation challenge 2021",
        reference="https://www.synapse.org/Synapse:syn25829067",
    ),
    _challenge(
        "BraTS 2023",
        r"BraTS-GLI-\d{5}-\d{3}",
        ("t2f", "t1n", "t1c", "t2w"),
        (0, 1, 2, 3),
        description="ASNR-MICCAI Brain Tumor Segmentation challenge 2023, adult glioma",
        reference="https://www.synapse.org/Synapse:syn51156910",
        patient=r"BraTS-GLI-\d{5}",
    ),
)
"""``Task01_BrainTumour.tar``, and folders of cases. BraTS 2024 looks like 2023 but has a label 4."""
