from __future__ import annotations

from pathlib import Path

import pytest
from ignite.engine import Engine, Events

from bundle_runs import ROOT, TINY, UNETR, snapshot
from medcontext.experiment import measuring
from medcontext.experiment.measuring import POINTS, STEPS, configured_trainer, step_seconds
from tiny import trainer


def test_steps_are_timed_in_turn_and_all_along_the_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    """One trainer's steps take longer in the second half, and one of five is held up; validations are not counted."""
    now, order = 0.0, list[str]()

    def work(engine: Engine, name: str, seconds: float) -> None:
        nonlocal now
        order.append(name)
        late = engine.state.epoch > POINTS // 2
        now += seconds * (3 if late and name == "ours" else 1) + (50 if engine.state.iteration % STEPS == 1 else 0)

    def validate(_engine: Engine) -> None:
        nonlocal now
        now += 1000

    monkeypatch.setattr(measuring.time, "process_time", lambda: now)
    trainers = {}
    for name, seconds in (("ours", 0.7), ("theirs", 0.3)):
        trainers[name] = trainer(epochs=100)
        trainers[name].add_event_handler(Events.ITERATION_STARTED, work, name, seconds)
        trainers[name].add_event_handler(Events.EPOCH_COMPLETED, validate)
    assert step_seconds(trainers) == pytest.approx({"ours": (0.7 + 2.1) / 2, "theirs": 0.3})
    assert order == (["ours"] * STEPS + ["theirs"] * STEPS) * POINTS
    assert all(t.total_optimizer_steps() == POINTS * STEPS for t in trainers.values())


@pytest.mark.parametrize("mode", ["medcontext", "baseline"])
def test_a_configured_trainer_does_all_of_a_step_and_nothing_else(
    mode: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "POINTS", 2)
    monkeypatch.setattr(measuring, "STEPS", 2)
    before_all = snapshot(home)
    names = ["train"] if mode == "medcontext" else ["train", mode]
    files = [str(ROOT / "bundles" / UNETR / "configs" / f"{name}.json") for name in names]
    arguments = {"run_id": "training", "config_file": files, "run_name": "never", **TINY[UNETR]}
    engine = configured_trainer(arguments, str(home / "scratch"))
    before = {name: value.clone() for name, value in engine.network.state_dict().items()}
    assert step_seconds({mode: engine})[mode] > 0
    assert engine.state.iteration == 4
    assert any((before[name] != value).any() for name, value in engine.network.state_dict().items())
    assert engine.state.teacher_momentum > 0
    assert snapshot(home) == before_all
