"""Training runs that kill themselves, as ``kill -9`` would, at a moment of their work."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator

from forks import _run_module
from medcontext.bundle.signals import stopped_by_signals
from medcontext.engines import MedContextTrainer
from medcontext.handlers import TrainingCheckpoint
from medcontext.storage import files
from medcontext.tracking import outbox
from tiny import trainer

MOMENTS: dict[str, tuple[Any, str, int]] = {
    "step": (MedContextTrainer, "_iteration", 4),
    "validation": (SupervisedEvaluator, "_iteration", 4),
    "file written": (files.os, "fsync", 24),
    "file named": (files.os, "replace", 12),
    "MLflow": (outbox, "send", 12),
}
"""What is called at each moment, a function by its owner and name, and how often in one or two epochs."""


def train_share(rank: int, folder: str) -> None:
    """One of two processes, of which the second gets a signal in its sixth step."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    engine = trainer(epochs=3, train_handlers=[TrainingCheckpoint(folder)])
    if rank == 1:
        engine.add_event_handler(Events.ITERATION_STARTED(once=6), os.kill, os.getpid(), signal.SIGTERM)
    with stopped_by_signals(engine):
        engine.run()


def train_and_die(moment: str, call: int, delay: float, words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run ``python -m …`` in this process, which dies ``delay`` seconds after a moment begins for the n-th time."""
    owner, name, _ = MOMENTS[moment]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*arguments: Any, **keys: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and delay:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keys)

    setattr(owner, name, counted)
    _run_module(list(words[2:]), dict(environment))
