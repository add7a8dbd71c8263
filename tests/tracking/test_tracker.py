from __future__ import annotations

import json
import logging
import re
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from ignite.engine import Events
from mlflow.exceptions import MlflowException
from monai.engines import Evaluator

from medcontext.handlers import ResumeTraining, TeacherUpdate, TrainingCheckpoint, TrainingHistory
from medcontext.tracking import MLflowTracker
from tiny import trainer
from waiting import until

MODE = {"medcontext.mode": "medcontext"}


def tracker(uri: str, folder: Path, **kwargs: Any) -> MLflowTracker:
    arguments = {"experiment_name": "tests", "run_name": "one", "tags": MODE}
    return MLflowTracker(str(folder), tracking_uri=uri, **{**arguments, **kwargs})


def runs(uri: str) -> list[Any]:
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tests")
    return client.search_runs(experiment.experiment_id)


def evaluator() -> Evaluator:
    engine = Evaluator(device="cpu", val_data_loader=[0], iteration_update=lambda engine, batch: None)
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(test_mean_dice=0.5, test_dice={"liver": 0.5})
    )
    return engine


def test_one_run_for_training_resuming_and_evaluation(uri: str, tmp_path: Path) -> None:
    folder, validator = tmp_path / "models", evaluator()
    handlers = [TeacherUpdate(), tracker(uri, folder, validator=validator, params={"seed": 3})]
    engine = trainer(epochs=2, train_handlers=handlers, passes="separate")
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: validator.run(e.state.epoch))
    engine.run()
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "one"
    assert run.data.params == {"seed": "3"}
    assert run.data.tags["medcontext.mode"] == "medcontext"
    expected = {"train_loss", "train_loss_supervised", "train_loss_context", "train_loss_consistency"}
    expected |= {"masked_fraction", "teacher_momentum", "learning_rate", "step_seconds", "dice/test_mean_dice"}
    expected |= {"train_seconds", "peak_memory_mib"}
    assert run.data.metrics.keys() == expected
    client = mlflow.MlflowClient(uri)
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [point.step for point in history] == list(range(1, 9))
    assert [point.step for point in client.get_metric_history(run.info.run_id, "dice/test_mean_dice")] == [4, 8]

    trainer(epochs=1, train_handlers=[tracker(uri, folder, run_name="ignored", params={"seed": 4})]).run()
    later = evaluator()
    tracker(uri, folder, run_name="ignored").attach(later)
    later.run()
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "3"}


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED")]
)
def test_a_run_that_breaks_is_marked_and_keeps_its_values(
    uri: str, tmp_path: Path, error: BaseException, status: str
) -> None:
    engine = trainer(train_handlers=[tracker(uri, tmp_path / "models")])

    def fail() -> None:
        raise error

    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), fail)
    with pytest.raises(type(error)):
        engine.run()
    (run,) = runs(uri)
    assert run.info.status == status
    assert len(mlflow.MlflowClient(uri).get_metric_history(run.info.run_id, "train_loss")) == 2
    later = evaluator()
    tracker(uri, tmp_path / "models").attach(later)
    later.run()
    assert runs(uri)[0].info.status == status


def test_new_folders_make_new_runs_even_under_the_same_name(uri: str, tmp_path: Path) -> None:
    for folder in ("a", "b", "b"):
        trainer(train_handlers=[tracker(uri, tmp_path / folder, join=False)]).run()
    assert len(runs(uri)) == 3


def kill_before_a_checkpoint(uri: str, folder: Path, **kwargs: Any) -> None:
    """Leave what a process leaves behind that is killed in its third step."""
    handler = tracker(uri, folder, join=False, **kwargs)
    engine = trainer(train_handlers=[handler])

    def kill() -> None:
        handler.flush()
        assert handler.outbox is not None
        handler.outbox.close(10)
        handler.outbox = None
        raise RuntimeError("killed")

    engine.add_event_handler(Events.ITERATION_STARTED(once=3), kill)
    with pytest.raises(RuntimeError, match="killed"):
        engine.run()


