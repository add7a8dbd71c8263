"""How Ctrl-C and SIGTERM end a run."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Events
from monai.engines import Evaluator

from crashes import train_share
from forks import forked
from medcontext.bundle import signals
from medcontext.bundle.signals import ended_by_signals, stopped_by_signals
from medcontext.handlers import TrainingCheckpoint
from medcontext.networks import load_checkpoint
from platforms import posix_only
from tiny import trainer

pytestmark = posix_only


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_start_of_a_run_ends_at_once(number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, ended_by_signals():
        send(number)
    assert ended.value.code == code
    assert capfd.readouterr().err == f"\nmedcontext: ended by {number.name}.\n"
    assert signal.getsignal(number) == before


def train(folder: Path, at: Any, numbers: list[int]) -> Any:
    """Train four steps; the signals arrive at an event."""
    engine = trainer(train_handlers=[TrainingCheckpoint(str(folder))])
    engine.add_event_handler(at, lambda: [send(number) for number in numbers])
    with pytest.raises(SystemExit) as ended, stopped_by_signals(engine):
        engine.run()
    return ended.value


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_training_ends_when_its_state_is_saved(
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = train(tmp_path, Events.ITERATION_STARTED(once=2), [number])
    assert ended.code == code
    assert load_checkpoint(tmp_path / "last.pt")["trainer"]["iteration"] == 2
    assert [line for line in capfd.readouterr().err.splitlines() if line.startswith("medcontext")] == [
        f"medcontext: {number.name}: saving the state at the end of this step; a second signal ends at once.",
        f"medcontext: ended by {number.name} after step 2; resume.json resumes the run there.",
    ]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.xdist_group("forks")
def test_all_processes_stop_after_the_same_step(tmp_path: Path) -> None:
    group = [forked(train_share, rank, str(tmp_path), output=str(tmp_path / "output.txt")) for rank in range(2)]
    for process in group:
        process.join(timeout=120)
    assert [process.exitcode for process in group] == [143, 143]
    assert load_checkpoint(tmp_path / "last.pt")["trainer"]["iteration"] == 6
    assert (tmp_path / "output.txt").read_text().count("medcontext: ended by SIGTERM after step 6") == 1


def test_the_second_signal_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SAME_REQUEST", 0.0)
    assert train(tmp_path, Events.ITERATION_STARTED(once=2), [signal.SIGTERM, signal.SIGINT]).code == 130
    assert not (tmp_path / "last.pt").exists()


def test_signals_that_arrive_together_are_one_request(tmp_path: Path) -> None:
    assert train(tmp_path, Events.ITERATION_STARTED(once=2), [signal.SIGTERM, signal.SIGTERM]).code == 143
    assert (tmp_path / "last.pt").exists()


def test_an_error_that_a_signal_causes_is_not_told(tmp_path: Path) -> None:
    engine = trainer()

    def leave() -> None:
        send(signal.SIGTERM)
        raise RuntimeError("another process has left the collective")

    engine.add_event_handler(Events.ITERATION_STARTED(once=2), leave)
    with pytest.raises(SystemExit) as ended, stopped_by_signals(engine):
        engine.run()
    assert ended.value.code == 143


def test_evaluation_and_what_follows_training_end_at_the_first(capfd: pytest.CaptureFixture[str]) -> None:
    evaluator = Evaluator(device="cpu", val_data_loader=[0], iteration_update=lambda engine, batch: None)
    for engine, event in ((evaluator, Events.ITERATION_COMPLETED), (trainer(), Events.COMPLETED)):
        engine.add_event_handler(event, send, signal.SIGINT)
        with pytest.raises(SystemExit) as ended, stopped_by_signals(engine):
            engine.run()
        assert ended.value.code == 130
        assert "medcontext: ended by SIGINT.\n" in capfd.readouterr().err


def test_what_a_program_has_chosen_is_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by_signals():
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
