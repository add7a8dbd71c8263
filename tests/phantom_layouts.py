"""A generated cohort in the form in which the real dataset's providers hand theirs out."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medcontext.data.datasets import UNLABELED
from medcontext.phantoms.cohort import PHANTOM_DATASETS, PhantomDataset, nifti_bytes, store_phantom

__all__ = ["PHANTOM_LAYOUTS", "Layout", "pack_phantoms"]

Files = Iterator[tuple[str, bytes]]

NOTE = b"Generated phantoms, no patients. The real dataset asks here for its citation.\n"
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(96)
"""What macOS leaves as ``._NAME`` beside a file in archives that are packed there."""

DECATHLON_TO_BRATS_2021 = {0: 0, 1: 2, 2: 1, 3: 4}
DECATHLON_TO_BRATS_2023 = {0: 0, 1: 2, 2: 1, 3: 3}
"""Label ids: the challenges number the core 1, oedema 2, and what takes up contrast 4, since 2023 3."""


@dataclass(frozen=True)
class Cohort:
    """A finished cohort on disk.

    Attributes:
        kind: the dataset whose twin it is.
        folder: where it lies.
        record: the parameters that it was written with.
        cases: ids of all its cases with labels.
        unlabelled: ids of its scans without.
    """

    kind: PhantomDataset
    folder: Path
    record: dict[str, Any]
    cases: list[str]
    unlabelled: list[str]

    def image(self, case: str) -> bytes:
        """A case's image file."""
        return (self.folder / self.kind.image.format(case)).read_bytes()

    def label(self, case: str) -> bytes:
        """A case's label file."""
        return (self.folder / self.kind.label.format(case)).read_bytes()

    def scan(self, case: str) -> bytes:
        """Image file of a scan without a label."""
        return (self.folder / self.kind.unlabelled.format(case)).read_bytes()

    def further(self, case: str) -> bytes:
        """Image file of a case that the cohort does not have, generated in its manner."""
        record = self.record
        phantom = self.kind.make(record["seed"], case, tuple(record["size"]), tuple(record["spacing"]))
        return store_phantom(phantom, "LPS")[0]


@dataclass(frozen=True)
class Layout:
    """One form of one dataset.

    Attributes:
        dataset: whose form it is.
        files: paths and contents of a cohort in it.
        archive: ``"zip"``, ``"tar"``, or ``""`` for a folder.
    """

    dataset: str
    files: Callable[[Cohort], Files]
    archive: str = ""


def pack_phantoms(phantoms_dir: str | os.PathLike[str], layout: str, output: str | os.PathLike[str]) -> Path:
    """Pack a generated cohort as the real dataset is downloaded, so that ``prepare`` can be tried without it.

    The same cohort gives the same bytes. Test images, which the providers publish without labels, are the cohort's
    unlabelled scans, or else generated anew.

    Args:
        phantoms_dir: folder of a finished cohort, from :func:`~medcontext.phantoms.cohort.write_phantoms`.
        layout: one of ``PHANTOM_LAYOUTS``.
        output: the archive to write, or for a folder layout the folder, which must not exist.

    Returns:
        Path of the archive or folder.

    Raises:
        FileExistsError: when ``output`` exists.
        ValueError: when the layout is unknown, or ``phantoms_dir`` holds no finished cohort of its dataset.
    """
    if layout not in PHANTOM_LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(PHANTOM_LAYOUTS)}, got {layout!r}.")
    form, path = PHANTOM_LAYOUTS[layout], Path(output)
    cohort = _load_cohort(Path(phantoms_dir), form.dataset)
    if path.exists():
        raise FileExistsError(f"{path} exists already; delete it or give another output.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        {"zip": _write_zip, "tar": _write_tar, "": _write_folder}[form.archive](part, form.files(cohort))
        part.replace(path)
    finally:
        shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
    return path


def _load_cohort(folder: Path, dataset: str) -> Cohort:
    datalist = folder / "dataset.json"
    content = json.loads(datalist.read_text(encoding="utf-8")) if datalist.is_file() else {}
    record = content.get("phantom", {})
    if record.get("dataset") != dataset:
        raise ValueError(
            f"phantoms_dir must hold a finished {dataset} cohort, got {folder} with {record.get('dataset', 'none')}. "
            f"Write one with: python -m medcontext phantoms --dataset {dataset} --output_dir {folder}"
        )
    labelled = [*content["training"], *content["validation"], *content["test"]]
    cases, scans = (
        [Path(entry["image"]).name.removesuffix(".nii.gz").removeprefix("img") for entry in entries]
        for entries in (labelled, content.get(UNLABELED, []))
    )
    return Cohort(PHANTOM_DATASETS[dataset], folder, record, cases, scans)


def _write_folder(folder: Path, files: Files) -> None:
    for name, content in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _write_zip(path: Path, files: Files) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content)


