from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from ignite.engine import Events
from mlflow.exceptions import MlflowException
from monai.engines import Evaluator
from monai.utils import path_to_sqlite_uri

from medcontext.handlers import MLflowTracker, TeacherUpdate
from tiny import trainer


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return path_to_sqlite_uri(str(tmp_path / "mlruns.db"))


def tracker(uri: str, folder: Path, **kwargs: Any) -> MLflowTracker:
    arguments = {"experiment_name": "tests", "run_name": "one", "tags": {"medcontext.mode": "medcontext"}}
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
    engine = trainer(epochs=2, train_handlers=handlers)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: validator.run(e.state.epoch))
    engine.run()
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "one"
    assert run.data.params == {"seed": "3"}
    assert run.data.tags["medcontext.mode"] == "medcontext"
    expected = {"train_loss", "train_loss_supervised", "train_loss_context", "train_loss_consistency"}
    expected |= {"masked_fraction", "teacher_momentum", "learning_rate", "step_seconds", "test_mean_dice"}
    expected |= {"train_seconds", "peak_memory_mib"}
    assert run.data.metrics.keys() == expected
    client = mlflow.MlflowClient(uri)
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [point.step for point in history] == list(range(1, 9))
    assert [point.step for point in client.get_metric_history(run.info.run_id, "test_mean_dice")] == [4, 8]

    trainer(epochs=1, train_handlers=[tracker(uri, folder, run_name="ignored", params={"seed": 4})]).run()
    later = evaluator()
    tracker(uri, folder, run_name="ignored").attach(later)
    later.run()
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "3"}


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
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


def test_a_failed_evaluation_leaves_a_finished_training_finished(uri: str, tmp_path: Path) -> None:
    trainer(train_handlers=[tracker(uri, tmp_path)]).run()
    engine = evaluator()
    tracker(uri, tmp_path).attach(engine)

    def fail() -> None:
        raise RuntimeError("cannot read the case")

    engine.add_event_handler(Events.ITERATION_STARTED, fail)
    with pytest.raises(RuntimeError, match="cannot read the case"):
        engine.run()
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]


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
    assert len(mlflow.MlflowClient(uri).get_metric_history(runs(uri)[0].info.run_id, "train_loss")) == 8


def test_a_run_of_another_database_is_not_joined(uri: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mlflow_run.json").write_text(json.dumps({"run_id": "f" * 32, "run_name": "elsewhere"}))
    engine = evaluator()
    tracker(uri, tmp_path / "models").attach(engine)
    engine.run()
    assert [run.info.run_name for run in runs(uri)] == ["one"]
    assert json.loads((tmp_path / "models" / "mlflow_run.json").read_text())["run_name"] == "elsewhere"


def test_a_damaged_run_file_stops_nothing(uri: str, tmp_path: Path) -> None:
    (tmp_path / "mlflow_run.json").write_text("{")
    trainer(train_handlers=[tracker(uri, tmp_path)]).run()
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]
    assert json.loads((tmp_path / "mlflow_run.json").read_text())["run_name"] == "one"


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
