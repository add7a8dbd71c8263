from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader
from monai.engines import Evaluator
from monai.handlers import ValidationHandler
from monai.transforms import Compose, CopyItemsd, RandGaussianNoised, ToTensord
from torch import nn

from medcontext.data import EpochSampler, SeededDataset, start_loader
from medcontext.engines import MedContextTrainer
from medcontext.handlers import (
    ResumeError,
    ResumeTraining,
    RunFacts,
    Seeding,
    TeacherUpdate,
    TrainingCheckpoint,
    TrainingHistory,
    TrainingInterrupted,
)
from medcontext.networks import TokenMasking, load_checkpoint, make_teacher
from tiny import TinyNet, batches, trainer


def random_loader(num_workers: int) -> DataLoader:
    """Six cases whose masked image is drawn anew each time, in an order drawn each epoch."""
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
    dataset = SeededDataset(CacheDataset(items, transforms, progress=False), 7)
    sampler = EpochSampler(dataset, 7)
    return DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=num_workers, worker_init_fn=start_loader)


def validator(network: nn.Module) -> Evaluator:
    """An evaluator of two cases that notes a weight, in place of a metric of the network."""
    engine = Evaluator(device="cpu", val_data_loader=[0, 1], iteration_update=lambda engine, batch: None)
    weight = next(network.parameters())
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(weight=weight.sum().item()))
    return engine


def stop_at(engine: Engine, trained: MedContextTrainer, event: Any) -> None:
    """A signal arrives."""
    engine.add_event_handler(event, lambda: setattr(trained, "stop_signal", signal.SIGTERM))


def run(
    folder: Path,
    epochs: int,
    *,
    resume: bool = False,
    stop: tuple[str, int] | None = None,
    workers: int = 0,
    facts: RunFacts | None = None,
    **keys: Any,
) -> Any:
    """Train three steps an epoch; ``stop`` names the ``step`` during which a signal arrives, or the ``validation``."""
    torch.manual_seed(123 if resume else 0)  # a resumed process starts from other random states
    network = TokenMasking(nn.Sequential(TinyNet(), nn.Dropout(0.2)), "0.embed", (1, 4, 4, 4))
    loader = random_loader(workers)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    objects = {"lr_scheduler": schedule, "facts": facts or RunFacts(7, "medcontext", {"training": []})}
    validation = validator(network)
    handlers: list[Any] = [ResumeTraining(folder / "last.pt", objects)] if resume else []
    handlers += [Seeding(7, loader), TeacherUpdate(0.9), ValidationHandler(1, validation)]
    handlers += [TrainingHistory(folder / "history.csv", validation)]
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
        **keys,
    )
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: schedule.step())
    if stop is not None:
        stopped = {"step": engine, "validation": validation}[stop[0]]
        stop_at(stopped, engine, Events.ITERATION_STARTED(once=stop[1]))
    TrainingCheckpoint(str(folder), objects, evaluators=[validation]).attach(engine)
    engine.run()
    return engine


def check_same(resumed: Path, whole: Path) -> None:
    """Every tensor and every row of the history, but for the time."""
    states = [load_checkpoint(folder / "last.pt") for folder in (resumed, whole)]
    for state in states:
        del state["trainer"]["train_processor_seconds"]
    assert states[0].pop("facts") == states[1].pop("facts")
    torch.testing.assert_close(*states, rtol=0, atol=0)
    histories = [pd.read_csv(folder / "history.csv") for folder in (resumed, whole)]
    pd.testing.assert_frame_equal(*(table.drop(columns="train_processor_seconds") for table in histories))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder, 3)
    return folder


STOPS = [("step", 1), ("step", 3), ("step", 5), ("step", 6), ("step", 8), ("validation", 1), ("validation", 2)]


@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_a_signal_saves_the_step_and_the_resumed_run_continues_from_there(
    tmp_path: Path, whole: Path, stop: tuple[str, int]
) -> None:
    """In the middle of an epoch, at its end, and in validation."""
    with pytest.raises(TrainingInterrupted) as ended:
        run(tmp_path, 3, stop=stop)
    assert ended.value.code == 128 + signal.SIGTERM
    step = stop[1] if stop[0] == "step" else 3
    assert load_checkpoint(tmp_path / "last.pt")["trainer"]["iteration"] == step
    run(tmp_path, 3, resume=True)
    check_same(tmp_path, whole)


