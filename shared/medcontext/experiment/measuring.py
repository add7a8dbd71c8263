"""Time the training steps of several modes in turn, in one process: ``python -m medcontext.experiment.measuring``."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai
import torch
from ignite.engine import Engine, Events
from monai.utils import set_determinism

import medcontext
from medcontext.engines import MedContextTrainer
from medcontext.experiment.planning import checked_configuration
from medcontext.handlers.step_clock import StepClock

__all__ = ["configured_trainer", "step_seconds"]

POINTS = 8
"""Number of points in a training run, evenly spread over its schedules, at which steps are timed."""
STEPS = 3
"""Number of steps at each of them, whose median counts."""

BETWEEN_STEPS = {
    "ResumeTraining",
    "ValidationHandler",
    "TrainingHistory",
    "ProgressBar",
    "FinalModel",
    "ComponentChoice",
    "PreviewFigure",
    "MLflowTracker",
    "TrainingCheckpoint",
    "TensorBoardStatsHandler",
    "Attach",  # of early stopping
}
"""Handlers that validate, save, log or show, and so are not part of a step."""


def step_seconds(trainers: Mapping[str, MedContextTrainer]) -> dict[str, float]:
    """Measure the seconds that a step of each trainer takes, all of them in turn.

    Each trains for a short run, in which schedules go from beginning to end, and is timed throughout: the result is the
    mean of the medians at :data:`POINTS` points. On the CPU it is processor time, on a GPU wall time.

    Args:
        trainers: trainers by name, not yet run.
    """
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for name, trainer in trainers.items():
        trainer.state.max_epochs, trainer.state.epoch_length = POINTS, STEPS
        clock = StepClock(_gpu_clock if trainer.state.device.type == "cuda" else time.process_time)
        clock.attach(trainer)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, _record_time, clock, times[name])
        turns = Events.ITERATION_COMPLETED(once=list(range(STEPS, POINTS * STEPS, STEPS)))
        trainer.add_event_handler(turns, trainer.interrupt)
    for _ in range(POINTS):
        for trainer in trainers.values():
            trainer.run()
    return {
        name: statistics.mean(
            statistics.median(values[start : start + STEPS]) for start in range(0, len(values), STEPS)
        )
        for name, values in times.items()
    }


def _record_time(_engine: Engine, clock: StepClock, times: list[float]) -> None:
    times.append(clock.last)


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def configured_trainer(arguments: Mapping[str, Any], scratch: str) -> MedContextTrainer:
    """Return the trainer of a configuration with its data and network, which saves, logs and validates nothing.

    Args:
        arguments: arguments of the training run, as for ``monai.bundle run``.
        scratch: folder for files that handlers write nevertheless.
    """
    overrides = {name: value for name, value in arguments.items() if name not in ("run_id", "config_file")}
    parser = checked_configuration(arguments["config_file"], {**overrides, "output_dir": scratch})
    set_determinism(parser.get_parsed_content("seed"))
    handlers = [item for item in parser["train#handlers"] if item["_target_"].rpartition(".")[2] not in BETWEEN_STEPS]
    parser["train#handlers"] = handlers
    trainer: MedContextTrainer = parser.get_parsed_content("train#trainer")
    return trainer


def main(arguments_file: str, result_file: str) -> None:
    """Time the training runs whose arguments a file holds by mode, and write the seconds and the circumstances."""
    arguments_of = json.loads(Path(arguments_file).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        trainers = {name: configured_trainer(arguments, scratch) for name, arguments in arguments_of.items()}
        seconds = step_seconds(trainers)
    device = next(iter(trainers.values())).state.device
    result = {
        "seconds": seconds,
        "clock": "wall" if device.type == "cuda" else "processor",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {"medcontext": medcontext.__version__, "monai": monai.__version__, "torch": torch.__version__},
    }
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
