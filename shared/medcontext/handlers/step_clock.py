"""Time of training steps, without the work between them."""

from __future__ import annotations

import time
from collections.abc import Callable

from ignite.engine import Engine, Events

__all__ = ["StepClock"]


class StepClock:
    """Time each step from the request of its batch to its end, and add the times up.

    The time includes loading the batch, its transforms, all passes and the teacher, but not validation, checkpoints and
    logging, which happen between steps. By default it is the processor time of all threads of this process, which other
    programs on the machine do not increase. It excludes the loader's own processes (``num_workers`` above 0).

    Args:
        clock: function that returns the time in seconds.

    Attributes:
        last: seconds of the last step.
        total: seconds of all steps.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.clock = clock
        self.last = self.total = 0.0
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        """Subscribe to the request of a batch and the end of the step."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self) -> None:
        """Add the time of the finished step."""
        self.last = self.clock() - self._started
        self.total += self.last

    def _start(self) -> None:
        self._started = self.clock()
