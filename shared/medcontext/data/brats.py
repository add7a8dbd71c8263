"""BraTS, four MRI channels: the Decathlon's Task01, and the challenges of 2021 and 2023, whose label ids all differ."""

from __future__ import annotations

import os
from pathlib import Path

from medcontext.data.datasets import BRATS_LABELS
from medcontext.data.layouts import Edition, Pattern

__all__ = ["EDITIONS", "download_task01"]

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
    """An edition with one folder for each case and one file for each channel."""

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


def download_task01(folder: str | os.PathLike[str]) -> Path:
    """Download the Decathlon's ``Task01_BrainTumour.tar`` (7 GB) unless it is there, and compare its checksum.

    Args:
        folder: where the archive shall lie.

    Returns:
        Path of the archive.

    Raises:
        OSError: when it cannot be had.
        ValueError: when its checksum is not the published one.
    """
    from monai.apps import DecathlonDataset, download_url  # here, for it takes seconds and only a download needs it
    from monai.apps.utils import HashCheckError

    archive = Path(folder) / f"{TASK}.tar"
    try:
        download_url(DecathlonDataset.resource[TASK], archive, DecathlonDataset.md5[TASK], "md5")
    except HashCheckError as error:
        raise ValueError(
            f"{archive} is not the published archive (its checksum differs); remove it, and try again."
        ) from error
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{archive.name} could not be downloaded ({error}); get it elsewhere and give it as the source."
        ) from error
    if not archive.is_file():
        raise OSError(f"{archive} could not be written; give another folder as the source.")
    return archive
