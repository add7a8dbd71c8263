from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import UNETR
from monai.transforms import NormalizeIntensityd
from torch import nn

from medcontext.networks import NNFormer, load_weights
from medcontext.networks.model_file import (
    build_component,
    check_component,
    read_model_file,
    read_settings,
    weights_hash,
)

SETTINGS = {"labels": {"spleen": 1}, "spacing": [1.5, 1.5, 2.0], "orientation": "RAS", "sided_labels": []}


def write(folder: Path, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(json.dumps(content) if not isinstance(content, str) else content)
    return folder / "model.pt"


def test_settings_are_read_for_the_weights_that_training_wrote(tmp_path: Path) -> None:
    path = write(tmp_path, {"weights": "student", "settings": {**SETTINGS, "later": 1}})
    assert read_settings(path) == read_settings([path, path.with_name("teacher.pt")]) == SETTINGS
    assert read_settings(path.with_name("converted.pt")) == {}
    assert read_settings(tmp_path / "absent" / "model.pt") == {}
    assert read_settings(write(tmp_path / "old", {"weights": "student", "epoch": 3})) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": {"spleen": 0}}, "the id of label 'spleen' must be an integer above 0"),
        ({"labels": {"_target_": 1}}, "'_target_' would be read as configuration"),
        ({"labels": {"spleen": "$__import__('os').system('true')"}}, "the id of label 'spleen' must be an integer"),
        ({"sided_labels": [["$exit()", "b"]]}, r"'\$exit\(\)' would be read as configuration"),
        ({"sided_labels": [["a", "@home"]]}, "'@home' would be read as configuration"),
        ({"sided_labels": "ab"}, "sided_labels must be pairs of names, got 'ab'"),
        ({"orientation": "$exit()"}, r"orientation must be letters such as 'RAS', got '\$exit\(\)'"),
        ({"spacing": ["%x.json"]}, "spacing must be a number, got '%x.json'"),
        ({"spacing": 1.5}, "spacing must be a list, got 1.5"),
        ({"roi_size": [0, 8, 8]}, "roi_size must be at least 1, got 0"),
        ({"in_channels": True}, "in_channels must be an integer, got True"),
        ({"network_def": "$exit()"}, r"network_def must be a definition, got '\$exit\(\)'"),
    ],
)
def test_settings_are_values_and_never_configuration(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = write(tmp_path, {"settings": settings})
    with pytest.raises(ValueError, match=f"model.json holds impossible settings: {message}.*; take the file that"):
        read_settings(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "model.json is damaged"), ([1], "holds a list, not the description of weights")],
)
def test_damaged_descriptions(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_model_file(write(tmp_path, content))


def test_members_of_an_ensemble_need_the_same_settings(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, {"settings": {**SETTINGS, "orientation": name}}) for name in ("RAS", "LPS")]
    with pytest.raises(ValueError, match="RAS/model.pt and .*LPS/model.pt were trained with different orientation"):
        read_settings(paths)


@pytest.mark.parametrize(
    ("key", "definition", "kind"),
    [
        ("network_def", {"_target_": "UNETR", "in_channels": 1, "out_channels": 2, "img_size": [32, 32, 32]}, UNETR),
        (
            "network_def",
            {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
            nn.Conv3d,
        ),
        ("intensity", {"_target_": "NormalizeIntensityd", "keys": "image"}, NormalizeIntensityd),
    ],
)
def test_known_classes_are_built(key: str, definition: dict[str, Any], kind: type) -> None:
    assert isinstance(build_component(key, definition), kind)


def test_own_networks_are_known() -> None:
    check_component("network_def", {"_target_": f"{NNFormer.__module__}.NNFormer", "embed_dim": 12})
    check_component("network_def", {"_target_": "medcontext.networks.NNFormer", "relative_position": "published"})


@pytest.mark.parametrize(
    ("key", "definition", "message"),
    [
        ("network_def", {"_target_": "os.system", "command": "true"}, "names 'os.system' in network_def"),
        ("network_def", {"_target_": "torch.load"}, "names 'torch.load' in network_def"),
        ("network_def", {"_target_": "medcontext.networks.load_checkpoint"}, "names 'medcontext.networks.load_check"),
        (
            "network_def",
            {"_target_": "mine.Net"},
            "names 'mine.Net' .* because it is not one of MONAI's or medcontext's; give network_def",
        ),
        ("network_def", {"_target_": "UNETR", "_mode_": "debug"}, "has _mode_ in network_def"),
        ("network_def", {"_target_": "UNETR", "norm_name": "$exit()"}, r"has '\$exit\(\)' in network_def"),
        ("network_def", {"_target_": "UNETR", "norm_name": ["x", {"_target_": "os.getcwd"}]}, "names 'os.getcwd'"),
        ("network_def", {"_target_": "HoVerNet", "pretrained_url": "http://x/y"}, "has 'http://x/y' in network_def"),
        ("intensity", {"_target_": "SaveImaged", "keys": "image"}, "names 'SaveImaged' in intensity"),
        ("intensity", {"_target_": "Lambdad", "keys": "image"}, "names 'Lambdad' in intensity"),
        ("intensity", {"_target_": "UNETR"}, "names 'UNETR' in intensity"),
    ],
)
def test_nothing_else_is_built(key: str, definition: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"model.json {message}"):
        build_component(key, definition)


def test_weights_that_are_not_those_described(tmp_path: Path) -> None:
    network = nn.Conv3d(1, 2, 1)
    state = network.state_dict()
    for content in (
        {"sha256": {"model.pt": weights_hash(state)}},
        {"sha256_before": {"model.pt": weights_hash(state)}},
    ):
        torch.save(state, write(tmp_path, {"sha256": {"model.pt": "0"}} | content))
        load_weights(network, tmp_path / "model.pt")
    state["bias"][0] += 1e-6
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="The weights in .*model.pt are not those that model.json beside it describes"):
        load_weights(network, tmp_path / "model.pt")
