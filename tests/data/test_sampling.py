from __future__ import annotations

import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Lambda, RandGaussianNoise

from medcontext.data import EpochSampler, SeededDataset, start_loader
from medcontext.handlers import Seeding
from tiny import trainer


def drawn(index: int, epoch: int = 1, seed: int = 0, before: tuple[int, ...] = ()) -> torch.Tensor:
    """What the transform draws for a sample, after some others."""
    dataset = SeededDataset(Dataset([torch.zeros(1, 4, 4)] * 3, RandGaussianNoise(prob=1.0)), seed)
    dataset.epoch = epoch
    return [torch.as_tensor(dataset[number]) for number in (*before, index)][-1]


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    torch.testing.assert_close(drawn(1), drawn(1, before=(0, 2, 1)), rtol=0, atol=0)
    others = [drawn(2), drawn(1, epoch=2), drawn(1, seed=1), drawn(1, epoch=0, seed=1)]
    assert not any(torch.equal(drawn(1), other) for other in others)


def test_transforms_that_use_global_generators_are_seeded_too() -> None:
    draw = Lambda(lambda _: (random.random(), np.random.rand(), torch.rand(1).item()))
    dataset = SeededDataset(Dataset([0, 1], draw), 0)
    first = dataset[0]
    assert dataset[1] != first
    assert dataset[0] == first


def test_an_order_for_each_epoch_and_seed_and_the_rest_of_one() -> None:
    def order(epoch: int, seed: int = 0, position: int = 0) -> list[int]:
        sampler = EpochSampler(range(50), seed)
        sampler.set_epoch(epoch)
        sampler.position = position
        return list(sampler)

    assert sorted(order(1)) == list(range(50))
    assert order(1) == order(1) != order(2)
    assert order(2) != order(1, seed=1)
    assert order(1, position=20) == order(1)[20:]


def loader(workers: int = 0) -> DataLoader:
    dataset = SeededDataset(Dataset([torch.zeros(1, 4, 4)] * 6, RandGaussianNoise(prob=1.0)), 0)
    sampler = EpochSampler(dataset, 0)
    return DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers, worker_init_fn=start_loader)


def test_steps_depend_on_seed_step_and_rank_alone() -> None:
    def draw(seed: int = 0, step: int = 3, rank: int = 0) -> torch.Tensor:
        engine = trainer()
        engine.state.iteration, engine.state.rank = step, rank
        torch.rand(step + rank)
        Seeding(seed, loader())(engine)
        return torch.rand(2)

    torch.testing.assert_close(draw(), draw(), rtol=0, atol=0)
    assert not any(torch.equal(draw(), other) for other in (draw(seed=1), draw(step=4), draw(rank=1)))


def test_what_cannot_be_seeded() -> None:
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        Seeding(-1, loader())
    with pytest.raises(TypeError, match="train#sampler is a medcontext.data.EpochSampler"):
        Seeding(0, DataLoader(SeededDataset([1], 0)))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the signals that a process ignores")
def test_signals_to_all_processes_of_a_job_leave_its_loaders_alone() -> None:
    batches = iter(loader(workers=1))
    (worker,) = batches._workers
    next(batches)
    ignored = next(line for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines() if "SigIgn" in line)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert int(ignored.split()[1], 16) >> (number - 1) & 1
