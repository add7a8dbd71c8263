from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import medcontext
from medcontext.report import (
    checkpoint_sha256,
    circumstances,
    device_name,
    evaluation_dir,
    selected_weights,
    training_settings,
)
from medcontext.report import provenance as module


def trained(run: Path, **config: Any) -> str:
    """Folder of the checkpoints of a run with this configuration."""
    (run / "models").mkdir(parents=True)
    (run / "train_config.json").write_text(json.dumps(config))
    return str(run / "models")


def test_circumstances(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["python", "-m", "monai.bundle", "--config_file", "['a.json','b c.json']", "--run_name", "my run"]
    monkeypatch.setattr(sys, "orig_argv", words)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = circumstances()
    command = """-m monai.bundle --config_file "['a.json','b c.json']" --run_name 'my run'"""
    assert found["command"] == f"{Path(sys.executable).name} {command}"
    versions = {"medcontext": medcontext.__version__, "torch": torch.__version__, "CUDA": "13.0"}
    assert versions.items() <= found["versions"].items()
    assert list(found) == ["command", "versions", "date"]


def test_commit_of_the_repository_and_changes_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "shared" / "medcontext" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.touch()
    monkeypatch.setattr(medcontext, "__file__", str(package))
    assert "commit" not in circumstances()["versions"]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert "commit" not in circumstances()["versions"]  # nothing committed yet
    git("add", ".")
    git("-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")[:12]
    assert circumstances()["versions"]["commit"] == commit
    package.write_text("changed")
    assert circumstances()["versions"]["commit"] == f"{commit} with changes"
    monkeypatch.setenv("PATH", "")
    assert "commit" not in circumstances()["versions"]


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert device_name(torch.device("cpu")) == "cpu (riscv64)"
    assert device_name(torch.device("cuda", 1)) == "cuda:1 (GPU of cuda:1)"


def test_checkpoint_sha256(tmp_path: Path) -> None:
    assert checkpoint_sha256(tmp_path / "model.pt") is None
    (tmp_path / "model.pt").write_bytes(b"weights")
    assert checkpoint_sha256(tmp_path / "model.pt") == hashlib.sha256(b"weights").hexdigest()


def test_settings_that_were_given_as_values(tmp_path: Path) -> None:
    config = {"seed": 3, "mode": "baseline", "dataset": "btcv", "train_fraction": 0.25, "train_cases": None}
    ckpt_dir = trained(tmp_path / "run", **config, fold="$1 + 1", max_epochs="@phantom#max_epochs", run_name="one")
    expected = {"dataset": "btcv", "mode": "baseline", "seed": 3, "train_fraction": 0.25}
    assert training_settings(ckpt_dir) == expected
    assert list(training_settings(ckpt_dir)) == list(expected)
    assert training_settings(tmp_path / "elsewhere" / "models") == {}


@pytest.mark.parametrize(("content", "told"), [("half a {", True), ("[1]", False)])
def test_settings_of_a_damaged_file(tmp_path: Path, content: str, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "train_config.json").write_text(content)
    assert training_settings(tmp_path / "models") == {}
    assert ("could not be read" in caplog.text) == told


def evaluated(folder: str, data_hash: str) -> None:
    Path(folder).mkdir()
    (Path(folder) / "summary.json").write_text(json.dumps({"info": {"data_hash": data_hash}}))


def test_evaluations_of_other_data_have_folders_of_their_own(tmp_path: Path) -> None:
    run, weights = str(tmp_path / "run"), trained(tmp_path / "run", dataset="btcv") + "/model.pt"
    for _ in range(2):  # before there is anything, and again
        assert evaluation_dir(run, weights, "btcv", "aaa") == f"{run}/evaluation"
        assert evaluation_dir(run, weights, "acdc", "bbb") == f"{run}/evaluation_acdc"
    evaluated(f"{run}/evaluation", "aaa")
    evaluated(f"{run}/evaluation_acdc", "bbb")
    assert evaluation_dir(run, weights, "btcv", "aaa") == f"{run}/evaluation"
    assert evaluation_dir(run, weights, "btcv", "ccc") == f"{run}/evaluation_ccc"
    assert evaluation_dir(run, weights, "acdc", "bbb") == f"{run}/evaluation_acdc"
    assert evaluation_dir(run, weights, "acdc", "ccc") == f"{run}/evaluation_acdc_ccc"
    assert evaluation_dir(run, weights, "my data/2", "ccc") == f"{run}/evaluation_my-data-2"


def test_evaluations_of_other_weights_have_folders_of_their_own(tmp_path: Path) -> None:
    run, folder = str(tmp_path / "run"), Path(trained(tmp_path / "run", dataset="btcv"))
    assert evaluation_dir(run, folder / "theirs.pt", "btcv", "aaa") == f"{run}/evaluation"  # there are no others
    (folder / "model.pt").touch()
    assert evaluation_dir(run, folder / "model.pt", "btcv", "aaa") == f"{run}/evaluation"
    assert evaluation_dir(run, folder / "teacher.pt", "btcv", "aaa") == f"{run}/evaluation_teacher"
    assert evaluation_dir(run, folder / "teacher.pt", "acdc", "bbb") == f"{run}/evaluation_teacher_acdc"


@pytest.mark.parametrize("summary", [None, "{}", '{"info": {}}', '{"info": null}', "half a {"])
def test_folders_of_unknown_data_are_taken(tmp_path: Path, summary: str | None) -> None:
    """Of weights from elsewhere nothing is known, nor of a report that was broken off."""
    if summary is not None:
        (tmp_path / "evaluation").mkdir()
        (tmp_path / "evaluation" / "summary.json").write_text(summary)
    assert evaluation_dir(tmp_path, tmp_path / "models" / "model.pt", "acdc", "aaa") == f"{tmp_path}/evaluation"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (
            {"weights": "teacher", "epoch": 40, "val_mean_dice": 0.8049, "val_mean_dice_ema": 0.8123},
            "moving average of the weights, epoch 40 (validation Dice 0.812, of the network itself 0.805)",
        ),
        (
            {"weights": "student", "epoch": 8, "val_mean_dice": 0.7, "val_mean_dice_ema": None},
            "the network itself, epoch 8 (validation Dice 0.700)",
        ),
        ({"weights": "teacher", "epoch": 99}, "moving average of the weights, epoch 99, its last state"),
        ({"weights": "other", "epoch": 99}, None),
        ({}, None),
    ],
)
def test_selected_weights(tmp_path: Path, info: dict[str, Any], expected: str | None) -> None:
    (tmp_path / "model.json").write_text(json.dumps(info))
    assert selected_weights(tmp_path / "model.pt") == expected
    assert selected_weights(tmp_path / "teacher.pt") is None
