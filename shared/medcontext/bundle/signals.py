"""The end of a run by Ctrl-C or SIGTERM: in one sentence, and after its state is saved where it has one."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine

from medcontext.engines import MedContextTrainer
from medcontext.handlers import TrainingInterrupted

__all__ = ["ended_by_signals", "stopped_by_signals"]

DEFAULTS: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""The signals, and what handles them unless a program does; what a program has chosen is left alone."""
SAME_REQUEST = 1.0
"""Seconds within which a signal is the same request: torchrun passes on what schedulers send to all processes."""


class _AtOnce(SystemExit):
    """A signal ended the program where it was."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.sentence = f"ended by {signal.Signals(number).name}."


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGINT or SIGTERM within the block end the program in one sentence, with the exit status 130 or 143.

    Raises:
        SystemExit: When a signal arrives.
    """
    with _sentence(), _handled(_end):
        yield


@contextlib.contextmanager
def stopped_by_signals(engine: Engine) -> Iterator[None]:
    """Let SIGINT or SIGTERM within the block stop a trainer when its state is saved, and a second signal at once.

    Other engines have no state to save, and end at the first.

    Raises:
        SystemExit: When the trainer has stopped, or at the second signal.
    """
    asked_at = -math.inf

    def stop(number: int) -> None:
        nonlocal asked_at
        state, now = engine.state, time.monotonic()
        if now - asked_at < SAME_REQUEST:
            return
        asked_at = now
        done = state.iteration >= state.max_epochs * state.epoch_length and not state.epoch_unfinished
        if done or engine.stop_signal:
            _end(number)
        engine.stop_signal = number
        if idist.get_rank() == 0:
            name = signal.Signals(number).name
            _say(f"{name}: saving the state at the end of this step; a second signal ends at once.")

    with _sentence(), _handled(stop if isinstance(engine, MedContextTrainer) else _end):
        try:
            yield
        except Exception as error:
            number = getattr(engine, "stop_signal", 0)
            if not number:
                raise
            raise _AtOnce(number) from error  # such as of a collective that other processes have left


def _end(number: int) -> None:
    raise _AtOnce(number)


@contextlib.contextmanager
def _sentence() -> Iterator[None]:
    """Say why the program ends, if a signal ends it; ignite would log the exit status as an error."""
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith("ignite.")]
    for logger in loggers:
        logger.addFilter(_is_no_exit)
    try:
        yield
    except (TrainingInterrupted, _AtOnce) as end:
        if idist.get_rank() == 0:
            _say(end.sentence)
        raise
    finally:
        for logger in loggers:
            logger.removeFilter(_is_no_exit)


def _is_no_exit(record: logging.LogRecord) -> bool:
    return not ("terminating due to exception" in str(record.msg) and isinstance(sys.exception(), SystemExit))


def _say(sentence: str) -> None:
    """Write a sentence to standard error, past Python's buffers, in which a signal may have arrived."""
    with contextlib.suppress(OSError):
        os.write(2, f"\nmedcontext: {sentence}\n".encode())


@contextlib.contextmanager
def _handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Handle the signals in this process; those that it forks end by SIGTERM, and ignore Ctrl-C in the terminal."""
    process = os.getpid()

    def handler(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == process:
            handle(number)
        elif number == signal.SIGTERM:
            os._exit(128 + number)

    own = threading.current_thread() is threading.main_thread()
    handled = [number for number, default in DEFAULTS.items() if own and signal.getsignal(number) == default]
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, DEFAULTS[number])