def test_loaders_with_processes_draw_the_same(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, 3, stop=("step", 5), workers=2)
    run(tmp_path, 3, resume=True, workers=1)
    check_same(tmp_path, whole)


def test_a_window_of_gradients_is_completed_before_the_state_is_saved(tmp_path: Path) -> None:
    run(tmp_path / "whole", 2, accumulation_steps=2)
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "cut", 2, stop=("step", 4), accumulation_steps=2)
    assert load_checkpoint(tmp_path / "cut" / "last.pt")["trainer"]["iteration"] == 5
    run(tmp_path / "cut", 2, resume=True, accumulation_steps=2)
    check_same(tmp_path / "cut", tmp_path / "whole")


def test_an_error_between_two_steps_loses_none(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = SeededDataset.__getitem__

    def break_in_the_fifth_step(dataset: SeededDataset, index: int) -> Any:
        if dataset.epoch == 2 and index == order[2]:
            raise OSError("the disk is gone")
        return read(dataset, index)

    sampler = random_loader(0).sampler
    sampler.set_epoch(2)
    order = list(sampler)
    with monkeypatch.context() as patch:
        patch.setattr(SeededDataset, "__getitem__", break_in_the_fifth_step)
        with pytest.raises(OSError, match="the disk is gone"):
            run(tmp_path, 3)
    assert load_checkpoint(tmp_path / "last.pt")["trainer"]["iteration"] == 4
    run(tmp_path, 3, resume=True)
    check_same(tmp_path, whole)


def facts(seed: int = 7, mode: str = "medcontext", **cases: list[dict[str, Any]]) -> RunFacts:
    return RunFacts(seed, mode, cases)


def test_another_seed_mode_or_other_cases_are_refused(tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii", "c.nii"):
        (tmp_path / name).touch()
    a, b, c = ({"image": str(tmp_path / name)} for name in ("a.nii", "b.nii", "c.nii"))
    before = facts(training=[a, b], validation=[c])
    run(tmp_path, 1, facts=before)
    run(tmp_path, 1, facts=facts(training=[a, b], validation=[c]), resume=True)
    for now, message in (
        (facts(seed=8, training=[a, b], validation=[c]), "seed was 7 and is 8 now; resume with the overlays and over"),
        (facts(mode="baseline", training=[a, b], validation=[c]), "mode was 'medcontext' and is 'baseline' now"),
        (facts(training=[a, c], validation=[b]), "other training cases and validation cases than before; .*fold"),
        (facts(training=[a, b]), "other validation cases than before"),
    ):
        with pytest.raises(ResumeError, match=message):
            run(tmp_path, 2, facts=now, resume=True)


def test_last_checkpoint_holds_everything_and_no_code(tmp_path: Path) -> None:
    run(tmp_path, 1)
    content = load_checkpoint(tmp_path / "last.pt")
    parts = {"network", "token_masking", "teacher", "optimizer", "scaler", "trainer", "lr_scheduler", "facts"}
    assert content.keys() == parts
    assert "mask_token" not in content["network"]


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
    tmp_path: Path, whole: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, 2)
    assert load_checkpoint(tmp_path / "previous.pt")["trainer"]["iteration"] == 3
    damage(tmp_path / "last.pt")
    run(tmp_path, 3, resume=True)
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    assert [text for text in caplog.messages if "damaged" in text] == [
        f"{last} is damaged or gone; the run resumes from {previous}, which was saved before it."
    ]
    check_same(tmp_path, whole)


def test_two_damaged_states_are_named(tmp_path: Path) -> None:
    run(tmp_path, 2)
    for name in ("last.pt", "previous.pt"):
        flip_a_bit(tmp_path / name)
    with pytest.raises(ValueError, match="last.pt and .*previous.pt are both damaged; train again, under another run"):
        ResumeTraining(tmp_path / "last.pt")


def test_an_interval_of_no_epochs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="interval must be 1 or more"):
        TrainingCheckpoint(str(tmp_path), interval=0)
