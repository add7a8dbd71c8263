"""Cohorts of generated volumes in the layouts of real datasets, so that unmodified configs run on them.

A cohort has the published case ids and split, and a ``dataset.json`` in the Decathlon's format beside the volumes. The
same parameters give the same bytes, whatever the number of cases and the order in which they are written, as long as
NumPy, zlib and the processor's architecture are the same.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from tqdm import tqdm

from medcontext.checks import check_choice, check_integer
from medcontext.data.datasets import (
    ACDC_LABELS,
    BRATS_CHANNELS,
    BRATS_LABELS,
    BTCV_LABELS,
    HIPPOCAMPUS_LABELS,
    PHANTOM_MARKER,
    UNLABELED,
    Split,
    load_split,
)
from medcontext.phantoms.acdc import Phase, acdc_frames, acdc_info, make_acdc_phantom
from medcontext.phantoms.brats import make_brats_phantom
from medcontext.phantoms.btcv import make_btcv_phantom
from medcontext.phantoms.hippocampus import make_hippocampus_phantom
from medcontext.phantoms.sketch import Phantom
from medcontext.storage.files import write_file

__all__ = ["PHANTOM_DATASETS", "PhantomDataset", "nifti_bytes", "phantom_split", "store_phantom", "write_phantoms"]

GENERATOR = 1
"""Increased whenever the same parameters give other volumes than before."""

ORIENTATIONS = ("RAS", "LPS", "RAS", "RAS", "LAS", "RAS", "RAS", "ASR", "RAS", "RAS", "LIA", "RAS")
"""Orientations of the stored volumes, by the patient's index in the published split: a third are not RAS."""

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class PhantomDataset:
    """Everything needed to generate the twin of one dataset.

    Attributes:
        make: generates one case in RAS from seed, case id, size and spacing.
        description: what the volumes show.
        modality: channel names, as in ``dataset.json``.
        labels: label ids and their names, background included.
        image: path of a case's image below the cohort's folder, with ``{}`` for the case id.
        label: path of its label map.
        size: default number of voxels along x, y, z.
        spacing: default voxel size in mm along x, y, z.
        smallest: fewest voxels along x, y, z.
        num_cases: default number of cases; 0 stands for the whole published split.
        frames: cases of one patient, which follow each other in the split and stay together.
        unlabelled: path of the image of a scan without a label, if the dataset has such scans.
        companions: returns paths and contents of further files beside a case, from seed and case id.
    """

    make: Callable[[int, str, Size, Spacing], Phantom]
    description: str
    modality: dict[int, str]
    labels: dict[int, str]
    image: str
    label: str
    size: Size
    spacing: Spacing
    smallest: Size = (32, 32, 32)
    num_cases: int = 0
    frames: int = 1
    unlabelled: str = ""
    companions: Callable[[int, str], dict[str, bytes]] = lambda seed, case: {}


def _make_acdc_case(seed: int, case: str, size: Size, spacing: Spacing) -> Phantom:
    patient, frame = case.split("_frame")
    phase: Phase = "ED" if acdc_frames()[patient]["ED"] == int(frame) else "ES"
    return make_acdc_phantom(seed, int(patient[-3:]), phase, size, spacing)


def _acdc_companions(seed: int, case: str) -> dict[str, bytes]:
    info = acdc_info(seed, int(case[7:10]))
    return {f"training/{case[:10]}/Info.cfg": "".join(f"{key}: {value}\n" for key, value in info.items()).encode()}


