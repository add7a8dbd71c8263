"""Bundles and MLflow: over HTTP, without a server, killed, and as a model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.utils import path_to_sqlite_uri

from bundle_runs import ROOT, UNETR, config_files, for_bundles, overrides_for, read_json, run, runs_of, train
from forks import forked_module
from mlflow_server import Door, free_port
from platforms import posix_only

LOAD = """
import json, sys
import mlflow
import pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
table = model.predict(sys.argv[2], params={"output_dir": sys.argv[3]})
for same in ([sys.argv[2]], pd.DataFrame({"image": [sys.argv[2]]})):
    pd.testing.assert_frame_equal(model.predict(same, params={"output_dir": sys.argv[3]}), table)
import medcontext
print(json.dumps({"code": medcontext.__file__, "table": table.to_dict("records")}))
"""


def the_run(home: Path) -> Any:
    (found,) = runs_of(home)
    return found


@pytest.mark.slow  # the documents' tests serve a model
@for_bundles(UNETR)
def test_a_model_that_mlflow_loads_elsewhere(
    bundle: str,
    home: Path,
    mlflow_server: Door,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trained over HTTP, registered, and loaded by a process that knows no repository: it predicts as the bundle."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    folder = train(bundle, home, max_epochs=1, log_model=True, registered_model_name=bundle)
    client = mlflow.MlflowClient(mlflow_server.uri)
    (version,) = client.search_model_versions(f"name='{bundle}'")
    assert version.run_id == read_json(folder / "models" / "run.json")["mlflow_run_id"]

    case = read_json(home / "data" / "btcv" / "dataset.json")["test"][0]["image"]
    image = home / "data" / "btcv" / case
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    environment.pop("MEDCONTEXT_HOME")
    words = [sys.executable, "-c", LOAD, f"models:/{bundle}/1", str(image), "labels"]
    result = subprocess.run(words, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert not Path(found["code"]).is_relative_to(ROOT)  # the package that came with the model
    (row,) = found["table"]
    assert Path(row["prediction"]).parent == Path("labels")
    predicted = nib.load(elsewhere / row["prediction"])

    run(bundle, "inferring", "inference", ckpt_dir=str(folder / "models"), dataset_dir=str(image))
    (written,) = (folder / "predictions").glob("*_seg.nii.gz")
    expected = nib.load(written)
    np.testing.assert_array_equal(np.asarray(predicted.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(predicted.affine, expected.affine)
    volume = np.prod(expected.header.get_zooms()) / 1000
    assert row["liver_ml"] == pytest.approx(float((np.asarray(expected.dataobj) == 6).sum() * volume))

    model = Path(mlflow.artifacts.download_artifacts(f"models:/{bundle}/1", tracking_uri=mlflow_server.uri))
    assert not [path for path in model.rglob("*") if path.suffix in (".pkl", ".pickle", ".pyc")]
    signature = mlflow.models.get_model_info(str(model)).signature
    assert signature.outputs.input_names()[:3] == ["image", "prediction", "spleen_ml"]
    assert any(line.startswith("monai==") for line in (model / "requirements.txt").read_text().splitlines())


def test_a_model_that_is_not_logged_cannot_be_registered(home: Path) -> None:
    with pytest.raises(SystemExit, match="medcontext: registered_model_name 'mine' needs log_model true"):
        train(UNETR, home, registered_model_name="mine")


@pytest.mark.parametrize("entry", ["training", "evaluating"])
def test_a_dead_server_is_reported_before_anything_is_done(
    home: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    names = ["train"] if entry == "training" else ["train", "evaluate"]
    keys = {"run_name": "one"} if entry == "training" else {"ckpt_dir": str(home / "models")}
    started = time.monotonic()
    with pytest.raises(SystemExit, match=r"medcontext: MLflow at http://127.0.0.1:\d+ cannot be used \(.*refused\)"):
        run(UNETR, entry, *names, tracking_uri=f"http://me:secret@127.0.0.1:{free_port()}", **keys)
    assert time.monotonic() - started < 20
    assert not (home / "runs").exists()


def test_passwords_stay_out_of_what_is_uploaded(home: Path, mlflow_server: Door) -> None:
    address = mlflow_server.uri.replace("://", "://me:secret@")
    folder = train(UNETR, home, max_epochs=1, tracking_uri=address)
    assert read_json(folder / "train_config.json")["tracking_uri"] == mlflow_server.uri
    run_id = read_json(folder / "models" / "run.json")["mlflow_run_id"]
    found = mlflow.MlflowClient(mlflow_server.uri).get_run(run_id).data
    assert "secret" not in json.dumps([found.tags, found.params])


def test_configuration_is_logged_flat(home: Path) -> None:
    train(UNETR, home, max_epochs=1)
    found = the_run(home)
    assert found.data.params["organ_dropout.cell_size"] == "8"
    assert found.data.params["roi_size"] == "[32, 32, 32]"
    assert found.data.params["seed"] == "0"
    assert found.data.params["labels.liver"] == "6"
    assert not {"tracking_uri", "tracking_wait", "resume"} & found.data.params.keys()


@posix_only
@pytest.mark.xdist_group("forks")
@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        ("SIGTERM", 143, "KILLED"),
        ("SIGKILL", -9, "RUNNING"),
        pytest.param("SIGINT", 130, "KILLED", marks=pytest.mark.slow),
    ],
)
def test_a_training_run_that_is_killed_and_resumed(home: Path, number: str, code: int, status: str) -> None:
    """Whatever ends it, the run is resumed where it was, with every step once."""
    words = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", *config_files(UNETR, "train")]
    for key, value in overrides_for(UNETR, "train", run_name="cut", max_epochs=1000).items():
        words += [f"--{key}", str(value)]
    process = forked_module(words, {"OMP_NUM_THREADS": "1"}, str(home / "output.txt"))
    last = home / "runs" / UNETR / "cut" / "models" / "last.pt"
    limit = time.monotonic() + 120
    while not last.exists():
        assert process.is_alive()
        assert time.monotonic() < limit
        time.sleep(0.05)
    os.kill(process.pid or 0, signal.Signals[number])
    process.join(timeout=60)
    assert process.exitcode == code
    assert the_run(home).info.status == status
    done = torch.load(last, weights_only=True)["trainer"]["iteration"]
    output = (home / "output.txt").read_text()
    assert "Traceback" not in output
    if code > 0:
        assert logged(home, "train_loss") == list(range(1, done + 1))
        assert f"medcontext: ended by {number} after step {done}; resume.json resumes the run there.\n" in output

    epochs = done // 2 + 1
    run(UNETR, "training", "train", "resume", run_name="cut", max_epochs=epochs)
    found = the_run(home)
    assert found.info.status == "FINISHED"
    assert logged(home, "train_loss") == list(range(1, 2 * epochs + 1))
    assert found.data.tags["medcontext.steps"] == str(2 * epochs)
    assert found.data.params["max_epochs"] == "1000"
    assert found.data.tags["resumed.max_epochs"] == str(epochs)
    assert int(found.data.tags["medcontext.resumed_at_step"]) > 0


def logged(home: Path, name: str) -> list[int]:
    client = mlflow.MlflowClient(path_to_sqlite_uri(str(home / "mlruns.db")))
    return [point.step for point in client.get_metric_history(the_run(home).info.run_id, name)]
