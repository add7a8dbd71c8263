from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from torch import nn

from folds import NAME, changed_json, write_dataset, write_experiment
from medcontext.comparison.runs import read_runs
from medcontext.experiment import CrossValidation, final_model, make_final_model, read_cross_validation
from medcontext.experiment.planning import Job
from medcontext.handlers import ModelCheckpoint
from medcontext.networks import CheckpointEnsemble, load_networks
from medcontext.networks.model_file import weights_hash
from medcontext.report import selected_weights
from medcontext.tracking.identity import read_identity

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def experiment(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a cross-validation, whose configuration says where they are."""
    datalist = write_dataset(tmp_path / "data")
    values: dict[str, Any] = {
        **{"home": str(tmp_path), "bundle": "unetr", "bundle_root": "bundles/unetr", "dataset": "data"},
        **{"datalist": str(datalist), "tracking_uri": uri, "experiment_name": "mine", "log_case_names": False},
    }
    parser = SimpleNamespace(get_parsed_content=values.__getitem__)
    monkeypatch.setattr(final_model, "checked_configuration", lambda files, overrides: parser)
    return write_experiment(tmp_path, datalist)


def test_the_ensemble_of_the_folds(experiment: Path, uri: str) -> None:
    ckpt_dir = make_final_model(read_cross_validation(experiment), "ensemble", experiment)
    assert ckpt_dir == experiment.parents[1] / "unetr" / f"{NAME}-ensemble" / "models"
    ensemble = load_networks(nn.Conv3d(1, 2, 1), ckpt_dir / "model.pt")
    assert isinstance(ensemble, CheckpointEnsemble)
    assert [member.weight.mean().item() for member in ensemble.members()] == [0, 1, 2]
    info = json.loads((ckpt_dir / "model.json").read_text())
    assert [member["run"][-8:] for member in info["members"]] == ["fold0of3", "fold1of3", "fold2of3"]
    assert info["postprocessing"]["largest_components"] == ["liver"]
    assert info["cross_validation"]["mean_dice"] == pytest.approx(0.75)
    assert info["dataset"] == "data"

    report = ckpt_dir.parent / "cross_validation"
    assert "case3" in (report / "report.html").read_text()
    assert "case3" not in (report / "anonymous" / "report.html").read_text()
    assert json.loads((report / "summary.json").read_text())["cases"] == 6
    run = MlflowClient(uri).get_run(read_identity(ckpt_dir)["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["cv_mean_dice"] == run.data.metrics["cv_dice_liver"] == pytest.approx(0.75)
    assert run.data.tags["medcontext.kind"] == "final_model"
    files = {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id, "cross_validation")}
    assert "cross_validation/metrics.csv" in files

    make_final_model(read_cross_validation(experiment), "ensemble", experiment)  # in the same run
    assert len(MlflowClient(uri).search_runs([run.info.experiment_id])) == 1
    assert read_runs(MlflowClient(uri), run.info.experiment_id) == []  # none that could be compared
    assert selected_weights(ckpt_dir / "model.pt") == "ensemble of 3 networks"


def test_a_call_that_was_killed_between_its_two_files(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The description is there, and the weights are still those of the call before."""
    found = read_cross_validation(experiment)
    ckpt_dir = make_final_model(found, "ensemble", experiment)
    for path in found.ckpt_paths:
        state = {"weight": torch.full((2, 1, 1, 1, 1), 7.0), "bias": torch.zeros(2)}
        torch.save(state, path)
        changed_json(path.with_name("model.json"), partial(dict.update, sha256={"model.pt": weights_hash(state)}))
    monkeypatch.setattr(CrossValidation, "check", lambda *_: None)
    monkeypatch.setattr(final_model, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        make_final_model(found, "ensemble", experiment)
    assert first_weight(ckpt_dir) == 0


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def first_weight(ckpt_dir: Path) -> float:
    ensemble = load_networks(nn.Conv3d(1, 2, 1), ckpt_dir / "model.pt")
    assert isinstance(ensemble, CheckpointEnsemble)
    return ensemble.states[0]["weight"].mean().item()


def test_weights_that_are_not_those_that_were_trained(experiment: Path) -> None:
    found = read_cross_validation(experiment)
    changed_json(
        found.ckpt_paths[1].with_name("model.json"), lambda content: content.update(sha256={"model.pt": "other"})
    )
    with pytest.raises(ValueError, match=r"fold1of3/models/model\.pt are not those that model\.json beside it"):
        make_final_model(found, "ensemble", experiment)
    assert not list(experiment.parents[1].glob("unetr/*ensemble"))


def test_one_network_trains_on_all_cases_for_the_budget(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    jobs: list[Job] = []

    def trained(all_jobs: Sequence[Job], folder: Path, devices: Sequence[str | int]) -> list[str]:
        (job,) = all_jobs
        jobs.append(job)
        assert (folder, devices) == (experiment, ("cpu",))
        run_id = MlflowClient(uri).create_run("0").info.run_id
        checkpoint = ModelCheckpoint(str(job.run_dir / "models"), nn.Conv3d(1, 2, 1), settings={"labels": {"liver": 1}})
        checkpoint.save(SimpleNamespace(state=SimpleNamespace(rank=0, epoch=20)), "student", {})
        (job.run_dir / "models" / "run.json").write_text(json.dumps({"run_name": job.name, "mlflow_run_id": run_id}))
        return []

    monkeypatch.setattr(final_model, "run_cells", trained)
    ckpt_dir = make_final_model(read_cross_validation(experiment), "retrain", experiment, ("cpu",))
    (job,) = jobs
    assert job.evaluating == {}
    assert job.name == f"{NAME}-retrain" == job.training["run_name"]
    assert job.training["max_epochs"] == 20
    assert job.training["select_checkpoint"] == "student_last"
    assert job.training["validation_cases"] == 0
    assert job.training["early_stopping"] is None
    assert not {"fold", "num_folds"} & job.training.keys()
    content = json.loads(Path(job.training["datalist"]).read_text())
    assert (len(content["training"]), len(content["validation"]), len(content["test"])) == (6, 0, 1)
    info = json.loads((ckpt_dir / "model.json").read_text())
    assert info["epoch"] == 20
    assert info["postprocessing"]["largest_components"] == ["liver"]
    run = MlflowClient(uri).get_run(read_identity(ckpt_dir)["mlflow_run_id"])
    assert run.data.metrics["cv_mean_dice"] == pytest.approx(0.75)
    assert "medcontext.kind" not in run.data.tags  # it was trained, so it can be compared
    assert "20 epochs on all cases" in (ckpt_dir.parent / "cross_validation" / "report.html").read_text()


def test_a_training_run_that_fails(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final_model, "run_cells", lambda *_: ["mine: training ended with 1, see log"])
    with pytest.raises(SystemExit, match="medcontext: mine: training ended with 1, see log"):
        make_final_model(read_cross_validation(experiment), "retrain", experiment)


def test_unknown_methods(experiment: Path) -> None:
    with pytest.raises(ValueError, match="method must be one of 'ensemble', 'retrain', got 'retrained'"):
        make_final_model(read_cross_validation(experiment), "retrained", experiment)
