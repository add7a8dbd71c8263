"""History of a training run, epoch by epoch, in a file beside its checkpoints."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
from ignite.engine import Engine, Events

from medcontext.handlers.step_clock import StepClock
from medcontext.handlers.step_values import engine_metrics, train_metrics
from medcontext.storage.files import write_file

__all__ = ["TrainingHistory"]

logger = logging.getLogger(__name__)

SECONDS = "train_processor_seconds"


class TrainingHistory:
    """Write one row per epoch: its number, its last step, the means of the step values, and the validation metrics.

    The columns are ``epoch``, ``step``, those of :func:`medcontext.handlers.step_values.train_metrics`,
    ``train_processor_seconds``, the processor time of all steps so far
    (:class:`~medcontext.handlers.step_clock.StepClock`), then ``val_mean_dice`` and ``val_dice_<label>``, which are
    empty in epochs without validation. The file is replaced atomically. A resumed run continues it; rows of epochs that
    are trained again, because a crash came after the end of an epoch but before its checkpoint, are dropped along with
    their time. The time is also in ``engine.state.train_processor_seconds``, and the values of the steps of an
    unfinished epoch in ``engine.state.epoch_values``; both are part of the engine's ``state_dict``.

    List it after the ``ValidationHandler``, so that an epoch's row holds that epoch's validation. If the file cannot be
    written, a warning is logged and training continues.

    Args:
        path: the CSV file.
        validator: engine whose metrics are written along with the trainer's.
    """

    def __init__(self, path: str | os.PathLike[str], validator: Engine | None = None) -> None:
        self.path = Path(path)
        self.validator = validator
        self.rows: list[dict[Any, Any]] = []
        self._clock = StepClock()
        self._validation: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Subscribe to the engine, and to the validator if there is one."""
        engine.state.epoch_values, engine.state.train_processor_seconds = [], 0.0
        engine.state_dict_user_keys.extend(["epoch_values", "train_processor_seconds"])
        engine.add_event_handler(Events.STARTED, self.start)
        self._clock.attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, self._validated)

    def start(self, engine: Engine) -> None:
        """Read the rows of the epochs before the first one of this run: none, unless it is resumed."""
        self.rows, self._clock.total = [], engine.state.train_processor_seconds
        finished = engine.state.epoch - int(engine.state.epoch_unfinished)
        if engine.state.epoch and self.path.is_file():
            try:
                table = pd.read_csv(self.path)
                self.rows = table[table["epoch"] <= finished].to_dict("records")
            except (OSError, ValueError, TypeError, KeyError) as error:
                logger.warning("%s holds no history (%s); a new one is started.", self.path, error)

    def collect(self, engine: Engine) -> None:
        """Collect the values of one step."""
        engine.state.epoch_values.append(train_metrics(engine))
        engine.state.train_processor_seconds = self._clock.total

    def __call__(self, engine: Engine) -> None:
        """Add the epoch and write the file."""
        means = pd.DataFrame(engine.state.epoch_values).mean().to_dict()
        position = {"epoch": engine.state.epoch, "step": engine.state.iteration}
        self.rows.append({**position, **means, SECONDS: self._clock.total, **self._validation})
        engine.state.epoch_values, self._validation = [], {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self.path, pd.DataFrame(self.rows).to_csv(index=False, float_format="%.6g").encode())
        except OSError as error:
            logger.warning("The training history could not be written (%s); training continues.", error)

    def _validated(self, engine: Engine) -> None:
        self._validation = engine_metrics(engine)
