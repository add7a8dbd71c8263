from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from bundle_runs import ROOT, UNETR
from medcontext.tracking import models as mlflow_model
from medcontext.tracking.models import log_model, model_requirements, save_model
from medcontext.tracking.pyfunc_model import SegmentationModel

BUNDLE = str(ROOT / "bundles" / UNETR)


LABELS = {"liver": 1, "kidneys": 2}
SETTINGS = {
    "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 3, "kernel_size": 1},
    "out_channels": 3,
    "labels": LABELS,
    "spacing": [4.0, 4.0, 4.0],
    "roi_size": [16, 16, 16],
}


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """Those of a network that finds what is brighter than 37.5 HU, 0.5 after scaling."""
    state = {"weight": torch.tensor([0.0, 100, 0]).view(3, 1, 1, 1, 1), "bias": torch.tensor([0.0, -50, -100])}
    torch.save(state, tmp_path / "model.pt")
    (tmp_path / "model.json").write_text(json.dumps({"settings": SETTINGS}))
    return str(tmp_path / "model.pt")


def test_a_second_attempt_continues_with_the_first_ones_model(
    uri: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    operation = {"bundle_root": BUNDLE, "weights": weights}
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
        save_model(tmp_path / "model", bundle_root=BUNDLE, weights="absent.pt")


def test_weights_that_say_nothing_of_their_labels_are_no_model(tmp_path: Path, weights: str) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"weights": "student", "epoch": 3}))
    with pytest.raises(ValueError, match="model.json beside .*model.pt does not name its labels; train again"):
        save_model(tmp_path / "model", bundle_root=BUNDLE, weights=weights)


def test_requirements_are_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    expected = {f"{name}=={version(name)}" for name in ("monai", "nibabel", "pydicom", "highdicom")}
    expected.add("torch==2.13.0")
    monkeypatch.setattr(
        mlflow_model.importlib.metadata, "version", lambda n: "2.13.0+cpu" if n == "torch" else version(n)
    )
    found = model_requirements(BUNDLE)
    assert expected <= set(found)
    assert not any(line.startswith(("pytest", "ruff")) for line in found)

    def not_installed(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(mlflow_model.importlib.metadata, "requires", not_installed)
    assert expected <= set(model_requirements(BUNDLE))
    monkeypatch.setattr(
        mlflow_model.importlib.metadata,
        "version",
        lambda name: not_installed(name) if "dicom" in name else version(name),
    )
    assert not any("dicom" in line for line in model_requirements(BUNDLE))


@pytest.fixture
def model(tmp_path: Path, weights: str) -> SegmentationModel:
    save_model(tmp_path / "saved", bundle_root=BUNDLE, weights=weights)
    artifacts = tmp_path / "saved" / "artifacts"
    model = SegmentationModel()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(artifacts / UNETR)}))
    return model


def write_scan(path: Path, voxels: int) -> Path:
    """16 × 16 × 16 voxels of 4 mm, some of them bright."""
    image = np.full((16, 16, 16), -150, np.int16)
    image.reshape(-1)[:voxels] = 200
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(image, np.diag([-4, -4, 4, 1])), path)
    return path


@pytest.mark.usefixtures("model")
def test_the_whole_package_is_in_the_model(tmp_path: Path) -> None:
    code = tmp_path / "saved" / "code" / "medcontext"
    assert (code / "tracking" / "pyfunc_model.py").is_file()
    assert (code / "storage" / "files.py").is_file()


def test_files_that_share_a_name_keep_their_folders(model: SegmentationModel, tmp_path: Path) -> None:
    scans = {"a/ct.nii.gz": 1000, "b/ct.nii.gz": 0, "b/mr.nii": 500}
    images = [str(write_scan(tmp_path / name, voxels)) for name, voxels in scans.items()]
    table = model.predict(None, pd.DataFrame(images), {"output_dir": str(tmp_path / "out")})
    assert list(table.columns) == ["image", "prediction", "liver_ml", "kidneys_ml"]
    assert list(table["image"]) == images
    names = ["a_ct_seg.nii.gz", "b_ct_seg.nii.gz", "b_mr_seg.nii.gz"]
    assert list(table["prediction"]) == [str(tmp_path / "out" / name) for name in names]
    assert list(table["liver_ml"]) == pytest.approx([64.0, 0.0, 32.0])  # 0.064 ml a voxel
    assert list(table["kidneys_ml"]) == [0, 0, 0]
    found = [np.count_nonzero(nib.load(path).dataobj) for path in table["prediction"]]
    assert found == list(scans.values())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["a/ct.nii.gz", "absent.nii.gz"], "There is nothing to predict at .*absent.nii.gz"),
        (["a/ct.nii.gz", "a/ct.nii"], "holds several images called ct, whose predictions would be one file"),
        ([], "There is nothing to predict in an empty list"),
    ],
)
def test_a_server_says_what_cannot_be_predicted(
    model: SegmentationModel, tmp_path: Path, images: list[str], message: str
) -> None:
    for name in ("ct.nii.gz", "ct.nii"):
        write_scan(tmp_path / "a" / name, 1)
    table = pd.DataFrame({"image": [str(tmp_path / image) for image in images]})
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(None, table, {"output_dir": str(tmp_path / "out")})
    assert caught.value.get_http_status_code() == 400
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["$open('ran', 'w')", "@labels", "%labels", "a#b"])
def test_a_request_is_never_an_expression(
    model: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    scan = write_scan(tmp_path / name / "ct.nii.gz", 1000)
    table = model.predict(None, pd.DataFrame([f"{name}/ct.nii.gz"]), {"output_dir": f"{name}/out"})
    assert list(table["image"]) == [str(scan)]
    assert np.count_nonzero(nib.load(tmp_path / name / "out" / "ct_seg.nii.gz").dataobj) == 1000
    assert [path.name for path in tmp_path.iterdir() if path.name == "ran"] == []


def test_a_server_replaces_predictions_of_the_same_image_only(model: SegmentationModel, tmp_path: Path) -> None:
    first, second = (str(write_scan(tmp_path / name / "ct.nii.gz", 1000)) for name in "ab")
    where = {"output_dir": str(tmp_path / "out")}
    for _ in range(2):
        model.predict(None, pd.DataFrame([first]), where)
    with pytest.raises(MlflowException, match=r"ct.json is not of .*b/ct.nii.gz, .*\(an MLflow model's output_dir\)"):
        model.predict(None, pd.DataFrame([second]), where)
    assert json.loads((tmp_path / "out" / "ct.json").read_text())["image"] == first


def test_a_server_names_a_damaged_file(model: SegmentationModel, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "ct.nii.gz", 1000)
    scan.write_bytes(scan.read_bytes()[:-40])
    with pytest.raises(MlflowException, match=r"ct.nii.gz cannot be read \(.+\); repair it or leave it out"):
        model.predict(None, pd.DataFrame([str(scan)]), {"output_dir": str(tmp_path / "out")})