def _write_tar(path: Path, files: Files) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _btcv(cohort: Cohort) -> Files:
    """``RawData`` of Synapse ``syn3193805``; its test images have no labels."""
    for case in cohort.cases:
        yield f"RawData/Training/img/img{case}.nii.gz", cohort.image(case)
        yield f"RawData/Training/label/label{case}.nii.gz", cohort.label(case)
    for case in ("0061", "0062"):
        yield f"RawData/Testing/img/img{case}.nii.gz", cohort.further(case)


def _acdc_patients(cohort: Cohort, top: str, note: bool) -> Files:
    """A folder for every patient: both frames with their label maps, the whole cine, and ``Info.cfg``."""
    for patient in dict.fromkeys(case.split("_")[0] for case in cohort.cases):
        place = f"{top}/{patient}"
        info = (cohort.folder / "training" / patient / "Info.cfg").read_bytes()
        frames = [case for case in cohort.cases if case.startswith(f"{patient}_")]
        yield f"{place}/Info.cfg", info
        if note:
            yield f"{place}/MANDATORY_CITATION.md", NOTE
        yield f"{place}/{patient}_4d.nii.gz", _cine([cohort.image(case) for case in frames], frames, info)
        for case in frames:
            yield f"{place}/{case}.nii.gz", cohort.image(case)
            yield f"{place}/{case}_gt.nii.gz", cohort.label(case)


def _cine(images: list[bytes], cases: list[str], info: bytes) -> bytes:
    """The beating heart: from one frame to the other and back, each fading into the next."""
    volumes = [nib.Nifti1Image.from_bytes(gzip.decompress(image)) for image in images]
    first, second = (np.asarray(volume.dataobj, np.float32) for volume in volumes)
    length = int(dict(line.split(": ") for line in info.decode().splitlines())["NbFrame"])
    numbers = [int(case[-2:]) for case in cases]
    share = np.interp(np.arange(1, length + 1), numbers, (0.0, 1.0), period=length).astype(np.float32)
    frames = [np.rint(first + s * (second - first)).astype(np.int16) for s in share]
    return nifti_bytes(np.stack(frames, axis=-1), volumes[0].affine)


def _acdc_2017(cohort: Cohort) -> Files:
    """``training.zip`` of the challenge's own site."""
    return _acdc_patients(cohort, "training", note=False)


def _acdc_today(cohort: Cohort) -> Files:
    """``ACDC`` of the Human Heart Project: the same patients in ``database``, with a note in every folder."""
    yield "ACDC/database/MANDATORY_CITATION.md", NOTE
    yield from _acdc_patients(cohort, "ACDC/database/training", note=True)


def _acdc_nnunet(cohort: Cohort) -> Files:
    """nnU-Net's ``Dataset027_ACDC``."""
    for case in cohort.cases:
        yield f"Dataset027_ACDC/imagesTr/{case}_0000.nii.gz", cohort.image(case)
        yield f"Dataset027_ACDC/labelsTr/{case}.nii.gz", cohort.label(case)
    content = {
        "channel_names": {"0": "cineMRI"},
        "labels": {"background": 0, "RV": 1, "MLV": 2, "LVC": 3},
        "numTraining": len(cohort.cases),
        "file_ending": ".nii.gz",
    }
    yield "Dataset027_ACDC/dataset.json", json.dumps(content, indent=4).encode()


def _brats_decathlon(cohort: Cohort) -> Files:
    """``Task01_BrainTumour`` of the Medical Segmentation Decathlon."""
    names = {
        "name": "BRATS",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    }
    return _decathlon(cohort, "Task01_BrainTumour", names, dict.fromkeys(("BRATS_485", "BRATS_486"), cohort.further))


