"""A real MLflow server over HTTP: the whole life of a run, and what becomes of one whose server goes away."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Events
from mlflow import MlflowClient
from monai.engines import Evaluator

from medcontext.tracking import MLflowTracker
from medcontext.tracking.outbox import TrackingError
from medcontext.tracking.unsent import read_unsent
from mlflow_server import Door, MlflowServer
from tiny import trainer
from waiting import until

STEPS = 4  # an epoch


def tracker(server: Door | MlflowServer, folder: Path, **kwargs: Any) -> MLflowTracker:
    """It logs to an experiment that is named after the test's folder."""
    arguments = {"experiment_name": str(folder.parent), "run_name": "one"}
    return MLflowTracker(str(folder), tracking_uri=server.uri, **arguments, **kwargs)


def evaluate(*handlers: MLflowTracker) -> None:
    engine = Evaluator(device="cpu", val_data_loader=[0], iteration_update=lambda engine, batch: None)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(test_mean_dice=0.5))
    for handler in handlers:
        handler.attach(engine)
    engine.run()


def the_run(server: Door, folder: Path) -> Any:
    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name(str(folder)).experiment_id])
    return run


def steps(server: Door, folder: Path, name: str) -> list[int]:
    run_id = the_run(server, folder).info.run_id
    return [point.step for point in MlflowClient(server.uri).get_metric_history(run_id, name)]


def test_the_life_of_a_run(mlflow_server: Door, tmp_path: Path) -> None:
    models, evaluation = tmp_path / "models", tmp_path / "evaluation"
    config, figures = tmp_path / "train_config.json", tmp_path / "previews"
    config.write_text("{}")
    figures.mkdir()
    (figures / "epoch_0001.png").write_bytes(b"png")
    evaluation.mkdir()
    (evaluation / "metrics.csv").write_text("case,dice\n")
    cases = {"training": {"hash": "abc", "cases": ["a", "b"]}}
    settings = {"params": {f"p{i}": i for i in range(250)}, "tags": {"medcontext.mode": "medcontext"}}
    files = {"configs": [str(config)], "figures": str(figures), "cases": cases, "dataset": "btcv"}
    trainer(epochs=2, train_handlers=[tracker(mlflow_server, models, **settings, **files)]).run()
    trainer(epochs=3, train_handlers=[tracker(mlflow_server, models, **settings, **files)]).run()
    evaluate(tracker(mlflow_server, models, artifacts=str(evaluation)))

    run = the_run(mlflow_server, tmp_path)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "one")
    assert run.data.params == {f"p{i}": str(i) for i in range(250)}
    assert run.data.tags["medcontext.mode"] == "medcontext"
    assert steps(mlflow_server, tmp_path, "train_loss") == list(range(1, 3 * STEPS + 1))
    assert run.data.metrics["dice/test_mean_dice"] == 0.5
    assert [found.dataset.digest for found in run.inputs.dataset_inputs] == ["abc"]
    client = MlflowClient(mlflow_server.uri)
    found = [
        item.path
        for folder in ("", "cases", "evaluation", "previews")
        for item in client.list_artifacts(run.info.run_id, folder)
        if not item.is_dir
    ]
    assert found == ["train_config.json", "cases/training.json", "evaluation/metrics.csv", "previews/epoch_0001.png"]
    assert (
        json.loads(Path(client.download_artifacts(run.info.run_id, "cases/training.json")).read_text())
        == cases["training"]
    )


def test_a_server_that_goes_away_during_training(
    mlflow_server: Door, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Away in the second of three epochs and back in the third: nothing waits, and every point arrives once."""
    engine = trainer(epochs=3)
    second: list[float] = []

    def around(engine: Any) -> None:
        if engine.state.epoch == 2:
            mlflow_server.stop()
        if engine.state.epoch == 3:
            mlflow_server.start()

    def stopwatch() -> None:
        second.append(time.monotonic())

    engine.add_event_handler(Events.EPOCH_STARTED, around)
    engine.add_event_handler(Events.EPOCH_STARTED(once=2), stopwatch)
    tracker(mlflow_server, tmp_path / "models").attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED(once=2), stopwatch)
    engine.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda: until(lambda: "is unreachable" in caplog.text))
    engine.run()
    assert second[1] - second[0] < 3
    assert the_run(mlflow_server, tmp_path).info.status == "FINISHED"
    assert steps(mlflow_server, tmp_path, "train_loss") == list(range(1, 3 * STEPS + 1))
    assert steps(mlflow_server, tmp_path, "train_seconds") == [STEPS, 2 * STEPS, 3 * STEPS]
    assert not list((tmp_path / "models").glob("mlflow_unsent*"))


def test_a_server_that_never_comes_back(mlflow_server: Door, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = tmp_path / "models"
    engine = trainer(epochs=3, train_handlers=[tracker(mlflow_server, models, params={"a": 1}, wait=1)])
    engine.add_event_handler(Events.EPOCH_STARTED(once=2), mlflow_server.stop)
    started = time.monotonic()
    engine.run()
    assert time.monotonic() - started < 20
    assert engine.state.epoch == 3
    (path,) = models.glob("mlflow_unsent_*.jsonl")
    assert f"kept in {path}" in caplog.text
    kept = read_unsent(path).operations
    assert kept[-1]["status"] == "FINISHED"

    with pytest.raises(TrackingError, match=f"MLflow at {mlflow_server.uri} cannot be used"):
        evaluate(tracker(mlflow_server, models))
    mlflow_server.start()
    assert the_run(mlflow_server, tmp_path).info.status == "RUNNING"
    evaluate(tracker(mlflow_server, models))
    run = the_run(mlflow_server, tmp_path)
    assert run.info.status == "FINISHED"
    assert run.info.end_time == kept[-1]["time"]
    assert steps(mlflow_server, tmp_path, "train_loss") == list(range(1, 3 * STEPS + 1))
    assert run.data.metrics["dice/test_mean_dice"] == 0.5
    assert not path.exists()


def test_a_server_that_is_dead_at_the_start(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)  # which is never started
    engine = trainer(train_handlers=[tracker(server, tmp_path / "models")])
    started = time.monotonic()
    with pytest.raises(
        TrackingError, match=r"MLflow at http://127.0.0.1:\d+ cannot be used \(.*refused\); check that it"
    ):
        engine.run()
    assert time.monotonic() - started < 5
    assert engine.state.iteration == 0
    assert not (tmp_path / "models").exists()
