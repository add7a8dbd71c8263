from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from bundle_runs import ROOT, UNETR
from medcontext.handlers import mlflow_model
from medcontext.handlers.mlflow_model import log_model, model_requirements, save_model
from medcontext.pyfunc_model import SegmentationModel

BUNDLE = str(ROOT / "bundles" / UNETR)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.save({}, tmp_path / "model.pt")
    return str(tmp_path / "model.pt")


def test_a_second_attempt_goes_on_with_the_first_ones_model(
    uri: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    operation = {"bundle_root": BUNDLE, "settings": {}, "labels": {"liver": 1}, "weights": weights}
    operation |= {"registered_model_name": "mine"}
    upload = client.log_model_artifacts

    def fail(*args: Any) -> None:
        raise MlflowException("the server went away")

    monkeypatch.setattr(client, "log_model_artifacts", fail)
    with pytest.raises(MlflowException, match="the server went away"):
        log_model(client, run_id, operation)
    monkeypatch.setattr(client, "log_model_artifacts", upload)
    for _ in range(2):
        log_model(client, run_id, json.loads(json.dumps(operation)))  # as a file keeps it
    (model,) = client.search_logged_models(["0"])
    assert (model.model_id, model.source_run_id, str(model.status)) == (operation["model_id"], run_id, "READY")
    (version,) = client.search_model_versions("name='mine'")
    assert (version.run_id, version.source) == (run_id, model.artifact_location)
    assert [output.model_id for output in client.get_run(run_id).outputs.model_outputs] == [model.model_id]


def test_without_weights_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There are no weights .*absent.pt to log as a model"):
        save_model(tmp_path / "model", bundle_root=BUNDLE, settings={}, labels={"a": 1}, weights="absent.pt")


def test_requirements_are_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "monai", "nibabel")}
    expected = {f"{name}=={version}" for name, version in versions.items()}
    found = model_requirements(BUNDLE)
    assert expected <= set(found)
    assert not any(line.startswith(("pytest", "ruff")) for line in found)

    def not_installed(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(mlflow_model.importlib.metadata, "requires", not_installed)
    assert expected <= set(model_requirements(BUNDLE))


@pytest.fixture
def model(tmp_path: Path) -> SegmentationModel:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "labels.json").write_text('{"liver": 1}')
    model = SegmentationModel()
    artifacts = {"bundle": str(tmp_path / "bundle"), "weights": "model.pt"}
    model.load_context(SimpleNamespace(artifacts=artifacts))
    return model


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (["a/ct.nii.gz", "absent.nii.gz"], FileNotFoundError, "There is no image .*absent.nii.gz"),
        (["a/ct.nii.gz", "a/ct.nii.gz"], ValueError, "Two images have the same name and folder name"),
    ],
)
def test_images_that_cannot_be_predicted(
    model: SegmentationModel, tmp_path: Path, images: list[str], error: type[Exception], message: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ct.nii.gz").touch()
    table = pd.DataFrame({"image": [str(tmp_path / image) for image in images]})
    with pytest.raises(error, match=message):
        model.predict(None, table, {"output_dir": str(tmp_path / "out")})


def test_files_that_share_a_name_keep_their_folders(
    model: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [tmp_path / name for name in ("a/ct.nii.gz", "b/ct.nii.gz", "b/mr.nii")]
    for image in images:
        image.parent.mkdir(exist_ok=True)
        image.touch()
    written: list[tuple[Path, Path]] = []
    monkeypatch.setattr(model, "_segment", lambda image, target: written.append((image, target)))
    monkeypatch.setattr(model, "_volumes", lambda path: {"liver_ml": 1.5})
    table = model.predict(None, pd.DataFrame([str(image) for image in images]), {"output_dir": str(tmp_path / "out")})
    names = ["a_ct_seg.nii.gz", "b_ct_seg.nii.gz", "mr_seg.nii.gz"]
    assert written == [(image, tmp_path / "out" / name) for image, name in zip(images, names, strict=True)]
    assert list(table.columns) == ["image", "prediction", "liver_ml"]
    assert list(table["prediction"]) == [str(tmp_path / "out" / name) for name in names]