PHANTOM_DATASETS: dict[str, PhantomDataset] = {
    "btcv": PhantomDataset(
        make=lambda seed, case, size, spacing: make_btcv_phantom(seed, int(case), size, spacing),
        description="Generated abdominal CT with the 13 organs and the layout of BTCV",
        modality={0: "CT"},
        labels=BTCV_LABELS,
        image="Training/img/img{}.nii.gz",
        label="Training/label/label{}.nii.gz",
        size=(96, 96, 96),
        spacing=(1.5, 1.5, 2.0),
    ),
    "acdc": PhantomDataset(
        make=_make_acdc_case,
        description="Generated short-axis cardiac MR at end-diastole and end-systole with the layout of ACDC",
        modality={0: "MR"},
        labels=ACDC_LABELS,
        # the first ten characters of a case id name the patient
        image="training/{0:.10}/{0}.nii.gz",
        label="training/{0:.10}/{0}_gt.nii.gz",
        size=(160, 160, 10),
        spacing=(1.5, 1.5, 10.0),
        smallest=(32, 32, 4),
        frames=2,
        companions=_acdc_companions,
    ),
    "brats": PhantomDataset(
        make=lambda seed, case, size, spacing: make_brats_phantom(seed, int(case[-3:]), size, spacing),
        description="Generated brain MR of gliomas with the channels and the layout of the Decathlon's Task01",
        modality=BRATS_CHANNELS,
        labels=BRATS_LABELS,
        image="imagesTr/{}.nii.gz",
        label="labelsTr/{}.nii.gz",
        size=(96, 96, 80),
        spacing=(2.0, 2.0, 2.0),
        num_cases=40,
    ),
    "hippocampus": PhantomDataset(
        make=lambda seed, case, size, spacing: make_hippocampus_phantom(seed, int(case[-3:]), size, spacing),
        description="Generated crops of brain MR around one hippocampus with the layout of the Decathlon's Task04",
        modality={0: "MRI"},
        labels=HIPPOCAMPUS_LABELS,
        image="imagesTr/{}.nii.gz",
        label="labelsTr/{}.nii.gz",
        size=(35, 50, 36),
        spacing=(1.0, 1.0, 1.0),
        smallest=(24, 32, 24),
        unlabelled="imagesTs/{}.nii.gz",
    ),
}
"""Datasets whose twins can be generated, by name."""


def phantom_split(dataset: str) -> Split:
    """Return the case ids of the twin of a dataset by section: those of the published split.

    For the hippocampus only the test cases are published by name. The numbers between theirs are used for 200 further
    labelled cases and, in the section ``unlabeled``, 130 scans, as many as the Decathlon has.

    Raises:
        ValueError: If the dataset is unknown.
    """
    split = load_split(dataset)
    if dataset == "hippocampus":
        numbered = [f"hippocampus_{number:03d}" for number in range(1, 395)]
        others = [case for case in numbered if case not in split["test"]]
        split |= {"training": others[:200], UNLABELED: others[200:330]}
    return split


