"""Random numbers that depend on the place in training alone."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.utils import set_determinism
from torch.utils.data import DataLoader

from medcontext.checks import check_integer
from medcontext.data.sampling import EpochSampler, SeededDataset, derived_seed

__all__ = ["Seeding"]


class Seeding:
    """Seed each step from (seed, step, rank), and let the loader draw each sample from (seed, epoch, index).

    What a step computes then depends on nothing that went before but the weights: a run resumed in the middle of an
    epoch sees the same crops, masks and dropout as without the interruption, with any number of loader processes.

    Args:
        seed: seed of the run.
        loader: loader of the training samples, from a :class:`~medcontext.data.SeededDataset` through an
            :class:`~medcontext.data.EpochSampler`.

    Raises:
        TypeError: If ``seed`` is not an integer, or the loader has another dataset or sampler.
        ValueError: If ``seed`` is negative.
    """

    def __init__(self, seed: int, loader: DataLoader[object]) -> None:
        self.seed = check_integer("seed", seed, minimum=0, remedy="give another whole number for another draw")
        if not isinstance(loader.dataset, SeededDataset) or not isinstance(loader.sampler, EpochSampler):
            raise TypeError(
                "A run can be resumed exactly only if train#dataloader takes a medcontext.data.SeededDataset and "
                "train#sampler is a medcontext.data.EpochSampler."
            )
        self.dataset, self.sampler = loader.dataset, loader.sampler
        self.batch_size = loader.batch_size or 1

    def attach(self, engine: Engine) -> None:
        """Subscribe to the start of epochs and steps."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def start_epoch(self, engine: Engine) -> None:
        """Tell the loader the epoch, and how much of it a resumed run has trained already."""
        self.dataset.epoch = engine.state.epoch
        self.sampler.set_epoch(engine.state.epoch)
        steps = engine.state.iteration - (engine.state.epoch - 1) * int(engine.state.epoch_length)
        self.sampler.position = steps * self.batch_size

    def __call__(self, engine: Engine) -> None:
        """Seed the starting step, differently from all samples."""
        set_determinism(derived_seed(self.seed, engine.state.iteration, engine.state.rank, 1))
