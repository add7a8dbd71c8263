"""A user's own tiny volumes in the forms that people keep them in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from downloads import volume

LABELS = {"background": 0, "liver": 1, "spleen": 2}


def described(folder: Path, **content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def nnunet(folder: Path, channels: int = 1, labelled_tests: Iterable[str] = (), **content: Any) -> Path:
    """``Dataset007_X`` with three cases to train on and two of ``imagesTs``."""
    for case in ("a", "b", "c", "d", "e"):
        part = "Tr" if case in "abc" else "Ts"
        for channel in range(channels):
            volume(folder / f"images{part}" / f"{case}_{channel:04d}.nii.gz")
        if part == "Tr" or case in labelled_tests:
            volume(folder / f"labels{part}" / f"{case}.nii.gz", labels=(1, 2))
    names = {str(channel): name for channel, name in enumerate(["T1", "FLAIR"][:channels])}
    standard = {"channel_names": names, "labels": LABELS, "numTraining": 3, "file_ending": ".nii.gz"}
    return described(folder, **{**standard, **content})


def decathlon(folder: Path, **content: Any) -> Path:
    """``Task09_Spleen`` with three cases to train on and one of ``imagesTs``."""
    for case in ("a", "b", "c"):
        volume(folder / "imagesTr" / f"{case}.nii.gz")
        volume(folder / "labelsTr" / f"{case}.nii.gz", labels=(1,))
    volume(folder / "imagesTs" / "d.nii.gz")
    standard = {
        "name": "Spleen",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "spleen"},
        "training": entries("a", "b", "c"),
        "test": ["./imagesTs/d.nii.gz"],
    }
    return described(folder, **{**standard, **content})


def entries(*cases: str) -> list[dict[str, Any]]:
    return [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases]


def two_folders(folder: Path, images: Iterable[str], labels: Iterable[str]) -> Path:
    """Files of the given names below ``images`` and ``labels``."""
    for name in images:
        volume(folder / "images" / name)
    for name in labels:
        volume(folder / "labels" / name, labels=(1, 3))
    return folder