def write_phantoms(
    output_dir: str | os.PathLike[str],
    *,
    dataset: str = "btcv",
    num_cases: int | None = None,
    size: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write a cohort of generated volumes in the layout of a real dataset.

    The folder must be new, empty, or hold a cohort with the same parameters: a finished one is left as it is, and an
    interrupted one is completed. Files get their names only when they are complete, ``dataset.json`` last.

    Args:
        output_dir: the cohort's folder, created if necessary.
        dataset: dataset whose twin is written: ``"btcv"`` (abdominal CT in HU, 13 organs), ``"acdc"`` (short-axis
            cardiac MR, two frames of each patient), ``"brats"`` (brain MR in four channels, three parts of a glioma) or
            ``"hippocampus"`` (small crops of brain MR, two parts of the hippocampus, and scans without labels).
        num_cases: number of labelled cases, from one in each part to the number in the published split: 30 for BTCV (18
            for training and 12 for testing), 200 for ACDC (two of each patient), 484 for BraTS, 260 for the
            hippocampus. The default is all of them, but 40 for BraTS, of which all would take half a gigabyte. Fewer
            are the first of each part, in the published proportion and with at least one patient in each part, and
            unlabelled scans are reduced alike.
        size: voxels along x, y, z, at least 32 each; by default 96 × 96 × 96 for BTCV, 96 × 96 × 80 for BraTS,
            160 × 160 × 10 for ACDC, whose slices vary in number and may be as few as 4, and 35 × 50 × 36 (varied by
            case, at least 24 × 32 × 24) for the hippocampus. The body fills the field: halve the size and double the
            spacing for the same body at half the resolution.
        spacing: voxel size in mm along x, y, z; by default 1.5 × 1.5 × 2 for BTCV, 1.5 × 1.5 × 10 for ACDC (varied by
            patient), 2 × 2 × 2 for BraTS and 1 × 1 × 1 for the hippocampus.
        seed: seed of the cohort, 0 or more. Each case depends on the seed, its id, the size and the spacing alone.
        progress: show a progress bar.

    Returns:
        Path of the cohort's ``dataset.json``.

    Raises:
        ValueError: If an argument is out of range, or the folder holds anything else than this cohort.
    """
    kind = PHANTOM_DATASETS[check_choice("dataset", dataset, sorted(PHANTOM_DATASETS))]
    shape = _checked_size(kind.size if size is None else size, kind.smallest)
    voxel = _checked_spacing(kind.spacing if spacing is None else spacing)
    seed = check_integer("seed", seed, minimum=0, remedy="give another whole number for another cohort")
    published = phantom_split(dataset)
    split = _chosen_cases(kind, published, num_cases)
    files = {case: list(_entry(kind, part, case).values()) for part, cases in split.items() for case in cases}
    labelled = sum(len(cases) for part, cases in split.items() if part != UNLABELED)
    record = {"generator": GENERATOR, "dataset": dataset, "num_cases": labelled, "seed": seed}
    record |= {"size": list(shape), "spacing": list(voxel)}

    folder = Path(output_dir)
    datalist = folder / "dataset.json"
    _refuse_other_content(folder, record)
    order = [case for part in published.values() for case in part]
    companions = {case: kind.companions(seed, case) for case in files}
    missing = [c for c in files if not all((folder / path).is_file() for path in (*files[c], *companions[c]))]
    if not missing and datalist.is_file():
        return datalist
    write_file(folder / PHANTOM_MARKER, _to_json({"phantom": record}))
    for case in tqdm(missing, desc=f"{dataset} phantoms", unit="case", disable=not progress):
        phantom = kind.make(seed, case, shape, voxel)
        volumes = store_phantom(phantom, ORIENTATIONS[order.index(case) // kind.frames % len(ORIENTATIONS)])
        # not strict: the label's volume has no file where the case is a scan without one
        for path, content in (*zip(files[case], volumes, strict=False), *companions[case].items()):
            write_file(folder / path, content)
    write_file(datalist, _to_json(_describe(kind, split, record)))
    (folder / PHANTOM_MARKER).unlink(missing_ok=True)
    return datalist


def store_phantom(phantom: Phantom, orientation: str = "RAS") -> tuple[bytes, bytes]:
    """Pack a case as two ``.nii.gz`` files with the same geometry.

    Args:
        phantom: the case, in RAS.
        orientation: ends that the stored axes run towards, such as ``"LPS"``; the affine keeps every voxel in place.

    Returns:
        The bytes of the image's and of the label map's file.
    """
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    affine = phantom.affine @ inv_ornt_aff(turn, phantom.label.shape)
    return nifti_bytes(apply_orientation(phantom.image, turn), affine), nifti_bytes(
        apply_orientation(phantom.label, turn), affine
    )


def nifti_bytes(volume: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    """Return a volume as the bytes of a ``.nii.gz`` file whose header says that it is no patient."""
    nifti = nib.Nifti1Image(volume, affine)
    nifti.set_qform(affine, code="scanner")
    nifti.set_sform(affine, code="scanner")
    nifti.header.set_xyzt_units("mm")
    nifti.header["descrip"] = b"MedContext phantom, no patient"
    # without a time and a name in gzip's header the same volume gives the same bytes
    return gzip.compress(nifti.to_bytes(), compresslevel=1, mtime=0)


def _checked_size(size: Sequence[int], smallest: Size) -> Size:
    values = tuple(size) if isinstance(size, Sequence | np.ndarray) else ()
    if len(values) != 3 or not all(isinstance(n, Integral) for n in values) or np.less(values, smallest).any():
        least = " × ".join(map(str, smallest))
        raise ValueError(f"size must be three whole numbers of voxels, at least {least}, got {size!r}.")
    x, y, z = (int(n) for n in values)
    return x, y, z


def _checked_spacing(spacing: Sequence[float]) -> Spacing:
    values = tuple(spacing) if isinstance(spacing, Sequence | np.ndarray) else ()
    if len(values) != 3 or not all(isinstance(mm, Real) and 0 < mm < np.inf for mm in values):
        raise ValueError(f"spacing must be three voxel sizes in mm, above 0, got {spacing!r}.")
    x, y, z = (float(mm) for mm in values)
    return x, y, z


def _chosen_cases(kind: PhantomDataset, published: Split, num_cases: int | None) -> Split:
    """Choose the cases of a cohort, and as large a share of the scans without labels."""
    labelled = {part: cases for part, cases in published.items() if part != UNLABELED}
    split = _take_cases(labelled, num_cases if num_cases is not None else kind.num_cases or None, kind.frames)
    if UNLABELED not in published:
        return split
    taken, total = (sum(map(len, cases.values())) for cases in (split, labelled))
    scans = published[UNLABELED]
    return split | {UNLABELED: scans[: max(1, len(scans) * taken // total)]}


def _entry(kind: PhantomDataset, section: str, case: str) -> dict[str, str]:
    """Return the paths of a case's image and, unless it is a scan without one, of its label map."""
    if section == UNLABELED:
        return {"image": kind.unlabelled.format(case)}
    return {"image": kind.image.format(case), "label": kind.label.format(case)}


def _take_cases(published: dict[str, list[str]], num_cases: int | None, frames: int) -> dict[str, list[str]]:
    """Return the first patients of each part of the published split, in its proportion, ``frames`` cases each."""
    total, parts = sum(map(len, published.values())), [part for part, cases in published.items() if cases]
    count = total if num_cases is None else num_cases
    if not isinstance(count, Integral) or count % frames or not frames * len(parts) <= count <= total:
        kind, each = ("whole number", "one") if frames == 1 else (f"multiple of {frames}", "a patient")
        raise ValueError(
            f"num_cases must be a {kind} from {frames * len(parts)} ({each} for each of {', '.join(parts)}) to {total} "
            f"(the published split), got {num_cases!r}."
        )
    share = {part: max(1, round(int(count) / frames * len(published[part]) / total)) for part in parts}
    share["training"] += int(count) // frames - sum(share.values())
    return {part: cases[: frames * share.get(part, 0)] for part, cases in published.items()}


def _refuse_other_content(folder: Path, record: dict[str, Any]) -> None:
    """Raise unless the folder is new, empty, or holds this cohort, finished or not."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir must be a folder, but {folder} is a file.")
    found = next((path for path in (folder / "dataset.json", folder / PHANTOM_MARKER) if path.is_file()), None)
    if found is None:
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"{folder} holds files that are not a generated cohort. Give a new or empty folder.")
        return
    try:
        present = json.loads(found.read_text(encoding="utf-8"))["phantom"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{found} does not describe a generated cohort. Give a new or empty folder.") from error
    if present != record:
        raise ValueError(
            f"{folder} holds a cohort with other parameters: it has {present}, requested were {record}. "
            "Delete the folder or give another one."
        )


def _describe(kind: PhantomDataset, split: dict[str, list[str]], record: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``dataset.json``."""
    files = {part: [_entry(kind, part, case) for case in cases] for part, cases in split.items()}
    return {
        "name": f"{record['dataset']} phantoms",
        "description": f"{kind.description}. No patients; not for clinical use.",
        "reference": "Generated by MedContext (python -m medcontext phantoms)",
        "license": "Apache-2.0, as MedContext: a generated phantom, free of patients' data",
        "release": f"generator {record['generator']}, seed {record['seed']}",
        "tensorImageSize": "3D" if len(kind.modality) == 1 else "4D",
        "modality": {str(channel): name for channel, name in kind.modality.items()},
        "labels": {str(index): name for index, name in kind.labels.items()},
        **{f"num{part.capitalize()}": len(cases) for part, cases in files.items()},
        "phantom": record,
        **files,
    }


def _to_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=4) + "\n").encode()