def test_a_run_that_is_killed_before_its_first_checkpoint_begins_again_as_the_same_run(
    uri: str, tmp_path: Path
) -> None:
    same = {"params": {"seed": 0}, "tags": {"medcontext.data_hash": "abc"}}
    for _ in range(2):
        kill_before_a_checkpoint(uri, tmp_path, **same)
    assert [run.info.status for run in runs(uri)] == ["RUNNING"]
    first = points(uri, "train_loss")
    assert [step for step, _ in first] == [1, 2]
    trainer(train_handlers=[tracker(uri, tmp_path, join=False, **same)]).run()
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]
    assert points(uri, "train_loss")[:2] == first
    assert [step for step, _ in points(uri, "train_loss")] == [1, 2, 3, 4]
    assert "medcontext.resumed_at_step" not in runs(uri)[0].data.tags


@pytest.mark.parametrize("other", [{"params": {"seed": 1}}, {"tags": {"medcontext.data_hash": "def"}}])
def test_a_killed_run_with_other_settings_or_cases_is_ended(
    uri: str, tmp_path: Path, other: dict[str, dict[str, Any]]
) -> None:
    same = {"params": {"seed": 0}, "tags": {"medcontext.data_hash": "abc"}}
    kill_before_a_checkpoint(uri, tmp_path, **same)
    trainer(train_handlers=[tracker(uri, tmp_path, join=False, **{**same, **other})]).run()
    assert sorted(run.info.status for run in runs(uri)) == ["FINISHED", "KILLED"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.unlink(), r"the database \S*mlruns.db is gone"),
        (lambda file: sqlite3.connect(file).executescript("DROP TABLE metrics"), "no such table: metrics"),
    ],
    ids=["gone", "damaged"],
)
def test_a_database_that_fails_in_mid_training_is_reported_in_one_sentence(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Any, reason: str
) -> None:
    handler = tracker(uri, tmp_path / "models", wait=0)
    engine = trainer(epochs=3, train_handlers=[handler])

    def fail() -> None:
        assert handler.outbox is not None
        handler.outbox.settle(10)
        spoil(tmp_path / "mlruns.db")

    engine.add_event_handler(Events.EPOCH_COMPLETED(once=1), fail)
    engine.run()
    assert re.search(rf"MLflow is unreachable \({reason}\); records are kept and sent later.", caplog.text)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert list((tmp_path / "models").glob("mlflow_unsent_*.jsonl"))


def test_an_evaluation_of_foreign_weights_leaves_their_folder_alone(uri: str, tmp_path: Path) -> None:
    engine = evaluator()
    tracker(uri, tmp_path / "models").attach(engine)
    engine.run()
    assert not (tmp_path / "models").exists()
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]


