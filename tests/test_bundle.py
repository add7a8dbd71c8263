"""The helper behind the configurations; what it does inside real runs is tested in tests/bundles."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from monai.networks.nets import UNETR, DynUNet
from torch import nn

from medcontext import bundle


def test_home_is_the_variable_the_repository_or_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDCONTEXT_HOME", raising=False)
    root = tmp_path / "bundles" / "some_bundle"
    root.mkdir(parents=True)
    assert bundle.find_home(str(root)) == str(root)
    (tmp_path / "pyproject.toml").touch()
    assert bundle.find_home(str(root)) == str(tmp_path)
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path / "elsewhere"))
    assert bundle.find_home(str(root)) == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config_file", "{b}/configs/train.json"], "{b}"),
        (["--config_file=['{b}/configs/train.json','{b}/configs/phantom.json']"], "{b}"),
        (["--config_file", "{b}/configs/inference.json", "--filepath", "x.ts"], "{b}"),
    ],
)
def test_root_from_the_command_line_where_no_workflow_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    monkeypatch.setattr("sys.argv", ["monai.bundle", *(word.format(b=tmp_path) for word in words)])
    assert bundle.find_root(None) == expected.format(b=tmp_path)


def test_root_from_the_path_of_python_where_another_program_reads_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["monailabel", "start_server"])
    monkeypatch.setattr("sys.path", [])  # MLflow puts the models that it loads there
    monkeypatch.chdir(tmp_path)
    assert bundle.find_root(None) == str(tmp_path)
    configs = tmp_path / "some_bundle" / "configs"
    configs.mkdir(parents=True)
    (configs / "inference.json").touch()
    monkeypatch.setattr("sys.path", ["elsewhere", str(configs.parent)])
    assert bundle.find_root(None) == str(configs.parent)


def test_run_names_are_unique_and_speak() -> None:
    names = {bundle.new_run_name(None, "btcv", "medcontext") for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("btcv-medcontext-20") for name in names)


def test_version(tmp_path: Path) -> None:
    assert bundle.version(str(tmp_path)) == "unknown"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text('{"version": "1.2.3"}')
    assert bundle.version(str(tmp_path)) == "1.2.3"


def test_latest_run_is_the_one_saved_last(tmp_path: Path) -> None:
    for age, (name, file) in enumerate((("new", "previous.pt"), ("old", "last.pt"))):
        state = tmp_path / name / "models" / file
        state.parent.mkdir(parents=True)
        state.touch()
        os.utime(state, (time.time() - 60 * age, time.time() - 60 * age))
    (tmp_path / "never_saved" / "models").mkdir(parents=True)
    assert bundle.latest_run(str(tmp_path)) == "new"
    found = {folder.name: bundle.has_training_state(str(folder / "models")) for folder in tmp_path.iterdir()}
    assert found == {"new": True, "old": True, "never_saved": False}
    with pytest.raises(FileNotFoundError, match="No run under .* can be resumed"):
        bundle.latest_run(str(tmp_path / "absent"))


def test_folder_of_the_run_that_trained_a_checkpoint(tmp_path: Path) -> None:
    models = tmp_path / "runs" / "one" / "models"
    models.mkdir(parents=True)
    assert bundle.checkpoint_run(str(models)) is None
    assert bundle.run_folder(str(models), "default") == "default"
    (models / "run.json").write_text('{"run_name": "one"}')
    assert bundle.checkpoint_run(str(models)) == "one"
    assert bundle.run_folder(str(models), "default") == str(tmp_path / "runs" / "one")


def unetr(size: int = 32) -> nn.Module:
    return UNETR(1, 3, (size,) * 3, feature_size=4, hidden_size=24, mlp_dim=48, num_heads=2)


@pytest.mark.parametrize(
    ("network", "channels", "size", "message"),
    [
        (unetr(), (1, 3), [48, 32, 32], r"roi_size \[48, 32, 32\] with 1 channels does not suit UNETR"),
        (unetr(), (4, 3), [32, 32, 32], r"roi_size \[32, 32, 32\] with 4 channels does not suit UNETR"),
        (unetr(), (1, 5), [32, 32, 32], r"into \(1, 3, 32, 32, 32\), expected \(1, 5, 32, 32, 32\)"),
        (nn.Conv3d(1, 3, 3), (1, 3), [8, 8, 8], r"into \(1, 3, 6, 6, 6\), expected \(1, 3, 8, 8, 8\)"),
    ],
)
def test_networks_that_cannot_take_the_crop(
    network: nn.Module, channels: tuple[int, int], size: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bundle.check_network(network, *channels, size)


def test_networks_that_can_are_left_as_they_were() -> None:
    network = unetr()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    bundle.check_network(network, 1, 3, [32, 32, 32])
    assert network.training
    torch.testing.assert_close(dict(network.state_dict()), before)


def test_networks_that_hold_a_module_twice_keep_their_weights() -> None:
    network = DynUNet(3, 1, 3, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2])
    bundle.check_network(network, 1, 3, [16, 16, 16])
    assert network(torch.zeros(1, 1, 16, 16, 16)).isfinite().all()
