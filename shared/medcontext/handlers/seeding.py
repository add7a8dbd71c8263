"""Random states that depend on the epoch only."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.utils import set_determinism

from medcontext.checks import check_integer

__all__ = ["EpochSeed"]


class EpochSeed:
    """Seed all random number generators from (seed, epoch, rank) at the start of each epoch.

    A run resumed at the end of an epoch then sees the same crops, masks and order of cases as without the interruption,
    with any number of loader workers.

    Args:
        seed: seed of the run.
        dataset: training dataset, whose random transforms are seeded too.

    Raises:
        TypeError: If ``seed`` is not an integer.
        ValueError: If it is negative.
    """

    def __init__(self, seed: int, dataset: Any) -> None:
        self.seed = check_integer("seed", seed, minimum=0, remedy="give another whole number for another draw")
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Subscribe to the start of epochs."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the starting epoch."""
        seed = (self.seed * 1_000_003 + engine.state.epoch * 1009 + engine.state.rank) % 2**31
        set_determinism(seed)
        set_rnd(self.dataset, seed)
