"""What training steps cost, whatever is done between them."""

from __future__ import annotations

import time
from collections.abc import Callable

from ignite.engine import Engine, Events

__all__ = ["StepClock"]


class StepClock:
    """Time each step from the request of its batch to its end, and add the times up.

    Loading the batch counts, its transforms, all passes, and the teacher; validation, checkpoints and logs, which come
    between steps, do not. By default the time is the processor's, of all threads of this process: it does not grow
    when other programs run beside it. What the loader's own processes do (``num_workers`` above 0) is not in it.

    Args:
        clock: gives the time in seconds.

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
        """Add the step that is done."""
        self.last = self.clock() - self._started
        self.total += self.last

    def _start(self) -> None:
        self._started = self.clock()
