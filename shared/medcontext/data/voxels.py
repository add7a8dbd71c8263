"""Facts about the voxels of files, each read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm.auto import tqdm

from medcontext.scans import LARGEST_VALUE, WHOLE_TOLERANCE, read_stored
from medcontext.storage.file_memory import FileMemory
from medcontext.storage.files import read_to_the_end

__all__ = ["read_voxels"]

Array: TypeAlias = npt.NDArray[Any]

THREADS = 4  # decompression lets other threads run; more would hold more volumes in memory
MOST_VALUES = 300  # of a label map; an image given by mistake has thousands


def read_voxels(
    files: Mapping[str, Sequence[str]], memory: FileMemory | None, *, again: bool = False
) -> dict[str, dict[str, Any]]:
    """Read facts from all voxels of files, except those that the memory knows.

    Args:
        files: volumes by the fact that is asked of them: ``"label_values"``, the different values in ascending order,
            no more than 300 of them, with those that are whole up to noise as whole numbers; ``"unusable"``, the
            number of voxels that are NaN or infinite; or ``"range"``, the lowest and the highest finite value.
        memory: where the facts are kept.
        again: read the files that the memory knows too.

    Returns:
        By fact and file its value; for a file that cannot be read, the exception.
    """
    asked = [(fact, file) for fact, some in files.items() for file in dict.fromkeys(some)]
    recalled = {} if memory is None or again else {key: memory.recall(key[1], key[0]) for key in asked}
    facts: dict[str, dict[str, Any]] = {fact: {} for fact in files}
    for (fact, file), value in recalled.items():
        if value is not None:
            facts[fact][file] = value
    for fact, file, value in _read_all([(fact, file) for fact, file in asked if file not in facts[fact]]):
        facts[fact][file] = value
        if memory is not None and not isinstance(value, Exception):
            memory.remember(file, fact, value)
    return facts


def _read_all(unknown: list[tuple[str, str]]) -> Iterator[tuple[str, str, Any]]:
    read = {"label_values": _label_values, "unusable": _unusable, "range": _range}

    def attempt(asked: tuple[str, str]) -> Any:
        fact, file = asked
        try:
            read_to_the_end(file)
            return read[fact](*read_stored(file))
        except Exception as error:
            return error

    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=len(unknown), desc="checking scans", unit="file", disable=not unknown) as bar,
    ):
        for (fact, file), value in zip(unknown, pool.map(attempt, unknown), strict=True):
            bar.update()
            yield fact, file, value


def _label_values(stored: Array, slope: float, intercept: float) -> list[float | None]:
    """Return the different values of a label map, as precise as in training; None for NaN, which JSON cannot hold."""
    values = (pd.unique(stored.ravel(order="K")).astype(float) * slope + intercept).astype(np.float32)
    whole = np.round(values)
    values = np.unique(np.where(np.abs(values - whole) <= WHOLE_TOLERANCE, whole, values))[:MOST_VALUES]
    return [None if not np.isfinite(value) else float(value) for value in values]


def _unusable(stored: Array, slope: float, intercept: float) -> int:
    low, high = _range(stored, slope, intercept)
    if stored.dtype.kind in "iu" and max(-low, high) <= LARGEST_VALUE:
        return 0
    with np.errstate(invalid="ignore", over="ignore"):
        values = stored * np.float64(slope) + intercept
    return int(stored.size - np.count_nonzero(np.abs(values) <= LARGEST_VALUE))


def _range(stored: Array, slope: float, intercept: float) -> list[float]:
    finite = stored if stored.dtype.kind in "iu" else stored[np.isfinite(stored)]
    return sorted(float(end) * slope + intercept for end in (finite.min(), finite.max())) if finite.size else [0.0, 0.0]
