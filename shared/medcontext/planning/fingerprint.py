"""What a plan has to know of a dataset, read once from each file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tqdm.auto import tqdm

from medcontext.data import Problem, case_files, case_name, check_dataset, errors_of, load_datalist, load_listed
from medcontext.labels import ignored_id, label_names
from medcontext.scans import read_header, read_volume
from medcontext.storage.file_memory import FileMemory

__all__ = ["CaseFacts", "ChannelFacts", "Fingerprint", "Triple", "read_fingerprint"]

Triple: TypeAlias = tuple[float, float, float]

SAMPLES = 10_000
"""Number of foreground voxels of a scan that its intensities are taken from, as in nnU-Net."""
QUANTILES = 200
"""Number of evenly spaced quantiles that stand for these voxels."""
THREADS = 4


@dataclass(frozen=True)
class ChannelFacts:
    """Intensities of one channel of a scan.

    Attributes:
        lowest: the lowest value.
        zeros: share of the voxels that are exactly 0.
        quantiles: :data:`QUANTILES` evenly spaced quantiles of the foreground, none where there is no foreground.
        mean: mean of the foreground.
        sd: standard deviation of the foreground.
    """

    lowest: float
    zeros: float
    quantiles: Sequence[float]
    mean: float
    sd: float


@dataclass(frozen=True)
class CaseFacts:
    """Facts about a case; axes run to the right, front and top (RAS), whatever those of the files.

    Attributes:
        name: name of the case.
        shape: voxels along each axis.
        spacing: mm per voxel along each axis.
        channels: the channels of the image.
        organs: by id in the files, the extent in mm along each axis of what is labelled.
    """

    name: str
    shape: Triple
    spacing: Triple
    channels: Sequence[ChannelFacts]
    organs: Mapping[int, Triple]


@dataclass(frozen=True)
class Fingerprint:
    """Facts about the labelled cases of a dataset that are not for testing.

    Attributes:
        datalist: the ``dataset.json``.
        names: names of the labels by id in the files, background left out.
        channels: names of the channels, empty text where ``dataset.json`` does not name them.
        cases: the cases.
    """

    datalist: Path
    names: Mapping[int, str]
    channels: Sequence[str]
    cases: Sequence[CaseFacts]


def read_fingerprint(dataset_dir: str | os.PathLike[str]) -> Fingerprint:
    """Check a dataset and read the facts about its training and validation cases.

    Facts are remembered in the user's cache until the files change.

    Args:
        dataset_dir: folder with the ``dataset.json``.

    Raises:
        FileNotFoundError: If there is no ``dataset.json``.
        ValueError: If it names no labels or lists no cases, if a name means something else to MONAI, if channels
            differ, if a scan is one slice, or if the check of a training run finds a problem.
    """
    datalist = Path(dataset_dir).absolute() / "dataset.json"
    content = load_datalist(datalist)
    every_name = label_names(content)
    _refuse_marks(every_name.values(), datalist)
    names = {index: name for index, name in every_name.items() if index}
    sections = {name: load_listed(datalist, name) for name in ("training", "validation")}
    cases = [case for listed in sections.values() for case in listed]
    if not names:
        raise ValueError(f'{datalist} names no labels; add them, such as "labels": {{"1": "liver"}}.')
    if not sections["training"]:
        raise ValueError(f"{datalist} lists no cases under 'training'; list there what is to be learned from.")
    channels = _channel_names(content, cases[0], datalist)
    known = {name: index for index, name in names.items()}
    _refuse(errors_of(check_dataset(datalist, sections, in_channels=len(channels), labels=known)), datalist)
    facts = tuple(_read_cases(cases, ignored_id(content), FileMemory.of_dataset(datalist)))
    for case in facts:
        if min(case.shape) == 1:
            raise ValueError(
                f"{case.name} is one slice ({' × '.join(f'{size:g}' for size in case.shape)} voxels), and the networks "
                f"need volumes; leave it out of {datalist}, or stack the slices of a scan."
            )
    return Fingerprint(datalist, names, channels, facts)


def _refuse_marks(names: Iterable[str], datalist: Path) -> None:
    """Raise ValueError for a name that MONAI would take for an expression, a reference or a nested key."""
    for name in names:
        if re.search(r"[$@%#]|::", name):
            raise ValueError(f"{datalist} names the label {name!r}; rename it without $, @, %, # and ::, for MONAI.")


def _refuse(problems: Sequence[Problem], datalist: Path) -> None:
    """Raise ValueError for the problems of a dataset."""
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise ValueError(
            f"{datalist}: {problems[0]}{more} python -m medcontext check --dataset_dir {datalist.parent} lists all."
        )


def _channel_names(content: Mapping[str, Any], case: Mapping[str, Any], datalist: Path) -> list[str]:
    """Return the names of the channels, as many as the image of a case has.

    Raises:
        ValueError: If ``dataset.json`` names another number of channels, or the image cannot be read.
    """
    listed = content.get("modality") or content.get("channel_names") or {}
    names = [listed] if isinstance(listed, str) else list(map(str, dict(listed).values()))
    count = _count_channels(case)
    if names and len(names) != count:
        raise ValueError(
            f"{datalist} names {len(names)} channels ({', '.join(names)}), but {case_name(case)} has {count}; name one "
            "for each under 'modality'."
        )
    return names or [""] * count


def _count_channels(case: Mapping[str, Any]) -> int:
    if not isinstance(case["image"], str):
        return len(case["image"])
    try:
        shape = read_header(case["image"]).shape
    except Exception as error:
        raise ValueError(f"{case['image']} cannot be read ({error}); repair it, or leave the case out.") from error
    return int(shape[3]) if len(shape) > 3 else 1


def _read_cases(cases: Sequence[Mapping[str, Any]], ignored: int | None, memory: FileMemory) -> Iterator[CaseFacts]:
    """Read the facts about cases that the memory does not know."""
    keys = [_fact_names(case, ignored) for case in cases]
    read = partial(_read_case, ignored=ignored)
    known = [[memory.recall(file, fact) for file, fact in names.items()] for names in keys]
    unknown = [index for index, values in enumerate(known) if None in values]
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=len(unknown), desc="reading scans", unit="case", disable=not unknown) as bar,
    ):
        for index, values in zip(unknown, pool.map(read, [cases[index] for index in unknown]), strict=True):
            known[index] = values
            for (file, fact), value in zip(keys[index].items(), values, strict=True):
                memory.remember(file, fact, value)
            bar.update()
    return (_case_facts(case_name(case), values, ignored) for case, values in zip(cases, known, strict=True))


def _fact_names(case: Mapping[str, Any], ignored: int | None) -> dict[str, str]:
    """Return the files of a case, each with the name of the fact about it: that of an image depends on its label."""
    *images, label = case_files(case)
    state = Path(label).stat()
    foreground = f"foreground {os.path.basename(label)} {state.st_size} {state.st_mtime_ns}"
    foreground += "" if ignored is None else f" without {ignored}"
    return {**dict.fromkeys(images, foreground), label: "organs"}


def _read_case(case: Mapping[str, Any], ignored: int | None) -> list[Any]:
    """Return the facts about the files of a case in their order, as JSON values."""
    *images, label = case_files(case)
    volume = read_volume(label)
    labelled = np.asarray(volume.dataobj).reshape(volume.shape[:3])
    organs = {"orientation": nib.io_orientation(volume.affine)[:, 0].astype(int).tolist(), **_organs(volume, labelled)}
    foreground = (labelled > 0) & (True if ignored is None else np.rint(labelled) != ignored)
    return [*(_channels(file, foreground) for file in images), organs]


def _organs(volume: Any, labelled: NDArray[Any]) -> dict[str, Any]:
    """Return shape, spacing and the extent of each label, along the axes of the file."""
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    boxes = ndimage.find_objects(np.rint(labelled).astype(np.int32))
    extents = {
        str(index): [float((part.stop - part.start) * size) for part, size in zip(box, spacing, strict=True)]
        for index, box in enumerate(boxes, start=1)
        if box is not None
    }
    return {"shape": list(labelled.shape), "spacing": spacing.tolist(), "organs": extents}


def _channels(file: str, foreground: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return the facts about the channels of one file."""
    image = np.asarray(read_volume(file).dataobj, dtype=np.float32)
    return [
        _channel(image.reshape(*foreground.shape, -1)[..., index], foreground)
        for index in range(image.size // foreground.size)
    ]


def _channel(image: NDArray[np.float32], foreground: NDArray[np.bool_]) -> dict[str, Any]:
    voxels = image[foreground]
    if voxels.size > SAMPLES:
        voxels = np.random.default_rng(0).choice(voxels, SAMPLES, replace=False)
    places = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return {
        "lowest": float(image.min()),
        "zeros": float(np.mean(image == 0)),
        "quantiles": [float(f"{value:.6g}") for value in np.quantile(voxels, places)] if voxels.size else [],
        "mean": float(voxels.mean(dtype=float)) if voxels.size else 0.0,
        "sd": float(voxels.std(dtype=float)) if voxels.size else 0.0,
    }


def _case_facts(name: str, values: Sequence[Any], ignored: int | None) -> CaseFacts:
    *images, label = values
    order = np.argsort(label["orientation"])
    shape, spacing = (_ordered(label[key], order) for key in ("shape", "spacing"))
    extents = {int(index): extent for index, extent in label["organs"].items()}
    organs = {index: _ordered(extent, order) for index, extent in extents.items() if index != ignored}
    channels = [ChannelFacts(**channel) for channels in images for channel in channels]
    return CaseFacts(name, shape, spacing, channels, organs)


def _ordered(values: Sequence[float], order: NDArray[Any]) -> Triple:
    first, second, third = (float(values[axis]) for axis in order)
    return first, second, third
