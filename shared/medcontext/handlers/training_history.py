"""What a training went through, epoch by epoch, in a file beside its checkpoints."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
from ignite.engine import Engine, Events

from medcontext.files import write_file
from medcontext.handlers.step_values import engine_metrics, train_metrics

__all__ = ["TrainingHistory"]

logger = logging.getLogger(__name__)


class TrainingHistory:
    """Write one row per epoch: its number, its last step, the means of the step values, and the validation's metrics.

    The columns are ``epoch``, ``step``, those of :func:`medcontext.handlers.step_values.train_metrics`, then
    ``val_mean_dice`` and ``val_dice_<label>``, which are empty in epochs without validation. The file is replaced as a
    whole. A resumed training goes on with it; the rows of epochs that are trained again, which a crash leaves where
    epochs are finished but not saved, are dropped.

    List it after the ``ValidationHandler``, so that an epoch's row holds that epoch's validation. A file that cannot be
    written is a warning and no reason to end a training.

    Args:
        path: the CSV file.
        validator: engine whose metrics are written along with the trainer's.
    """

    def __init__(self, path: str | os.PathLike[str], validator: Engine | None = None) -> None:
        self.path = Path(path)
        self.validator = validator
        self.rows: list[dict[Any, Any]] = []
        self._steps: list[dict[str, float]] = []
        self._validation: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Subscribe to the engine, and to the validator if there is one."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._steps.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, self._validated)

    def start(self, engine: Engine) -> None:
        """Take over the rows up to the epoch that the training starts after: none, unless it is resumed."""
        self.rows = []
        if engine.state.epoch and self.path.is_file():
            try:
                table = pd.read_csv(self.path)
                self.rows = table[table["epoch"] <= engine.state.epoch].to_dict("records")
            except (OSError, ValueError, TypeError, KeyError) as error:
                logger.warning("%s holds no history (%s); it begins anew.", self.path, error)

    def collect(self, engine: Engine) -> None:
        """Remember the values of one step."""
        self._steps.append(train_metrics(engine))

    def __call__(self, engine: Engine) -> None:
        """Add the epoch and write the file."""
        means = pd.DataFrame(self._steps).mean().to_dict()
        place = {"epoch": engine.state.epoch, "step": engine.state.iteration}
        self.rows.append({**place, **means, **self._validation})
        self._validation = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self.path, pd.DataFrame(self.rows).to_csv(index=False, float_format="%.6g").encode())
        except OSError as error:
            logger.warning("The history of the training was not written (%s); the training goes on.", error)

    def _validated(self, engine: Engine) -> None:
        self._validation = engine_metrics(engine)
