from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from ignite.metrics import MeanAbsoluteError
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, CopyItemsd, RandGaussianNoised, ToTensord
from torch import nn

from medcontext import __version__
from medcontext.engines import MedContextTrainer
from medcontext.handlers import (
    EpochSeed,
    FinalModel,
    ModelCheckpoint,
    ResumeTraining,
    TeacherUpdate,
    TeacherValidation,
    TrainingCheckpoint,
)
from medcontext.handlers import checkpoints as checkpoints_module
from medcontext.networks import TokenMasking, load_checkpoint, load_weights, make_teacher
from medcontext.networks.model_file import weights_hash
from tiny import TinyNet, batches, trainer


def random_loader(num_workers: int) -> DataLoader:
    """Cases whose masked image is drawn anew each time, in an order drawn each epoch."""
    items = [
        {"image": i["image"][0], "label": i["label"][0], "context_mask": i["context_mask"][0]} for i in batches(6, 1)
    ]
    transforms = Compose(
        [
            ToTensord(keys=["image", "label", "context_mask"]),
            CopyItemsd(keys="image", names="masked_image"),
            RandGaussianNoised(keys="masked_image", prob=0.7),
        ]
    )
    dataset = CacheDataset(items, transforms, progress=False)
    return DataLoader(dataset, batch_size=2, shuffle=True, num_workers=num_workers)


def run(folder: Path, epochs: int, *, resume: bool = False, stop_after: int | None = None, workers: int = 0) -> Any:
    torch.manual_seed(123 if resume else 0)  # a resumed process starts from other random states
    network = TokenMasking(nn.Sequential(TinyNet(), nn.Dropout(0.2)), "0.embed", (1, 4, 4, 4))
    loader = random_loader(workers)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    objects = {"lr_scheduler": schedule}
    handlers: list[Any] = [ResumeTraining(folder / "last.pt", objects)] if resume else []
    handlers += [EpochSeed(7, loader.dataset), TeacherUpdate(0.9), TrainingCheckpoint(str(folder), objects)]
    engine = MedContextTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        teacher=make_teacher(network),
        optimizer=optimizer,
        loss_function=trainer().loss_function,
        passes="separate",
        train_handlers=handlers,
    )
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: schedule.step())
    if stop_after is not None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=stop_after), lambda e: e.terminate())
    engine.run()
    return engine


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, workers: int) -> None:
    whole = run(tmp_path / "whole", 4, workers=workers)
    run(tmp_path / "cut", 4, stop_after=2, workers=workers)
    resumed = run(tmp_path / "cut", 4, resume=True, workers=workers)
    for name in ("network", "teacher"):
        expected, got = getattr(whole, name).state_dict(), getattr(resumed, name).state_dict()
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert resumed.network.mask_token.abs().sum() > 0
    assert resumed.state.iteration == whole.state.iteration == 12
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


def test_last_checkpoint_holds_everything_and_no_code(tmp_path: Path) -> None:
    run(tmp_path, 1)
    content = load_checkpoint(tmp_path / "last.pt")
    parts = {"network", "token_masking", "teacher", "optimizer", "scaler", "trainer", "lr_scheduler", "random"}
    assert content.keys() == parts
    assert "mask_token" not in content["network"]


def test_random_states_go_on(tmp_path: Path) -> None:
    run(tmp_path, 1)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(99)
    np.random.seed(99)
    checkpoints_module._set_random_state(load_checkpoint(tmp_path / "last.pt")["random"])
    torch.testing.assert_close(torch.rand(3), expected[0], rtol=0, atol=0)
    np.testing.assert_array_equal(np.random.rand(3), expected[1])


OTHER_OPTIMIZER = torch.optim.Adagrad([torch.zeros(1)])


@pytest.mark.parametrize(
    ("epochs", "content", "message"),
    [
        (1, {"iteration": 6}, "has already trained 2 epochs; max_epochs is 1, raise it to continue"),
        (2, {"epoch_length": 5}, "was trained with 5 steps per epoch, this run has 3"),
        (2, {"drop": "teacher"}, "holds no 'teacher'; resume with the overlays that it was trained with"),
        (2, {"network": {"weight": torch.zeros(1)}}, "'network' of .* does not match this run"),
        (
            2,
            {"optimizer": OTHER_OPTIMIZER.state_dict()},
            "was trained with another optimizer; resume with the overlays",
        ),
    ],
)
def test_checkpoints_that_do_not_fit(tmp_path: Path, epochs: int, content: dict[str, Any], message: str) -> None:
    run(tmp_path, 1)
    saved = load_checkpoint(tmp_path / "last.pt")
    saved["trainer"]["epoch_length"] = content.get("epoch_length", 3)
    saved["trainer"]["iteration"] = content.get("iteration", saved["trainer"]["iteration"])
    saved["network"] = content.get("network", saved["network"])
    saved["optimizer"] = content.get("optimizer", saved["optimizer"])
    saved.pop(content.get("drop"), None)
    torch.save(saved, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=message):
        run(tmp_path, epochs, resume=True)


def test_missing_and_damaged_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no checkpoint .*last.pt"):
        ResumeTraining(tmp_path / "last.pt")
    for content in ({"weight": torch.ones(1)}, [1, 2]):
        torch.save(content, tmp_path / "last.pt")
        with pytest.raises(ValueError, match="holds weights but no training state; resume from a last.pt"):
            ResumeTraining(tmp_path / "last.pt")
    (tmp_path / "last.pt").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
        ResumeTraining(tmp_path / "last.pt")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-700]),
    "a flipped bit": flip_a_bit,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_falls_back_to_the_one_before(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(tmp_path / "whole", 4)
    run(tmp_path, 3)
    assert load_checkpoint(tmp_path / "previous.pt")["trainer"]["iteration"] == 6
    damage(tmp_path / "last.pt")
    resumed = run(tmp_path, 4, resume=True)
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    assert [text for text in caplog.messages if "damaged" in text] == [
        f"{last} is damaged or gone; the run resumes from {previous}, which was saved before it."
    ]
    for name, value in resumed.network.state_dict().items():
        torch.testing.assert_close(value, whole.network.state_dict()[name], rtol=0, atol=0)
    assert load_checkpoint(tmp_path / "last.pt")["trainer"]["iteration"] == 12


def test_two_damaged_states_are_named(tmp_path: Path) -> None:
    run(tmp_path, 2)
    for name in ("last.pt", "previous.pt"):
        flip_a_bit(tmp_path / name)
    with pytest.raises(ValueError, match="last.pt and .*previous.pt are both damaged; train again, under another run"):
        ResumeTraining(tmp_path / "last.pt")


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
    with pytest.raises(ValueError, match="interval must be 1 or more"):
        TrainingCheckpoint(str(tmp_path), interval=0)
