from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medcontext.networks.published import load_official_checkpoint

WEIGHTS = OrderedDict(weight=torch.arange(3.0), bias=torch.tensor([7.0]))
OTHERS = {"weight": torch.ones(3)}
OPTIMIZER = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1, momentum=0.9).state_dict()
NNUNET = {
    "epoch": 1000,
    "state_dict": WEIGHTS,
    "optimizer_state_dict": OPTIMIZER,
    "lr_scheduler_state_dict": None,
    "plot_stuff": ([np.float32(0.5)], [np.float64(-0.25)], [], [np.float64(0.8)]),
    "best_stuff": (np.int64(3), np.float32(0.5), np.float64(0.75)),
    "amp_grad_scaler": {"scale": 65536.0, "growth_factor": 2.0},
}


class Call:
    """Pickles as a call, as an attacker's file does."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def assert_weights(state: dict[str, torch.Tensor]) -> None:
    assert list(state) == ["weight", "bias"]
    assert (state["weight"].tolist(), state["bias"].tolist()) == ([0, 1, 2], [7])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(WEIGHTS, id="plain"),
        pytest.param({"epoch": 99, "best_acc": 70.0, "state_dict": WEIGHTS}, id="MedContext UNETR"),
        pytest.param(NNUNET, id="nnU-Net 1"),
        pytest.param({"network_weights": WEIGHTS, "logging": {"ema": [np.float64(1)]}, "scores": {}}, id="nnU-Net 2"),
        pytest.param({**WEIGHTS, "epoch": 3}, id="numbers beside"),
        pytest.param({"model": dict(WEIGHTS), "optimizer": OPTIMIZER, "loss": torch.ones(1)}, id="model"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_the_tensors_are_wrapped_in(content: Any, zipped: bool, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.model", _use_new_zipfile_serialization=zipped)
    before = set(torch.serialization.get_safe_globals())
    assert_weights(load_official_checkpoint(tmp_path / "x.model"))
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_either_numpy(module: str, tmp_path: Path) -> None:
    torch.save(NNUNET, tmp_path / "x.model", _use_new_zipfile_serialization=False)
    written = (tmp_path / "x.model").read_bytes()
    ours = np.float64(0).__reduce__()[0].__module__.encode()
    assert f"c{module}\nscalar\n".encode() in written.replace(ours, module.encode())
    (tmp_path / "x.model").write_bytes(written.replace(ours, module.encode()))
    assert_weights(load_official_checkpoint(tmp_path / "x.model"))


def test_one_of_several_networks(tmp_path: Path) -> None:
    path = tmp_path / "x.model"
    torch.save({"student_state_dict": WEIGHTS, "teacher_state_dict": OTHERS}, path)
    with pytest.raises(ValueError, match="2 networks; choose one by entry: student_state_dict or teacher_state_dict"):
        load_official_checkpoint(path)
    assert_weights(load_official_checkpoint(path, entry="student_state_dict"))
    assert load_official_checkpoint(path, entry="teacher_state_dict").keys() == {"weight"}
    with pytest.raises(ValueError, match="no weights under entry 'teacher', only under student_state_dict and"):
        load_official_checkpoint(path, entry="teacher")
    torch.save(WEIGHTS, path)
    with pytest.raises(ValueError, match="one network and no entries; leave out entry 'state_dict'"):
        load_official_checkpoint(path, entry="state_dict")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "is empty; it should hold the weights of a network"),
        ([torch.ones(1)], "holds a list; it should hold the weights"),
        ({"state_dict": {}}, "holds no weights of a network; its entries are state_dict"),
        ({"state_dict": {"weight": 1.0}, "epoch": 3}, "holds no weights .*; its entries are state_dict, epoch"),
        ({"weight": torch.tensor([1, float("nan")])}, "holds weights that are NaN or infinite, in 1 of 1 tensors"),
        ({f"loss{i}": i for i in range(10)}, r".* its entries are loss0, .*, loss7 and 2 more\."),
    ],
)
def test_files_without_weights(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=f"x.pt {message}"):
        load_official_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"<html>quota exceeded</html>", b"version https://git-lfs.github.com/spec"])
def test_files_that_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match="x.pt is damaged or not a checkpoint"):
        load_official_checkpoint(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match="There is no checkpoint .*absent.pt"):
        load_official_checkpoint(tmp_path / "absent.pt")


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_code_is_refused_and_not_run(save: Any, tmp_path: Path) -> None:
    save({"state_dict": {}, "epoch": Call(os.mkdir, str(tmp_path / "ran"))}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt refers to (posix|nt)\.mkdir: it holds code, which is not run"):
        load_official_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        ({"net": WEIGHTS, "x": Call(eval, "1")}, "eval"),
        ({"net": WEIGHTS, "x": Call(np.load, "x.npy")}, "numpy.load"),
        ({"net": WEIGHTS, "x": np.ones(2)}, r"numpy\S*\._reconstruct"),
    ],
)
def test_whatever_else_a_file_refers_to_is_refused(content: Any, name: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=rf"x.pt refers to {name}: .*save the weights alone: torch.save\("):
        load_official_checkpoint(tmp_path / "x.pt")


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(1, 1)).save(str(tmp_path / "x.pt"))
    with pytest.raises(ValueError, match="x.pt is a TorchScript archive: it holds code"):
        load_official_checkpoint(tmp_path / "x.pt")
