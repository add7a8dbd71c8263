"""Caching the results of the deterministic transforms of each case, in memory or on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import monai
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.utils import convert_to_tensor

import medcontext
from medcontext.faults import disk_remedy
from medcontext.storage.files import whole_file
from medcontext.storage.parts import parts_of

__all__ = ["DiskCacheDataset", "cached_dataset", "case_key", "transforms_key"]

logger = logging.getLogger(__name__)


def cached_dataset(
    data: Sequence[Mapping[str, Any]],
    transform: Callable[..., Any],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_rate: float = 1.0,
    num_workers: int = 0,
    progress: bool = True,
) -> Dataset:
    """Return a dataset that runs the transforms up to the first random one only once for each case.

    In memory, the cases are prepared when the dataset is created. On disk, each is prepared on first use and reused by
    later runs, also of other bundles, as long as neither its files nor the transforms have changed. Cases that are no
    longer used stay there; the folder may be emptied at any time.

    Args:
        data: cases, with paths (one, or a list of them) under ``image`` and ``label``.
        transform: a ``Compose`` of MONAI's transforms.
        cache_dir: folder on disk; ``None`` keeps the cases in memory.
        cache_rate: share of the cases to keep in memory.
        num_workers: threads that prepare cases for memory.
        progress: show a progress bar while preparing.
    """
    if cache_dir is None:
        return CacheDataset(data, transform, cache_rate=cache_rate, num_workers=num_workers, progress=progress)
    return DiskCacheDataset(data, transform, Path(cache_dir), hash_func=case_key, hash_transform=transforms_key)


class DiskCacheDataset(PersistentDataset):
    """MONAI's ``PersistentDataset``, with files that are complete whenever they exist, and damaged ones rebuilt."""

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> Any:
        """Return the prepared case, from disk if it is there."""
        key = self.hash_func(item_transformed).decode() + self.transform_hash
        file = Path(self.cache_dir) / f"{key}.pt"
        if file.is_file():
            try:
                return torch.load(file, weights_only=True)
            except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
                logger.warning("%s is damaged (%s) and is rebuilt", file, type(error).__name__)
        prepared = self._pre_transform(deepcopy(item_transformed))
        content = convert_to_tensor(prepared, convert_numeric=False, track_meta=False)
        try:
            with whole_file(file) as stream:
                torch.save(content, stream)
        except (OSError, RuntimeError) as error:
            remedy = disk_remedy(error)
            if remedy is None:
                raise
            logger.warning("%s could not be cached and will be prepared again; %s.", file, remedy)
        return prepared


def case_key(case: Mapping[str, Any]) -> bytes:
    """Return hex digits that change with a case's entries, and with name, size or modification time of its files."""
    digest = hashlib.sha256()
    for key, value in sorted(case.items()):
        digest.update(repr((key, value)).encode())
        for path in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(path, (str, os.PathLike)) and os.path.isfile(path):
                for status in map(os.stat, parts_of(path)):
                    digest.update(f"{status.st_size} {status.st_mtime_ns};".encode())
    return digest.hexdigest().encode()


def transforms_key(transforms: Sequence[Any]) -> bytes:
    """Return hex digits that change with any argument of the transforms, and with the versions of the packages.

    Raises:
        TypeError: If a transform cannot be pickled, so that its changes would go unnoticed.
    """
    try:
        content = pickle.dumps(transforms)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"A cache on disk needs transforms that can be pickled ({error}); use memory instead."
        ) from error
    versions = f"{monai.__version__} {medcontext.__version__}".encode()  # a transform may change with them
    return hashlib.sha256(content + versions).hexdigest()[:32].encode()
