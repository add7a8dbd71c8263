"""Preparation of a user's own data as a dataset for the bundles."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import medcontext
from medcontext.checks import check_choice, check_flag
from medcontext.data.datalist import case_files, hold_out
from medcontext.data.datasets import UNLABELED
from medcontext.providers.decathlon import download_named_task, read_decathlon
from medcontext.providers.nnunet import read_nnunet
from medcontext.providers.output import indented, make_output_folder, phantom_record, refuse_output_in, reserved
from medcontext.providers.own import SECTIONS, OwnDataset
from medcontext.providers.two_folders import read_folders
from medcontext.storage.archives import Source, open_source
from medcontext.storage.file_memory import FileMemory
from medcontext.storage.files import write_file
from medcontext.storage.json_files import json_text
from medcontext.storage.transfer import is_link_to, transfer_files

__all__ = ["FORMATS", "import_dataset"]

FORMATS = ("nnunet", "decathlon", "folder")
"""Forms of one's own data that are accepted."""

READERS: dict[str, Callable[[Source], OwnDataset]] = {"nnunet": read_nnunet, "decathlon": read_decathlon}
FEWEST_CASES = 2
SPLIT_SEED = 0

logger = logging.getLogger(__name__)


def import_dataset(
    dataset: str,
    output_dir: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] = "",
    images: str | os.PathLike[str] = "",
    labels: str | os.PathLike[str] = "",
    modality: str | Sequence[str] = "",
    label_names: Mapping[str, int] | None = None,
    test_cases: int = 0,
    keep_unlabeled: bool = False,
    allow_missing: bool = False,
    download: bool = False,
) -> Path:
    """Link one's own data below ``output_dir`` and write its ``dataset.json``.

    Files in a folder are linked, those in an archive copied; neither is ever changed. The call can be repeated.

    Args:
        dataset: form of the data: ``nnunet``, ``decathlon`` or ``folder``.
        output_dir: folder of the dataset, for this dataset alone.
        source: folder or archive of a dataset of nnU-Net or in the Decathlon's format.
        images: folder of the images.
        labels: folder of the label maps.
        modality: what the channels of the images show, such as ``CT``; for several, names separated by commas.
        label_names: ids by name of what the label maps hold.
        test_cases: number of labelled cases to hold out as test cases, drawn with a fixed seed.
        keep_unlabeled: list images for training that have no label as unlabelled scans instead of refusing.
        allow_missing: leave incomplete cases out instead of refusing.
        download: download the Decathlon's task that ``source`` is named after to that path first.

    Returns:
        Path of the ``dataset.json``.

    Raises:
        FileNotFoundError: If there is no source, or files are missing; the message names all of them.
        OSError: If the output cannot be written, or the download fails.
        ValueError: If the source is not in this form or contradicts itself, or the output folder holds something else.
    """
    check_choice("dataset", dataset, FORMATS)
    for name, flag in {"keep_unlabeled": keep_unlabeled, "allow_missing": allow_missing, "download": download}.items():
        check_flag(name, flag)
    if not isinstance(test_cases, int) or test_cases < 0:
        raise ValueError(f"test_cases must be a whole number of cases to hold out, 0 or more, got {test_cases!r}.")
    output, path = Path(output_dir), Path(source)
    if download:
        path = download_named_task(path)
    folders = (Path(images), Path(labels)) if dataset == "folder" else (path,)
    for folder in folders:
        refuse_output_in(folder, output)
    with reserved(output), _opened(dataset, *folders, modality=modality, label_names=label_names) as found:
        _refuse_problems(found, keep_unlabeled, allow_missing)
        if test_cases:
            _hold_out_tests(found, test_cases)
        _refuse_too_few(found)
        return _write(found, output)


@contextlib.contextmanager
def _opened(dataset: str, *folders: Path, **arguments: Any) -> Iterator[OwnDataset]:
    if dataset == "folder":
        yield read_folders(folders[0], folders[1], **arguments)
        return
    with open_source(folders[0]) as source:
        yield READERS[dataset](source)


