from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from ignite.metrics import MeanAbsoluteError
from monai.engines import SupervisedEvaluator
from torch import nn

from medcontext import __version__
from medcontext.handlers import FinalModel, ModelCheckpoint, TeacherUpdate, TeacherValidation
from medcontext.networks import TokenMasking, load_checkpoint, load_weights, make_teacher
from medcontext.networks.model_file import weights_hash
from tiny import TinyNet, trainer


def selected(folder: Path) -> dict[str, Any]:
    """What ``model.json`` says of the choice of the weights."""
    content = json.loads((folder / "model.json").read_text())
    others = ("version", "dataset", "settings", "cases")
    return {key: content[key] for key in content if key not in others and "sha" not in key}


def test_the_description_belongs_to_the_weights(tmp_path: Path) -> None:
    network = TinyNet()
    cases = {"training": {"hash": "0", "cases": ["1", "2"]}}
    saver = ModelCheckpoint(
        str(tmp_path), network, make_teacher(network), settings={"spacing": (1, 2)}, dataset="mine", cases=cases
    )
    hashes = []
    for value in (1.0, 2.0):
        nn.init.constant_(network.embed.bias, value)
        saver.save(trainer(), "student", {})
        content = json.loads((tmp_path / "model.json").read_text())
        states = {name: load_checkpoint(tmp_path / name) for name in ("model.pt", "student.pt", "teacher.pt")}
        hashes.append(content["sha256"])
        assert hashes[-1] == {name: weights_hash(state) for name, state in states.items()}
    assert content["sha256_before"] == hashes[0] != hashes[1]  # a crash may leave the weights before in place
    assert (content["dataset"], content["settings"], content["version"]) == ("mine", {"spacing": [1, 2]}, __version__)
    assert content["cases"] == cases
    load_weights(network, tmp_path / "model.pt")


class Validator:
    """The part of an evaluator that the checkpoint looks at; validations are of epochs 1, 2, …"""

    def __init__(self) -> None:
        from monai.engines import Evaluator

        self.engine = Evaluator(device="cpu", val_data_loader=[0], iteration_update=lambda engine, batch: None)
        self.engine.state.key_metric_name = "val_mean_dice"

    def validate(self, value: float, teacher: float | None = None) -> None:
        self.engine.state.epoch += 1
        self.engine.state.metrics["val_mean_dice"] = value
        if teacher is not None:
            self.engine.state.metrics["val_mean_dice_ema"] = teacher
        self.engine.fire_event(Events.COMPLETED)


def test_best_model_under_plain_keys(tmp_path: Path) -> None:
    network = TokenMasking(TinyNet(), "embed", (1, 4, 4, 4))
    saver = ModelCheckpoint(str(tmp_path), network, make_teacher(network))
    validator = Validator()
    saver.attach(validator.engine)
    values = []
    validator.validate(float("nan"))
    assert not (tmp_path / "model.pt").exists()
    for metric in (0.3, 0.5, 0.4, float("nan"), 0.5):
        with torch.no_grad():
            network.network.embed.bias.fill_(len(values))
        validator.validate(metric)
        values.append(load_checkpoint(tmp_path / "model.pt")["embed.bias"][0].item())
    assert values == [0, 1, 1, 1, 1]
    assert load_checkpoint(tmp_path / "model.pt").keys() == TinyNet().state_dict().keys()
    assert load_checkpoint(tmp_path / "teacher.pt").keys() == TinyNet().state_dict().keys()


def test_a_resumed_run_keeps_its_best_model(tmp_path: Path) -> None:
    saver = ModelCheckpoint(str(tmp_path), TinyNet())
    saver.load_state_dict({"best": 0.6})
    validator = Validator()
    saver.attach(validator.engine)
    validator.validate(0.5)
    assert not (tmp_path / "model.pt").exists()
    validator.validate(0.7)
    assert (tmp_path / "model.pt").exists()
    assert saver.state_dict() == {"best": 0.7}


NAN = float("nan")


