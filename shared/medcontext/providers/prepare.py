"""Preparation of a provider's download as a dataset for the bundles."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm.auto import tqdm

import medcontext
from medcontext.checks import check_flag, nearest_name
from medcontext.data.datasets import UNLABELED, Split, load_split
from medcontext.providers import acdc, brats, btcv, hippocampus
from medcontext.providers.decathlon import download_task
from medcontext.providers.layouts import Edition, FoundCases, expected_files, find_cases
from medcontext.providers.output import indented, make_output_folder, phantom_record, refuse_output_in, reserved
from medcontext.scans import read_header
from medcontext.storage.archives import Source, open_source
from medcontext.storage.file_memory import FileMemory
from medcontext.storage.files import write_file
from medcontext.storage.transfer import transfer_files

__all__ = ["EDITIONS", "prepare_dataset"]

EDITIONS: dict[str, tuple[Edition, ...]] = {
    "btcv": btcv.EDITIONS,
    "acdc": acdc.EDITIONS,
    "brats": brats.EDITIONS,
    "hippocampus": hippocampus.EDITIONS,
}
"""Editions of each dataset that are accepted, by the dataset's name."""

DOWNLOADS = {"brats": brats.TASK, "hippocampus": hippocampus.TASK}
"""Tasks of the Medical Segmentation Decathlon, which need no registration, by the dataset's name."""

SECTIONS = ("training", "validation", "test")
SHARES = {"test": 0.05, "validation": 0.15}
SPLIT_SEED = 0
SPLIT_NOTE = "80:15:5 by patient"

logger = logging.getLogger(__name__)


def prepare_dataset(
    dataset: str,
    source: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    link: bool = False,
    allow_missing: bool = False,
    download: bool = False,
) -> Path:
    """Transfer a dataset's download to ``output_dir`` and write its ``dataset.json``.

    Cases and split are the published ones; BraTS 2021 and 2023, whose splits are not published, are split 80:15:5 by
    patient with a fixed seed, and for the hippocampus a split in the source is kept. Label ids stay as the provider has
    them, and ``dataset.json`` names them. The source is never changed. An interrupted call can be repeated: finished
    files are kept unless they or the source have changed.

    Args:
        dataset: ``btcv``, ``acdc``, ``brats`` or ``hippocampus``.
        source: the downloaded zip or tar, or the folder that it was unpacked into, or any folder above that.
        output_dir: folder of the dataset, for this dataset alone.
        link: link the files instead of copying them; the source must be a folder.
        allow_missing: leave incomplete cases out instead of refusing.
        download: download the Decathlon's archive of BraTS or the hippocampus first, into the folder ``source``.

    Returns:
        Path of the ``dataset.json``.

    Raises:
        FileNotFoundError: If there is no source, or it lacks cases; the message names all that is missing.
        OSError: If the output cannot be written, or the download fails.
        ValueError: If the dataset is unknown; if the source is damaged, holds something else or several editions; or if
            the output folder is used for something else, or by another process.
    """
    if dataset not in EDITIONS:
        raise ValueError(
            f"dataset must be one of {sorted(EDITIONS)}, got {dataset!r}.{nearest_name(dataset, EDITIONS)}"
        )
    for name, value in {"link": link, "allow_missing": allow_missing, "download": download}.items():
        check_flag(name, value)
    if download and dataset not in DOWNLOADS:
        raise ValueError(
            f"download works for {' and '.join(DOWNLOADS)} alone; {dataset} requires a registration: download it "
            "yourself and give its path."
        )
    source, output_dir = Path(source), Path(output_dir)
    _refuse_link(source, link, download)
    source = download_task(DOWNLOADS[dataset], source) if download else source
    refuse_output_in(source, output_dir)
    with reserved(output_dir):
        return _prepare(dataset, source, output_dir, link=link, allow_missing=allow_missing)


def _prepare(dataset: str, source: Path, output_dir: Path, *, link: bool, allow_missing: bool) -> Path:
    with open_source(source) as opened:
        found = find_cases(EDITIONS[dataset], opened)
        full_split, origin = _split(dataset, found, opened)
        split = _complete_cases(found, full_split, opened, allow_missing)
        left_out = _left_out(found, full_split, split)
        phantom = phantom_record(opened)
        plan = {target: name for files in _files_of(found, split) for target, name in files.items()}
        datalist = make_output_folder(output_dir, found.edition.name)
        hashes = transfer_files(opened, plan, output_dir, FileMemory.of_dataset(datalist), link=link)
    content = {**_description(found, split, phantom), **_geometry(output_dir, found, split)}
    content["prepared"] = _circumstances(found.edition, origin, link, left_out)
    content["sha256"] = hashes
    write_file(datalist, (json.dumps(content, indent=4) + "\n").encode())
    if left_out:
        logger.warning("Left out:\n%s", indented(left_out))
    return datalist


def _refuse_link(source: Path, link: bool, download: bool) -> None:
    if link and (download or source.is_file()):
        raise ValueError("The files in an archive cannot be linked; leave link out, or give the unpacked folder.")


def _split(dataset: str, found: FoundCases, source: Source) -> tuple[Split, str]:
    """Return the case ids of each section, and the origin of this split."""
    if found.edition.read_split:
        return found.edition.read_split(source, found)
    if found.edition.published_split:
        return load_split(dataset), "published"
    patients = sorted({found.edition.patient_of(case) for case in found.files})
    order = np.random.default_rng(SPLIT_SEED).permutation(len(patients))
    part_of: dict[str, str] = {}
    for part, share in SHARES.items():
        count, start = max(1, round(share * len(patients))), len(part_of)
        part_of |= {patients[i]: part for i in order[start : start + count]}
    split: Split = {part: [] for part in SECTIONS}
    for case in sorted(found.files):
        split[part_of.get(found.edition.patient_of(case), "training")].append(case)
    return split, f"{SPLIT_NOTE}, seed {SPLIT_SEED}"