def _refuse_problems(found: OwnDataset, keep_unlabeled: bool, allow_missing: bool) -> None:
    """Refuse cases that lack files, or leave them out if that is allowed.

    Raises:
        FileNotFoundError: If there are such cases.
        ValueError: If the source contradicts itself.
    """
    if found.contradictions:
        raise ValueError(f"{found.source.path} contradicts itself:\n{indented(found.contradictions)}")
    if keep_unlabeled:
        found.sections[UNLABELED] += [{"image": entry["image"]} for entry in found.bare]
    bare = [] if keep_unlabeled else [f"{case_files(entry)[0]} has no label" for entry in found.bare]
    if (found.incomplete or bare) and not allow_missing:
        keep = ", list the images without a label as unlabelled scans with --keep_unlabeled True," if bare else ""
        raise FileNotFoundError(
            f"{found.source.path} has {len(found.incomplete) + len(bare)} incomplete cases:\n"
            f"{indented([*found.incomplete, *bare])}\n"
            f"Add or rename files{keep} or leave these cases out with --allow_missing True."
        )
    found.left_out = [*found.incomplete, *bare, *found.left_out]


def _hold_out_tests(found: OwnDataset, count: int) -> None:
    if found.sections["test"]:
        raise ValueError(f"{found.source.path} has test cases with labels of its own; leave test_cases out.")
    found.sections["training"], found.sections["test"] = hold_out(
        found.sections["training"], count, np.random.default_rng(SPLIT_SEED), name="test_cases"
    )


def _refuse_too_few(found: OwnDataset) -> None:
    count = sum(len(found.sections[section]) for section in ("training", "validation"))
    if count < FEWEST_CASES:
        raise ValueError(
            f"{found.source.path} has {count} labelled cases to train on; at least {FEWEST_CASES} are needed, one of "
            "them for validation: label more scans, or hold out fewer test cases."
        )


def _write(found: OwnDataset, output: Path) -> Path:
    """Link or copy the files of all cases, and write ``dataset.json`` last."""
    used = [path for section in SECTIONS for entry in found.sections[section] for path in case_files(entry)]
    plan = {path: found.files[path] for path in used}
    link = found.source.path.is_dir()
    _refuse_overwriting(found.source, plan, output)
    phantom = phantom_record(found.source)
    datalist = make_output_folder(output, found.edition)
    hashes = transfer_files(found.source, plan, output, FileMemory.of_dataset(datalist), link=link)
    content = _description(found) | ({"phantom": phantom} if phantom else {})
    content["prepared"] = {
        "edition": found.edition,
        "files": "links" if link else "copies",
        "left_out": found.left_out,
        "medcontext": medcontext.__version__,
    }
    write_file(datalist, json_text(content | {"sha256": hashes}).encode())
    if found.left_out:
        logger.warning("Left out:\n%s", indented(found.left_out))
    if found.unnamed:
        names = ", ".join(name for index, name in found.labels.items() if index)
        logger.warning("The labels are called %s; name them with --label_names '{\"liver\": 1}'.", names)
    return datalist


def _refuse_overwriting(source: Source, plan: Mapping[str, str], output: Path) -> None:
    """Refuse an output in which one file of the source would replace another."""
    originals = {_place(file.path) for file in source.files.values() if file.path}
    for target, name in plan.items():
        path = output / target
        if _place(path) in originals and not is_link_to(path, source.files[name]):
            raise ValueError(f"{path} is a file of the source, which must not be changed; give another output_dir.")


def _place(path: Path) -> str:
    """Return a path without links but that of the file itself."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def _description(found: OwnDataset) -> dict[str, Any]:
    """Return the part of ``dataset.json`` that is in the Decathlon's format."""
    return {
        "name": found.name,
        **found.about,
        "tensorImageSize": "3D" if len(found.modality) == 1 else "4D",
        "modality": {str(channel): name for channel, name in found.modality.items()},
        "labels": {str(index): name for index, name in found.labels.items()},
        **{f"num{section.capitalize()}": len(found.sections[section]) for section in SECTIONS},
        **found.sections,
    }
