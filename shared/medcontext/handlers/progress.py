"""Progress bar over the whole training run."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from tqdm.auto import tqdm

from medcontext.engines.trainer import MedContextEvents
from medcontext.handlers.step_values import step_values

__all__ = ["ProgressBar"]


class ProgressBar:
    """Show one bar over all steps of all epochs: loss terms, the last validation, and the time left.

    ignite's own bar counts one epoch at a time, which is of little use if epochs take seconds.

    Args:
        validator: engine whose key metric is shown beside the losses.
        interval: seconds between two updates, to keep logs small where there is no terminal.
    """

    def __init__(self, validator: Engine | None = None, interval: float = 1.0) -> None:
        self.validator = validator
        self.interval = interval
        self.bar: Any = None

    def attach(self, engine: Engine) -> None:
        """Subscribe to the start, every step, and the end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.close)
        engine.add_event_handler(MedContextEvents.RUN_ABORTED, self.close)

    def start(self, engine: Engine) -> None:
        """Draw the bar, at the step at which a resumed run starts."""
        self.bar = tqdm(
            total=engine.state.max_epochs * engine.state.epoch_length,
            initial=engine.state.iteration,
            desc="training",
            unit="step",
            mininterval=self.interval,
            dynamic_ncols=True,
        )

    def __call__(self, engine: Engine) -> None:
        """Count one step and show its loss terms."""
        shown = {name.removeprefix("train_"): f"{value:.3g}" for name, value in step_values(engine).items()}
        shown["epoch"] = f"{engine.state.epoch}/{engine.state.max_epochs}"
        if self.validator is not None and self.validator.state.metrics:
            name = self.validator.state.key_metric_name
            shown[name] = f"{self.validator.state.metrics[name]:.3f}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        if self.bar is not None:
            self.bar.close()
