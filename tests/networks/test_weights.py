from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import nn

from medcontext.networks import CheckpointWriteError, load_checkpoint, load_pretrained, load_weights, save_checkpoint
from medcontext.networks import weights as weights_module


class Unsaveable:
    def __reduce__(self) -> Any:
        raise OSError("No space left on device")


def test_a_failed_save_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointWriteError, match="Could not write .*No space left"):
        save_checkpoint({"weight": Unsaveable()}, path)
    torch.testing.assert_close(load_checkpoint(path)["weight"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "No space left on device.*; free space on that disk, then resume"),
        (errno.EROFS, "Read-only file system.*; that disk is mounted read-only: choose another folder, then resume"),
        (errno.EACCES, "Permission denied.*; give yourself the right to write there, or choose another folder, then"),
    ],
)
def test_a_disk_that_takes_no_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str) -> None:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(CheckpointWriteError, match=remedy):
        save_checkpoint({}, tmp_path / "model.pt")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_disk_that_fills_up_while_pytorch_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch raises an error of its own while it handles that of the disk."""

    @contextlib.contextmanager
    def full(*_: Any) -> Iterator[BinaryIO]:
        with open("/dev/full", "wb") as stream:
            yield stream

    monkeypatch.setattr(weights_module, "whole_file", full)
    with pytest.raises(CheckpointWriteError, match=r"\(\[Errno 28\] No space left.*\); free space on that disk"):
        save_checkpoint({"weight": torch.ones(10**6)}, tmp_path / "model.pt")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointWriteError, match="Could not write .*file/models/model.pt"):
        save_checkpoint({}, tmp_path / "file" / "models" / "model.pt")


def attempt(path: Path) -> tuple[str | None, dict[str, Any]]:
    """What reading says, and what is read."""
    try:
        return None, load_checkpoint(path)
    except ValueError as error:
        return str(error), {}


def test_one_flipped_bit_is_noticed_wherever_it_changes_what_is_read(tmp_path: Path) -> None:
    path, weights = tmp_path / "model.pt", {"weight": torch.arange(600.0), "bias": torch.arange(6)}
    save_checkpoint(weights, path)
    whole, noticed = path.read_bytes(), 0
    for position in range(0, 8 * len(whole), 101):  # 384 of them
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        problem, content = attempt(path)
        noticed += problem is not None
        if problem is not None:
            assert re.search("model.pt (is|refers).*use another file|holds code", problem)
        else:  # a date, for example
            assert list(content) == list(weights)
            assert all(torch.equal(content[name], weights[name]) for name in weights)
    assert noticed > 200
    path.write_bytes(whole.replace(weights["weight"].numpy().tobytes(), weights["weight"].add(1).numpy().tobytes()))
    with pytest.raises(ValueError, match="model.pt is damaged: its checksum does not match its content; use another"):
        load_checkpoint(path)


def test_files_of_old_versions_without_checksums_are_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert load_checkpoint(tmp_path / "old.pt")["weight"].tolist() == [1, 1]


class Network(nn.Module):
    """A body and a head, whose sizes differ from those of other arguments as in real networks."""

    def __init__(self, classes: int = 3, channels: int = 1, features: int = 4, blocks: int = 1) -> None:
        super().__init__()
        layers = [nn.Conv3d(channels if not i else features, features, 1) for i in range(blocks)]
        self.body = nn.ModuleList(layers)
        self.head = nn.Conv3d(features, classes, 1)


def named(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "net.", "model.", "_model.", "module.", "model.net.", "network.", "whatever."])
@pytest.mark.parametrize("entry", [None, "state_dict", "model", "net"])
def test_wrapped_weights_are_found(prefix: str, entry: str | None, tmp_path: Path) -> None:
    source = Network()
    state = named(prefix, source.state_dict())
    torch.save({entry: state, "epoch": 3} if entry else {**state, "epoch": 3}, tmp_path / "x.pt")
    for load in (load_weights, load_pretrained):
        loaded = load(Network(), tmp_path / "x.pt")
        torch.testing.assert_close(dict(loaded.state_dict()), dict(source.state_dict()), rtol=0, atol=0)


def test_a_prefix_of_the_networks_own_is_kept(tmp_path: Path) -> None:
    source = nn.ModuleDict({"body": nn.ModuleDict({"body": nn.Linear(1, 1)})})
    torch.save(source.state_dict(), tmp_path / "x.pt")
    target = load_weights(nn.ModuleDict({"body": nn.ModuleDict({"body": nn.Linear(1, 1)})}), tmp_path / "x.pt")
    torch.testing.assert_close(dict(target.state_dict()), dict(source.state_dict()), rtol=0, atol=0)


def test_safetensors_are_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    source = Network()
    safetensors.save_file(named("net.", source.state_dict()), tmp_path / "x.safetensors")
    loaded = load_weights(Network(), tmp_path / "x.safetensors")
    torch.testing.assert_close(dict(loaded.state_dict()), dict(source.state_dict()), rtol=0, atol=0)
    (tmp_path / "x.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="x.safetensors is damaged or not a checkpoint"):
        load_weights(Network(), tmp_path / "x.safetensors")


def test_safetensors_without_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.safetensors").touch()
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match="Reading .safetensors needs a package: pip install safetensors"):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Network(classes=14).state_dict(), "they were trained with out_channels 14, not 3; give the labels"),
        (Network(channels=4).state_dict(), "they were trained with in_channels 4, not 1; give the in_channels"),
        (
            Network(classes=5, features=8).state_dict(),
            r"4 tensors have other sizes, such as body.0.bias \(8,\) instead of \(4,\); give the network_def",
        ),
        (Network(blocks=2).state_dict(), "they hold 2 others, such as body.1.bias; give the network_def that they"),
        (Network(blocks=0).state_dict(), "they lack 2 tensors, such as body.0.bias; give the network_def that they"),
        (
            nn.Linear(1, 1).state_dict(),
            "none of their 2 tensors, such as net.bias, has a name of this network",
        ),
    ],
)
def test_weights_of_another_network_say_what_differs(content: Any, message: str, tmp_path: Path) -> None:
    torch.save({"state_dict": named("net.", content)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=f"The weights in .*x.pt are not those of this Network: {message}"):
        load_weights(Network(), tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"network": Network().state_dict(), "teacher": Network().state_dict()},
            "holds 2 networks, network and teacher",
        ),
        ({"epoch": 3}, "does not hold the weights of a network by name; give a model.pt or teacher.pt"),
        ([torch.ones(1)], "does not hold the weights of a network by name"),
    ],
)
def test_files_without_the_weights_of_one_network(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=f"last.pt {message}"):
        load_weights(Network(), tmp_path / "last.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    source = Network()
    nn.init.constant_(source.head.bias, value)
    torch.save(source.state_dict(), tmp_path / "x.pt")
    message = "x.pt holds weights that are NaN or infinite, in 1 of 4 tensors, such as head.bias; its training diverged"
    for load in (load_weights, load_pretrained):
        with pytest.raises(ValueError, match=message):
            load(Network(), tmp_path / "x.pt")