def _hippocampus_decathlon(cohort: Cohort) -> Files:
    """``Task04_Hippocampus`` of the Medical Segmentation Decathlon."""
    names = {
        "name": "Hippocampus",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
    }
    return _decathlon(cohort, "Task04_Hippocampus", names, dict.fromkeys(cohort.unlabelled, cohort.scan))


def _decathlon(
    cohort: Cohort, top: str, names: Mapping[str, Any], tests: Mapping[str, Callable[[str], bytes]]
) -> Files:
    """A task of the Medical Segmentation Decathlon, with what macOS left in it; its test images have no labels."""
    content = {
        **names,
        "description": f"{cohort.kind.description}. No patients.",
        "tensorImageSize": "3D" if len(names["modality"]) == 1 else "4D",
        "numTraining": len(cohort.cases),
        "numTest": len(tests),
        "training": [
            {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cohort.cases
        ],
        "test": [f"./imagesTs/{case}.nii.gz" for case in tests],
    }
    yield f"{top}/dataset.json", json.dumps(content).encode()
    for part, readers in (
        ("imagesTr", dict.fromkeys(cohort.cases, cohort.image)),
        ("labelsTr", dict.fromkeys(cohort.cases, cohort.label)),
        ("imagesTs", tests),
    ):
        for case, read in readers.items():
            yield f"{top}/{part}/._{case}.nii.gz", APPLE_DOUBLE
            yield f"{top}/{part}/{case}.nii.gz", read(case)


def _brats_2021(cohort: Cohort) -> Files:
    """Case folders of BraTS 2021."""
    return _brats_challenge(cohort, "BraTS2021_{:05d}", "_", ("flair", "t1", "t1ce", "t2"), DECATHLON_TO_BRATS_2021)


def _brats_2023(cohort: Cohort) -> Files:
    """Case folders of BraTS 2023's glioma task, in the folder of its archive."""
    top = "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData"
    files = _brats_challenge(cohort, "BraTS-GLI-{:05d}-000", "-", ("t2f", "t1n", "t1c", "t2w"), DECATHLON_TO_BRATS_2023)
    return ((f"{top}/{name}", content) for name, content in files)


def _brats_challenge(cohort: Cohort, name: str, dash: str, channels: Iterable[str], ids: Mapping[int, int]) -> Files:
    """A folder for every case, a file for every channel (in the Decathlon's order), and the challenge's label ids."""
    table = np.array([ids[i] for i in range(len(ids))], np.uint8)
    for case in cohort.cases:
        target = name.format(int(case[-3:]))
        image = nib.Nifti1Image.from_bytes(gzip.decompress(cohort.image(case)))
        volumes = np.moveaxis(np.asarray(image.dataobj), -1, 0)
        for channel, volume in zip(channels, volumes, strict=True):
            yield f"{target}/{target}{dash}{channel}.nii.gz", nifti_bytes(volume, image.affine)
        label = nib.Nifti1Image.from_bytes(gzip.decompress(cohort.label(case)))
        yield f"{target}/{target}{dash}seg.nii.gz", nifti_bytes(table[np.asarray(label.dataobj)], label.affine)


PHANTOM_LAYOUTS: dict[str, Layout] = {
    "btcv_zip": Layout("btcv", _btcv, "zip"),
    "btcv_folder": Layout("btcv", _btcv),
    "acdc_zip": Layout("acdc", _acdc_2017, "zip"),
    "acdc_folder": Layout("acdc", _acdc_today),
    "acdc_nnunet": Layout("acdc", _acdc_nnunet),
    "brats_msd_tar": Layout("brats", _brats_decathlon, "tar"),
    "brats_msd_folder": Layout("brats", _brats_decathlon),
    "brats_2021": Layout("brats", _brats_2021),
    "brats_2023": Layout("brats", _brats_2023),
    "hippocampus_msd_tar": Layout("hippocampus", _hippocampus_decathlon, "tar"),
    "hippocampus_msd_folder": Layout("hippocampus", _hippocampus_decathlon),
}
"""Forms in which the real datasets are handed out, by name."""