def test_values_that_mlflow_does_not_take_are_kept(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handler = tracker(uri, tmp_path)
    engine = trainer(epochs=2, train_handlers=[handler])
    send, refused = handler.client.log_batch, []

    def refuse_once(run_id: str, **content: Any) -> None:
        if "metrics" in content and not refused:
            refused.append(len(content["metrics"]))
            raise MlflowException("the server is away")
        send(run_id, **content)

    monkeypatch.setattr(handler.client, "log_batch", refuse_once)
    engine.run()
    assert "the server is away" in caplog.text
    assert len(points(uri, "train_loss")) == 8


def points(uri: str, name: str) -> list[tuple[int, float]]:
    client = mlflow.MlflowClient(uri)
    return [(point.step, point.value) for point in client.get_metric_history(runs(uri)[0].info.run_id, name)]


def test_steps_that_are_trained_again_keep_their_first_values(uri: str, tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("x")

    def checkpointed(epochs: int, **kwargs: Any) -> Any:
        handlers = [tracker(uri, tmp_path, **kwargs), TrainingCheckpoint(str(tmp_path))]
        if (tmp_path / "last.pt").exists():
            handlers.insert(0, ResumeTraining(str(tmp_path / "last.pt")))
        return trainer(epochs=epochs, train_handlers=handlers)

    cut = checkpointed(2, tags={"medcontext.steps": 8}, params={"max_epochs": 2, "seed": 0})
    cut.add_event_handler(Events.ITERATION_STARTED(once=7), fail)
    with pytest.raises(RuntimeError, match="x"):
        cut.run()
    first = points(uri, "train_loss")
    assert [step for step, _ in first] == [1, 2, 3, 4, 5, 6]
    spent = [value for _, value in points(uri, "train_seconds")]
    assert len(spent) == 2  # at the end of the first epoch, and when the second was cut

    checkpointed(3, tags={"medcontext.steps": 12}, params={"max_epochs": 3, "seed": 0, "new": 1}).run()
    losses = points(uri, "train_loss")
    assert losses[:6] == first
    assert [step for step, _ in losses] == list(range(1, 13))
    assert [step for step, _ in points(uri, "train_seconds")] == [4, 6, 8, 12]
    (run,) = runs(uri)
    assert run.data.metrics["train_seconds"] > spent[-1]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"max_epochs": "2", "seed": "0", "new": "1"}
    tags = {name: value for name, value in run.data.tags.items() if name.startswith(("medcontext.", "resumed."))}
    assert tags.pop("medcontext.command")
    assert tags == {"medcontext.steps": "12", "medcontext.resumed_at_step": "4", "resumed.max_epochs": "3"}


def test_processor_time_is_that_of_the_history(uri: str, tmp_path: Path) -> None:
    history = TrainingHistory(tmp_path / "history.csv")
    trainer(epochs=2, train_handlers=[history, tracker(uri, tmp_path)]).run()
    logged = points(uri, "train_processor_seconds")
    assert [step for step, _ in logged] == [4, 8]
    assert [seconds for _, seconds in logged] == [row["train_processor_seconds"] for row in history.rows]


def test_an_error_before_the_first_step_leaves_no_run_behind_that_seems_to_run(uri: str, tmp_path: Path) -> None:
    engine = trainer(train_handlers=[tracker(uri, tmp_path)])

    def fail() -> None:
        raise RuntimeError("no memory")

    engine.add_event_handler(Events.STARTED, fail)
    with pytest.raises(RuntimeError, match="no memory"):
        engine.run()
    (run,) = runs(uri)
    assert run.info.status == "FAILED"
    assert run.data.metrics == {}


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED")]
)
@pytest.mark.parametrize("joins", [False, True])
def test_an_evaluation_that_breaks(uri: str, tmp_path: Path, error: BaseException, status: str, joins: bool) -> None:
    if joins:
        trainer(train_handlers=[tracker(uri, tmp_path)]).run()
    engine = evaluator()
    tracker(uri, tmp_path).attach(engine)

    def fail() -> None:
        raise error

    engine.add_event_handler(Events.EPOCH_STARTED, fail)
    with pytest.raises(type(error)):
        engine.run()
    assert [run.info.status for run in runs(uri)] == ["FINISHED" if joins else status]