def _complete_cases(found: FoundCases, split: Split, source: Source, allow_missing: bool) -> Split:
    """Return the split without the incomplete cases that may be left out.

    Raises:
        FileNotFoundError: If cases are incomplete and may not be left out, or none is left to train on.
        ValueError: If the source contradicts itself.
    """
    edition, cases = found.edition, [case for part in split.values() for case in part]
    problems = list(found.duplicates)
    if edition.find_contradictions:
        problems += edition.find_contradictions(source, [case for case in cases if case in found.files])
    if problems:
        raise ValueError(f"{source.path} contradicts itself:\n" + indented(problems))
    missing_of = {case: found.missing(case, part) for part, members in split.items() for case in members}
    incomplete = [case for case, files in missing_of.items() if files]
    if incomplete and not allow_missing:
        missing = [file for files in missing_of.values() for file in files]
        unknown = f"\nIt has files of unknown names:\n{indented(found.unassigned)}" if found.unassigned else ""
        raise FileNotFoundError(
            f"{source.path} lacks {len(missing)} files of {edition.name}:\n{indented(missing)}{unknown}\n"
            f"Expected for each case, in any folder: {expected_files(edition)}. Get the complete download, or leave "
            f"the {len(incomplete)} incomplete cases out with --allow_missing True."
        )
    complete = {part: [case for case in members if case not in set(incomplete)] for part, members in split.items()}
    if not complete["training"]:
        raise FileNotFoundError(
            f"{source.path} holds no complete case of {edition.name} to train on. "
            f"Expected for each: {expected_files(edition)}."
        )
    return complete


def _left_out(found: FoundCases, full_split: Split, split: Split) -> list[str]:
    section_of = {case: part for part, cases in full_split.items() for case in cases}
    used = {case for cases in split.values() for case in cases}
    lines = []
    for case in sorted((found.files.keys() | section_of.keys()) - used):
        missing = found.missing(case, section_of[case]) if case in section_of else []
        reason = f"lacks {', '.join(missing)}" if missing else "not in the split"
        lines.append(f"{case}: {reason}")
    return lines + [f"{name}: belongs to no case" for name in found.unassigned]


def _files(found: FoundCases, case: str, section: str) -> dict[str, str]:
    """Return the names of a case's files in the source by path in the prepared folder, the label's last."""
    names = found.files[case]
    return {
        found.edition.target(pattern, case, ".nii.gz" if names[pattern].endswith(".gz") else ".nii"): names[pattern]
        for pattern in found.edition.patterns_of(section)
    }


def _files_of(found: FoundCases, split: Split) -> list[dict[str, str]]:
    return [_files(found, case, section) for section, cases in split.items() for case in cases]


def _entry(found: FoundCases, case: str, section: str) -> dict[str, Any]:
    files = list(_files(found, case, section))
    if section == UNLABELED:
        return {"image": files[0]}
    *images, label = files
    entry: dict[str, Any] = {"image": images[0] if len(images) == 1 else images, "label": label}
    return entry | ({"patient": found.edition.patient_of(case)} if found.edition.patient else {})


def _description(found: FoundCases, split: Split, phantom: Any) -> dict[str, Any]:
    """Return the part of ``dataset.json`` that is in the Decathlon's format."""
    edition = found.edition
    generated = {"name": f"{edition.name} phantoms", "phantom": phantom} if phantom else {}
    return {
        "name": edition.name,
        "description": edition.description,
        "reference": edition.reference,
        **generated,
        "tensorImageSize": "3D" if len(edition.modality) == 1 else "4D",
        "modality": {str(channel): name for channel, name in edition.modality.items()},
        "labels": {str(index): name for index, name in edition.labels.items()},
        **{f"num{part.capitalize()}": len(cases) for part, cases in split.items()},
        **{part: [_entry(found, case, part) for case in cases] for part, cases in split.items()},
    }


def _circumstances(edition: Edition, origin: str, link: bool, left_out: list[str]) -> dict[str, Any]:
    return {
        "edition": edition.name,
        "split": origin,
        "files": "links" if link else "copies",
        "left_out": left_out,
        "medcontext": medcontext.__version__,
    }


def _geometry(folder: Path, found: FoundCases, split: Split) -> dict[str, Any]:
    """Return median, minimum and maximum of voxel sizes in mm and sizes in voxels along x, y, z over all images."""
    spacings, sizes, unreadable = [], [], []
    images = [next(iter(files)) for files in _files_of(found, split)]
    for path in tqdm(images, desc="reading headers", unit="file"):
        try:
            header = read_header(str(folder / path))
            axes = nib.io_orientation(header.affine)[:, 0]
        except Exception as error:
            unreadable.append(f"{path}: {' '.join(str(error).split())}")
            continue
        order = np.argsort(axes)
        spacings.append(np.linalg.norm(header.affine[:3, :3], axis=0)[order])
        sizes.append(np.asarray(header.shape[:3])[order])
    if unreadable:
        raise ValueError(f"These files cannot be read; get them again:\n{indented(unreadable)}")
    return {"spacing": _statistics(spacings), "size": _statistics(sizes)}


def _statistics(values: list[Any]) -> dict[str, list[float]]:
    summary = {"median": np.median(values, axis=0), "min": np.min(values, axis=0), "max": np.max(values, axis=0)}
    return {name: [round(float(number), 4) for number in numbers] for name, numbers in summary.items()}
