"""Facts about the voxels of files, each read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from medcontext.storage.file_memory import FileMemory
from medcontext.storage.files import read_to_the_end

__all__ = ["read_voxels"]

THREADS = 4  # decompression lets other threads run; more would hold more volumes in memory
MOST_VALUES = 300  # of a label map; an image given by mistake has thousands


def read_voxels(
    files: Mapping[str, Sequence[str]], memory: FileMemory | None, *, again: bool = False
) -> dict[str, dict[str, Any]]:
    """Read facts from all voxels of files, except those that the memory knows.

    Args:
        files: NIfTI files by the fact that is asked of them: ``"values"``, the different values in ascending order, no
            more than 300 of them, ``"not_finite"``, the number of voxels that are NaN or infinite, or ``"range"``, the
            lowest and the highest finite value.
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
    read = {"values": _values, "not_finite": _not_finite, "range": _range}

    def attempt(asked: tuple[str, str]) -> Any:
        fact, file = asked
        try:
            read_to_the_end(file)
            return read[fact](nib.load(file).dataobj)
        except Exception as error:
            return error

    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=len(unknown), desc="checking scans", unit="file", disable=not unknown) as bar,
    ):
        for (fact, file), value in zip(unknown, pool.map(attempt, unknown), strict=True):
            bar.update()
            yield fact, file, value


def _values(proxy: Any) -> list[float | None]:
    """Return the different values of a label map, as precise as in training; None for NaN, which JSON cannot hold."""
    stored = pd.unique(np.asarray(proxy.get_unscaled()).ravel(order="K"))
    values = np.unique((stored.astype(float) * proxy.slope + proxy.inter).astype(np.float32))[:MOST_VALUES]
    return [None if not np.isfinite(value) else float(value) for value in values]


def _not_finite(proxy: Any) -> int:
    stored = np.asarray(proxy.get_unscaled())
    if not np.isfinite([proxy.slope, proxy.inter]).all():
        return int(stored.size)
    return int(stored.size - np.count_nonzero(np.isfinite(stored)))


def _range(proxy: Any) -> list[float]:
    values = np.asarray(proxy)
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if finite.size else [0.0, 0.0]
