"""Random samples that depend on their place in training alone, and the order they are drawn in."""

from __future__ import annotations

import ctypes
import itertools
import signal
import sys
from collections.abc import Iterator
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.utils import manual_seed
from monai.data import DistributedSampler
from monai.data.utils import set_rnd
from torch.utils.data import Dataset

from medcontext.checks import check_integer

__all__ = ["EpochSampler", "SeededDataset", "derived_seed", "start_loader"]


def derived_seed(*numbers: int) -> int:
    """Return a seed of 32 bits that any change of the numbers, none of them negative, changes entirely.

    Example:
        >>> derived_seed(0, 1, 2) == derived_seed(0, 1, 2)
        True
        >>> derived_seed(0, 1, 2) == derived_seed(0, 2, 1)
        False
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class SeededDataset(Dataset[Any]):
    """Draw what is random in a sample from (seed, epoch, index).

    A sample is then the same in any process of a loader, after any other samples, and in a resumed run. Seeded are the
    transforms and random generators of the dataset, and the global generators of Python, NumPy and PyTorch.

    Args:
        dataset: dataset with random transforms.
        seed: seed of the run.

    Attributes:
        epoch: the epoch, set by :class:`~medcontext.handlers.Seeding`.

    Raises:
        TypeError: If ``seed`` is not an integer.
        ValueError: If it is negative.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = _checked(seed)
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Return a sample of the current epoch."""
        seed = derived_seed(self.seed, self.epoch, index)
        manual_seed(seed)
        set_rnd(self.dataset, seed)
        return self.dataset[index]


class EpochSampler(DistributedSampler):
    """Shuffle the samples by (seed, epoch), share them among processes, and skip those that an epoch has trained on.

    Args:
        dataset: dataset to sample from.
        seed: seed of the run.

    Attributes:
        position: number of samples to skip, set by :class:`~medcontext.handlers.Seeding`.

    Raises:
        TypeError: If ``seed`` is not an integer.
        ValueError: If it is negative.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        processes, rank = idist.get_world_size(), idist.get_rank()
        super().__init__(dataset, num_replicas=processes, rank=rank, seed=derived_seed(_checked(seed)))
        self.position = 0

    def __iter__(self) -> Iterator[int]:
        """Return the indices of the rest of the epoch."""
        return itertools.islice(super().__iter__(), self.position, None)


def _checked(seed: int) -> int:
    return check_integer("seed", seed, minimum=0, remedy="give another whole number for another draw")


def start_loader(_worker: int) -> None:
    """Let a loader's process end when the run does, and not before.

    Schedulers and terminals signal all processes of a job at once; the run's own decides what follows, and needs the
    batch that it waits for. Where the system is Linux, the process dies with it, however that ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