@pytest.mark.parametrize(
    ("select", "dice", "weights", "epoch", "best"),
    [
        ("best", [(0.3, 0.2), (0.4, 0.6), (0.5, 0.55)], "teacher", 2, 0.6),
        ("best", [(0.3, 0.2), (0.7, 0.6), (0.5, 0.65)], "student", 2, 0.7),
        ("best", [(0.3, NAN), (NAN, 0.2), (NAN, NAN)], "student", 1, 0.3),
        ("best", [(NAN, 0.1), (0.1, 0.1)], "teacher", 1, 0.1),  # no better is no reason to change
        ("best", [(0.5, 0.5)], "student", 1, 0.5),  # of equals the student, whose training is plainer
        ("student_best", [(0.3, 0.9), (0.4, 0.2)], "student", 2, 0.4),
    ],
)
def test_weights_and_epoch_are_chosen_together(
    tmp_path: Path, select: str, dice: list[tuple[float, float]], weights: str, epoch: int, best: float
) -> None:
    network = TinyNet()
    teacher = make_teacher(network)
    saver = ModelCheckpoint(str(tmp_path), network, teacher, select)
    validator = Validator()
    saver.attach(validator.engine)
    kept: dict[str, Any] = {}
    for number, values in enumerate(dice, 1):
        with torch.no_grad():
            network.embed.bias.fill_(number)
            teacher.embed.bias.fill_(-number)
        validator.validate(*values)
        if number == epoch:
            kept = {"student": network.embed.bias[0].item(), "teacher": teacher.embed.bias[0].item()}
    FinalModel(saver)(trainer())  # a best state is not replaced at the end
    info = selected(tmp_path)
    student, average = dice[epoch - 1]
    expected = {"weights": weights, "epoch": epoch, "val_mean_dice": student, "val_mean_dice_ema": average}
    if select.startswith("student"):
        del expected["val_mean_dice_ema"]
    assert {name: value for name, value in info.items() if value == value and value is not None} == {
        name: value for name, value in expected.items() if value == value
    }
    assert load_checkpoint(tmp_path / "model.pt")["embed.bias"][0].item() == kept[weights]
    for name in ("student", "teacher"):
        assert load_checkpoint(tmp_path / f"{name}.pt")["embed.bias"][0].item() == kept[name]
    assert saver.state_dict() == {"best": best}


@pytest.mark.parametrize(
    ("select", "teacher", "weights"),
    [
        ("last", True, "teacher"),
        ("best", True, "teacher"),
        ("last", False, "student"),
        ("student_last", True, "student"),
        ("student_best", True, "student"),
    ],
)
def test_what_is_taken_where_nothing_was_validated(tmp_path: Path, select: str, teacher: bool, weights: str) -> None:
    network = TinyNet()
    average = make_teacher(network) if teacher else None
    saver = ModelCheckpoint(str(tmp_path), network, average, select)
    engine = trainer(network, epochs=2, teacher=average, train_handlers=[TeacherUpdate(0.9), FinalModel(saver)])
    engine.run()
    assert selected(tmp_path) == {"weights": weights, "epoch": 2}
    expected = {"student": network, "teacher": average}[weights].state_dict()
    torch.testing.assert_close(load_checkpoint(tmp_path / "model.pt"), dict(expected), rtol=0, atol=0)
    assert (tmp_path / "teacher.pt").exists() == teacher


@pytest.mark.parametrize("select", ["last", "student_last"])
def test_the_last_state_is_taken_whatever_validation_says(tmp_path: Path, select: str) -> None:
    saver = ModelCheckpoint(str(tmp_path), TinyNet(), make_teacher(TinyNet()), select)
    validator = Validator()
    saver.attach(validator.engine)
    validator.validate(0.9, 0.8)
    assert list(tmp_path.iterdir()) == []


def test_student_and_teacher_are_validated_side_by_side(tmp_path: Path) -> None:
    """Both by the same measure, here by how much a network misses the one voxel of a label."""
    network, teacher = (nn.Conv3d(1, 1, 1) for _ in range(2))
    for module, value in ((network, 0.25), (teacher, 0.75)):
        nn.init.zeros_(module.weight)
        nn.init.constant_(module.bias, value)
    image = {"image": torch.ones(1, 1, 1, 1, 1), "label": torch.ones(1, 1, 1, 1, 1)}
    saver = ModelCheckpoint(str(tmp_path), network, teacher)

    def evaluator(module: nn.Module, handlers: list[Any]) -> SupervisedEvaluator:
        metric = MeanAbsoluteError(output_transform=lambda x: (x[0]["pred"], x[0]["label"]))
        metrics = {"val_mean_dice": metric}
        return SupervisedEvaluator("cpu", [image], module, key_val_metric=metrics, val_handlers=handlers)

    student = evaluator(network, [TeacherValidation(evaluator(teacher, [])), saver])
    student.run(3)
    assert student.state.metrics == pytest.approx({"val_mean_dice": 0.75, "val_mean_dice_ema": 0.25})
    assert selected(tmp_path) == {
        "weights": "student",
        "epoch": 3,
        "val_mean_dice": pytest.approx(0.75),
        "val_mean_dice_ema": pytest.approx(0.25),
    }
    student.run(6)  # the next validation is of its own epoch too
    assert student.state.epoch == 6


@pytest.mark.parametrize(
    ("select", "validated", "saved"), [("last", True, True), ("best", True, False), ("best", False, True)]
)
def test_the_end_of_training(tmp_path: Path, select: str, validated: bool, saved: bool) -> None:
    network = TinyNet()
    saver = ModelCheckpoint(str(tmp_path), network, select=select)
    validator = Validator()
    saver.attach(validator.engine)
    if validated:
        validator.validate(0.5)
    before = network.embed.bias[0].item()
    trainer(network, train_handlers=[FinalModel(saver)]).run()
    written = load_checkpoint(tmp_path / "model.pt")["embed.bias"][0].item()
    assert written == (network.embed.bias[0].item() if saved else before)


def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="select_checkpoint must be one of 'best', 'last', 'student_best', 'student_last', got 'first'"
    ):
        ModelCheckpoint(str(tmp_path), TinyNet(), select="first")