def test_parameters_are_logged_before_another_handler_logs_the_same(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_batch = mlflow.MlflowClient.log_batch

    def slow(client: mlflow.MlflowClient, run_id: str, **what: Any) -> None:
        time.sleep(0.2)
        log_batch(client, run_id, **what)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", slow)
    seen = []
    engine = trainer(train_handlers=[tracker(uri, tmp_path / "models", params={"max_epochs": 1})])
    engine.add_event_handler(Events.STARTED, lambda: seen.append(runs(uri)[0].data.params))
    engine.run()
    assert seen == [{"max_epochs": "1"}]


def test_configs_are_there_when_training_starts_and_figures_when_they_are_drawn(uri: str, tmp_path: Path) -> None:
    config = tmp_path / "train_config.json"
    config.write_text("{}")
    client, seen = mlflow.MlflowClient(uri), []

    def artifacts(folder: str | None = None) -> list[str]:
        return [item.path for item in client.list_artifacts(runs(uri)[0].info.run_id, folder)]

    def look(engine: Any) -> None:
        if engine.state.iteration == 5:
            until(lambda: "train_config.json" in artifacts())
            until(lambda: artifacts("previews") == ["previews/epoch_0001.png"])
            seen.append(engine.state.epoch)

    def draw(engine: Any) -> None:
        (tmp_path / "previews").mkdir(exist_ok=True)
        (tmp_path / "previews" / f"epoch_{engine.state.epoch:04}.png").write_bytes(b"png")

    keys = {"configs": [str(config), str(tmp_path / "none.json")], "figures": str(tmp_path / "previews")}
    engine = trainer(epochs=2)
    engine.add_event_handler(Events.EPOCH_COMPLETED, draw)
    engine.add_event_handler(Events.ITERATION_STARTED, look)
    tracker(uri, tmp_path / "models", **keys).attach(engine)
    engine.run()
    assert seen == [2]
    assert artifacts("previews") == ["previews/epoch_0001.png", "previews/epoch_0002.png"]


def test_the_load_of_the_machine(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for _ in range(2):
        engine = trainer(train_handlers=[tracker(uri, tmp_path, system_metrics=True)])
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: time.sleep(0.2))
        engine.run()
    metrics = runs(uri)[0].data.metrics
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= metrics.keys()
    assert 0 < metrics["system/system_memory_usage_percentage"] <= 100
    numbers = [step for step, _ in points(uri, "system/cpu_utilization_percentage")]
    assert numbers == list(range(len(numbers)))  # the second counts on
    assert len(numbers) >= 4
    assert not [thread for thread in threading.enumerate() if thread.name in ("SystemMetricsMonitor", "mlflow outbox")]
    assert not list((tmp_path / "elsewhere").iterdir())  # MLflow's default database, say


def test_a_machine_whose_load_cannot_be_sampled(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("psutil.net_io_counters", lambda: None)
    trainer(train_handlers=[tracker(uri, tmp_path, system_metrics=True)]).run()
    assert "The machine's load cannot be sampled" in caplog.text
    assert runs(uri)[0].info.status == "FINISHED"


def test_where_a_run_comes_from(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", ["python", "train.py", "--tracking_uri", "http://me:secret@host:5000/x y"])
    trainer(train_handlers=[tracker(uri, tmp_path, tags={}, params={"labels.left (kidney)": "v" * 7000})]).run()
    (run,) = runs(uri)
    assert run.data.params == {"labels.left _kidney_": "v" * 6000}
    tags = run.data.tags
    assert tags["medcontext.command"] == "python train.py --tracking_uri 'http://host:5000/x y'"
    assert tags["version.torch"] == torch.__version__
    assert {"mlflow.user", "mlflow.source.name", "version.python", "version.monai", "version.mlflow"} <= tags.keys()


def test_a_run_of_another_database_is_not_joined(uri: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "run.json").write_text(json.dumps({"mlflow_run_id": "f" * 32, "run_name": "elsewhere"}))
    engine = evaluator()
    tracker(uri, tmp_path / "models").attach(engine)
    engine.run()
    assert [run.info.run_name for run in runs(uri)] == ["one"]
    assert json.loads((tmp_path / "models" / "run.json").read_text())["run_name"] == "elsewhere"


@pytest.mark.parametrize(
    ("tags", "joined"),
    [({}, False), ({"medcontext.weights": "ab"}, True), ({"medcontext.weights": "cd"}, False), (MODE, True)],
)
def test_a_run_file_may_name_a_run_that_did_not_train_the_weights(
    uri: str, tmp_path: Path, tags: dict[str, str], joined: bool
) -> None:
    client = mlflow.MlflowClient(uri)
    other = client.create_run(client.create_experiment("tests"), run_name="other", tags=tags)
    (tmp_path / "run.json").write_text(json.dumps({"mlflow_run_id": other.info.run_id, "run_name": "elsewhere"}))
    (tmp_path / "model.json").write_text(json.dumps({"sha256": {"model.pt": "ab"}}))
    engine = evaluator()
    tracker(uri, tmp_path).attach(engine)
    engine.run()
    assert len(runs(uri)) == (1 if joined else 2)
    assert bool(client.get_run(other.info.run_id).data.metrics) == joined


def test_a_finished_training_run_tells_its_weights(uri: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"sha256": {"model.pt": "ab"}}))
    trainer(train_handlers=[tracker(uri, tmp_path)]).run()
    assert [run.data.tags["medcontext.weights"] for run in runs(uri)] == ["ab"]


def test_a_negative_wait() -> None:
    with pytest.raises(ValueError, match="tracking_wait must be 0 or more seconds, got -1"):
        tracker("sqlite://", Path(), wait=-1)


def test_a_damaged_run_file_stops_nothing(uri: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    trainer(train_handlers=[tracker(uri, tmp_path)]).run()
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]
    assert json.loads((tmp_path / "run.json").read_text())["run_name"] == "one"


def test_cases_are_the_inputs_of_the_run(uri: str, tmp_path: Path) -> None:
    cases = {"training": {"hash": "abc", "cases": ["a", "b"]}, "validation": {"hash": "def", "cases": ["c"]}}
    trainer(train_handlers=[tracker(uri, tmp_path, dataset="btcv", cases=cases)]).run()
    trainer(train_handlers=[tracker(uri, tmp_path, dataset="btcv", cases=cases)]).run()  # resumed
    engine = evaluator()
    tracker(uri, tmp_path, dataset="btcv", cases={"test": {"hash": "ghi", "cases": ["d"]}}).attach(engine)
    engine.run()
    (run,) = runs(uri)
    inputs = {found.tags[0].value: found.dataset for found in run.inputs.dataset_inputs}
    assert len(run.inputs.dataset_inputs) == 3
    assert {section: data.digest for section, data in inputs.items()} == {
        "training": "abc",
        "validation": "def",
        "test": "ghi",
    }
    assert {data.name for data in inputs.values()} == {"btcv"}
    folder = Path(mlflow.MlflowClient(uri).download_artifacts(run.info.run_id, "cases"))
    assert json.loads((folder / "training.json").read_text()) == cases["training"]
    assert {path.name for path in folder.iterdir()} == {"training.json", "validation.json", "test.json"}


def test_files_are_uploaded(uri: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "metrics.csv").write_text("case,dice\n")
    engine = evaluator()
    tracker(uri, tmp_path / "models", artifacts=str(tmp_path / "evaluation")).attach(engine)
    engine.run()
    client = mlflow.MlflowClient(uri)
    assert [item.path for item in client.list_artifacts(runs(uri)[0].info.run_id, "evaluation")] == [
        "evaluation/metrics.csv"
    ]


def test_the_experiment_and_its_runs_say_what_they_are(uri: str, tmp_path: Path) -> None:
    cases = {"training": {"hash": "abc", "cases": ["a", "b"]}}
    trainer(train_handlers=[tracker(uri, tmp_path / "models", cases=cases)]).run()
    engine = evaluator()
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "report.html").touch()
    tested = {"test": {"hash": "def", "cases": ["c"]}}
    tracker(uri, tmp_path / "models", cases=tested, artifacts=str(tmp_path / "evaluation")).attach(engine)
    engine.run()
    (run,) = runs(uri)
    assert run.data.tags["mlflow.note.content"] == (
        "**Network**, mode `medcontext` (2 training, 1 test cases).\n\nMean Dice: test 0.500.\n\n"
        f"Report: `evaluation/report.html` under Artifacts, and `{tmp_path}/evaluation`."
    )
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    client.set_tag(run.info.run_id, "mlflow.note.content", "my own words")
    client.set_experiment_tag(experiment.experiment_id, "mlflow.experimentKind", "regression")
    trainer(epochs=2, train_handlers=[tracker(uri, tmp_path / "models")]).run()
    assert [run.data.tags["mlflow.note.content"] for run in runs(uri)] == ["my own words"]
    assert client.get_experiment_by_name("tests").tags["mlflow.experimentKind"] == "regression"
