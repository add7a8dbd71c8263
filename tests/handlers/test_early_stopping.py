from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from ignite.engine import Engine, Events

from medcontext.engines import MedContextTrainer
from medcontext.handlers import Attach, EarlyStopping, ResumeTraining, TrainingCheckpoint
from tiny import trainer

Scores = Sequence[float | Mapping[str, float]]


def validator(scores: Scores) -> Engine:
    """An engine whose n-th validation has the n-th scores: the student's, or those of both networks."""

    def validate(engine: Engine, epoch: int) -> None:
        score = scores[epoch - 1]
        engine.state.key_metric_name = "dice"
        engine.state.metrics = dict(score) if isinstance(score, Mapping) else {"dice": score}

    return Engine(validate)


def run(
    scores: Scores, patience: int | None, folder: Path, *, epochs: int = 0, resume: bool = False
) -> MedContextTrainer:
    """Train one epoch per score, each of which is validated."""
    validating = validator(scores)
    stopping = EarlyStopping(patience, validating)
    objects = {"early_stopping": None if patience is None else stopping}
    last = TrainingCheckpoint(str(folder), objects, interval=100)
    handlers = [*([ResumeTraining(folder / "last.pt", objects)] if resume else []), Attach(stopping)]
    engine = trainer(epochs=epochs or len(scores), train_handlers=handlers)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: validating.run([e.state.epoch]))
    last.attach(engine)
    engine.run()
    return engine


@pytest.mark.parametrize(
    ("scores", "patience", "epochs"),
    [
        ([0.5, 0.4, 0.3, 0.2], 2, 3),
        ([0.5, 0.4, 0.6, 0.5, 0.5, 0.9], 2, 5),
        ([0.5, 0.5, 0.5], 1, 2),
        ([0.1, 0.2, 0.3], 1, 3),
        ([0.5, 0.4, 0.3, 0.2], None, 4),
        ([{"dice": 0.5, "dice_ema": 0.1}, {"dice": 0.4, "dice_ema": 0.6}, {"dice": 0.3, "dice_ema": 0.5}, 0.9], 1, 3),
        ([math.nan, math.nan, 0.1, math.nan, 0.2], 2, 5),
        ([math.nan, math.nan, math.nan, 0.1], 2, 3),
    ],
)
def test_when_training_ends(tmp_path: Path, scores: Scores, patience: int | None, epochs: int) -> None:
    assert run(scores, patience, tmp_path).state.epoch == epochs


def test_a_resumed_run_counts_on(tmp_path: Path) -> None:
    scores = [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    assert run(scores, 4, tmp_path, epochs=3).state.epoch == 3  # cut after two of the four
    assert run(scores, 4, tmp_path, resume=True).state.epoch == 5


def test_a_run_that_was_stopped_early_is_finished(tmp_path: Path) -> None:
    scores = [0.5, 0.4, 0.9, 0.9]
    assert run(scores, 1, tmp_path).state.epoch == 2
    resumed = run(scores, 1, tmp_path, resume=True)
    assert (resumed.state.epoch, resumed.state.output) == (2, None)


@pytest.mark.parametrize(("patience", "kind"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_what_is_no_number_of_validations(patience: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="early_stopping must be .*: give a number of validations, or null to train for"):
        EarlyStopping(patience, validator([]))
