"""Tiny trees of files in the layouts in which the providers hand out their datasets."""

from __future__ import annotations

import json
import tarfile
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medcontext.data.datasets import load_split
from medcontext.phantoms.cohort import phantom_split
from medcontext.providers.prepare import prepare_dataset
from medcontext.storage import transfer


def volume(path: Path, channels: int = 1, labels: tuple[int, ...] = (), spacing: tuple[float, ...] = (1, 2, 3)) -> Path:
    """Write an image, or the label map that holds each of the labels once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((4, 5, 6) if channels == 1 else (4, 5, 6, channels), np.uint8 if labels else np.int16)
    # images differ, as those of different patients do
    values.flat[: max(len(labels), 1)] = labels or 1 + zlib.crc32(path.name.encode()) % 30000
    nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1])), path)
    return path


def prepare_slowly(source: str, output_dir: str) -> None:
    """Prepare BTCV, for a process that is killed in the midst of it."""
    copy = transfer._copy

    def slow(*arguments: Any) -> Any:
        time.sleep(0.05)
        return copy(*arguments)

    transfer._copy = slow
    prepare_dataset("btcv", source, output_dir)


def cases_of(dataset: str) -> list[str]:
    return [case for cases in load_split(dataset).values() for case in cases]


def btcv(folder: Path) -> Path:
    for case in cases_of("btcv"):
        volume(folder / "RawData" / "Training" / "img" / f"img{case}.nii.gz")
        volume(folder / "RawData" / "Training" / "label" / f"label{case}.nii.gz", labels=(1, 13))
    volume(folder / "RawData" / "Testing" / "img" / "img0061.nii.gz")
    return folder


def acdc(folder: Path) -> Path:
    """With the four-dimensional series, and a patient of the challenge's test set."""
    frames: dict[str, list[str]] = {}
    for case in cases_of("acdc"):
        frames.setdefault(case.split("_")[0], []).append(case)
    frames["patient101"] = ["patient101_frame01", "patient101_frame14"]
    for patient, cases in frames.items():
        top = folder / ("testing" if patient == "patient101" else "training") / patient
        for case in cases:
            volume(top / f"{case}.nii.gz")
            volume(top / f"{case}_gt.nii.gz", labels=(1, 2, 3))
        numbers = [int(case[-2:]) for case in cases]
        (top / "Info.cfg").write_text(f"ED: {numbers[0]}\nES: {numbers[1]}\nGroup: DCM\nHeight: 184.0\n")
        (top / f"{patient}_4d.nii.gz").touch()
    return folder


def acdc_of_nnunet(folder: Path) -> Path:
    for case in cases_of("acdc"):
        volume(folder / "Dataset027_ACDC" / "imagesTr" / f"{case}_0000.nii.gz")
        volume(folder / "Dataset027_ACDC" / "labelsTr" / f"{case}.nii.gz", labels=(1, 2, 3))
    return folder


def brats_of_decathlon(folder: Path) -> Path:
    """With the companions that macOS packs along."""
    task = folder / "Task01_BrainTumour"
    for case in cases_of("brats"):
        volume(task / "imagesTr" / f"{case}.nii.gz", channels=4)
        volume(task / "labelsTr" / f"{case}.nii.gz", labels=(1, 2, 3))
        (task / "imagesTr" / f"._{case}.nii.gz").touch()
    volume(task / "imagesTs" / "BRATS_485.nii.gz", channels=4)
    return folder


def hippocampus(folder: Path) -> Path:
    """With fewer training cases and scans than the Decathlon's, its ``dataset.json``, and what macOS packs along."""
    task, split = folder / "Task04_Hippocampus", phantom_split("hippocampus")
    cases, scans = sorted([*split["training"][:6], *split["test"]]), split["unlabeled"][:3]
    for case in cases:
        volume(task / "imagesTr" / f"{case}.nii.gz")
        volume(task / "labelsTr" / f"{case}.nii.gz", labels=(1, 2))
        (task / "imagesTr" / f"._{case}.nii.gz").touch()
    for case in scans:
        volume(task / "imagesTs" / f"{case}.nii.gz")
    content = {
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases],
        "test": [f"./imagesTs/{case}.nii.gz" for case in scans],
    }
    (task / "dataset.json").write_text(json.dumps(content))
    (task / "._dataset.json").write_bytes(b"\x00\x05\x16\x07")
    return folder


def brats_2021(folder: Path, count: int = 20) -> Path:
    for number in range(count):
        case = f"BraTS2021_{number:05d}"
        for suffix in ("flair", "t1", "t1ce", "t2"):
            volume(folder / case / f"{case}_{suffix}.nii.gz")
        volume(folder / case / f"{case}_seg.nii.gz", labels=(1, 2, 4))
    return folder


def brats_2023(folder: Path, count: int = 20) -> Path:
    """Every patient was seen twice."""
    for number in range(count):
        case = f"BraTS-GLI-{number // 2:05d}-{number % 2:03d}"
        for suffix in ("t2f", "t1n", "t1c", "t2w"):
            volume(folder / case / f"{case}-{suffix}.nii.gz")
        volume(folder / case / f"{case}-seg.nii.gz", labels=(1, 2, 3))
    return folder


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(folder.rglob("*")):
            target.write(path, path.relative_to(folder))
    return archive


def tarred(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as target:
        target.add(folder, ".")
    return archive


MAKERS = {
    "BTCV": ("btcv", btcv),
    "ACDC": ("acdc", acdc),
    "ACDC in nnU-Net's layout": ("acdc", acdc_of_nnunet),
    "BraTS of the Medical Segmentation Decathlon": ("brats", brats_of_decathlon),
    "Hippocampus of the Medical Segmentation Decathlon": ("hippocampus", hippocampus),
    "BraTS 2021": ("brats", brats_2021),
    "BraTS 2023": ("brats", brats_2023),
}
"""Dataset and maker of each edition, by the edition's name."""
