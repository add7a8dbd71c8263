from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ignite.engine import Events
from monai.engines import Evaluator
from monai.handlers import ValidationHandler

from medcontext.handlers import (
    ResumeTraining,
    TeacherUpdate,
    TrainingCheckpoint,
    TrainingHistory,
    step_clock,
    step_values,
)
from medcontext.storage import files
from tiny import trainer

TERMS = ["train_loss", "train_loss_supervised", "train_loss_context", "train_loss_consistency", "masked_fraction"]
SECONDS = "train_processor_seconds"
STEP_COLUMNS = [*TERMS, "learning_rate", "teacher_momentum", SECONDS]


def validator() -> Evaluator:
    """An evaluator whose Dice is a tenth of the epoch, with a label that no case holds."""
    engine = Evaluator(device="cpu", val_data_loader=[0], iteration_update=lambda engine, batch: None)
    engine.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda e: e.state.metrics.update(val_mean_dice=e.state.epoch / 10, val_dice_tail=float("nan")),
    )
    return engine


def test_a_row_per_epoch_with_means_and_validation(tmp_path: Path) -> None:
    path, dice = tmp_path / "models" / "history.csv", validator()
    handlers = [TeacherUpdate(0.9), ValidationHandler(interval=2, validator=dice), TrainingHistory(path, dice)]
    engine = trainer(epochs=3, passes="separate", train_handlers=handlers)
    losses: list[float] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(step_values(e)["train_loss"]))
    engine.run()
    table = pd.read_csv(path)
    assert list(table.columns) == ["epoch", "step", *STEP_COLUMNS, "val_mean_dice", "val_dice_tail"]
    assert table["epoch"].tolist() == [1, 2, 3]
    assert table["step"].tolist() == [4, 8, 12]
    assert table["train_loss"].tolist() == pytest.approx([sum(losses[i : i + 4]) / 4 for i in (0, 4, 8)], rel=1e-5)
    assert table["learning_rate"].tolist() == [0.1] * 3
    assert table["val_mean_dice"].fillna(-1).tolist() == [-1, 0.2, -1]
    assert table["val_dice_tail"].isna().all()
    assert [file.name for file in path.parent.iterdir()] == ["history.csv"]


def train(folder: Path, epochs: int, *, stop: int | None = None, resume: bool = False, interval: int = 1) -> Any:
    handlers: list[Any] = [ResumeTraining(str(folder / "last.pt"))] if resume else []
    handlers += [TrainingHistory(folder / "history.csv"), TrainingCheckpoint(str(folder), interval=interval)]
    engine = trainer(epochs=epochs, train_handlers=handlers)
    if stop is not None:

        def fail() -> None:
            raise KeyboardInterrupt

        engine.add_event_handler(Events.ITERATION_STARTED(once=stop), fail)
        with pytest.raises(KeyboardInterrupt):
            engine.run()
    else:
        engine.run()
    return pd.read_csv(folder / "history.csv")


@pytest.mark.parametrize("interval", [1, 2])
def test_a_resumed_run_continues_the_file(tmp_path: Path, interval: int) -> None:
    """The fourth epoch breaks off; with an interval of 2 the third is not saved, so it is trained again."""
    whole = train(tmp_path / "whole", 5)
    before = train(tmp_path / "cut", 5, stop=14, interval=interval)
    assert before["epoch"].tolist() == [1, 2, 3]
    resumed = train(tmp_path / "cut", 5, resume=True, interval=interval)
    assert resumed["epoch"].tolist() == [1, 2, 3, 4, 5]
    pd.testing.assert_frame_equal(resumed.drop(columns=SECONDS), whole.drop(columns=SECONDS))
    kept = resumed["epoch"] <= 4 - interval  # the others were trained again, at a cost of their own
    assert resumed[SECONDS][kept].tolist() == before[SECONDS][: kept.sum()].tolist()
    assert resumed[SECONDS].is_monotonic_increasing


def test_time_is_that_of_the_steps_alone_and_continues_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step takes a second from the request of its batch, and a validation a thousand."""
    now = 0.0

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(step_clock.StepClock.__init__, "__defaults__", (lambda: now,))
    for epochs, expected in ((2, [4, 8]), (4, [4, 8, 12, 16])):
        handlers: list[Any] = [ResumeTraining(str(tmp_path / "last.pt"))] if epochs > 2 else []
        handlers += [TrainingHistory(tmp_path / "history.csv"), TrainingCheckpoint(str(tmp_path))]
        engine = trainer(epochs=epochs, train_handlers=handlers)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, pass_by, 0.25)
        engine.add_event_handler(Events.ITERATION_STARTED, pass_by, 0.75)
        engine.add_event_handler(Events.EPOCH_STARTED | Events.EPOCH_COMPLETED, pass_by, 1000)
        engine.run()
        assert pd.read_csv(tmp_path / "history.csv")[SECONDS].tolist() == expected
        assert engine.state.train_processor_seconds == expected[-1]


def test_a_new_training_run_begins_a_new_file(tmp_path: Path) -> None:
    train(tmp_path, 3)
    assert train(tmp_path, 1)["epoch"].tolist() == [1]


@pytest.mark.parametrize("content", ["", "no,epochs\n1,2\n", "epoch,step\nfirst,1\n", '"epoch\n'])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, 1)
    (tmp_path / "history.csv").write_text(content)
    assert train(tmp_path, 2, resume=True)["epoch"].tolist() == [2]
    assert "holds no history" in caplog.text


def test_a_full_disk_does_not_end_the_training_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handler = TrainingHistory(tmp_path / "history.csv")
    engine = trainer(epochs=3, train_handlers=[handler])
    replace = files.os.replace

    def full_once(*paths: Any) -> None:
        if engine.state.epoch == 2:
            raise OSError(28, "No space left on device")
        replace(*paths)

    monkeypatch.setattr(files.os, "replace", full_once)
    with caplog.at_level(logging.WARNING):
        engine.run()
    assert caplog.text.count("No space left on device") == 1
    assert pd.read_csv(handler.path)["epoch"].tolist() == [1, 2, 3]  # what could not be written comes with the next
    assert len(list(tmp_path.iterdir())) == 1
