from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from medcontext.handlers import TeacherUpdate, teacher_momentum_at, update_teacher
from medcontext.networks import make_teacher
from tiny import TinyNet, trainer


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (5, 0.498),  # half-way up the ten warm-up steps
        (10, 0.996),  # the warm-up ends, the cosine starts
        (505, 1 - 0.004 / 2),  # half-way along the cosine
        (1000, 1.0),
    ],
)
def test_momentum_by_hand(step: int, expected: float) -> None:
    assert teacher_momentum_at(step, 1000, momentum=(0.996, 1.0)) == pytest.approx(expected)


def test_momentum_never_falls() -> None:
    values = [teacher_momentum_at(step, 400, momentum=(0.98, 1.0), warmup=0.05) for step in range(400)]
    assert values == sorted(values)
    assert values[20] == pytest.approx(0.98)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (5, 0.45), (10, 0.9), (11, 0.9), (505, 0.9), (1000, 0.9)])
def test_one_momentum_stays(step: int, expected: float) -> None:
    assert teacher_momentum_at(step, 1000, momentum=0.9) == pytest.approx(expected)


def test_two_momenta_may_fall_too() -> None:
    values = [teacher_momentum_at(step, 100, momentum=[0.9, 0.5], warmup=0.0) for step in (0, 50, 100)]
    assert values == pytest.approx([0.9, 0.7, 0.5])


def test_without_warm_up_the_first_update_already_averages() -> None:
    assert teacher_momentum_at(0, 100, momentum=0.9, warmup=0.0) == pytest.approx(0.9)


def test_hundred_updates_equal_a_float64_reference() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4))
    teacher = make_teacher(student)
    reference = {name: value.double() for name, value in teacher.state_dict().items()}
    for step in range(100):
        student(torch.randn(2, 1, 5, 5, 5))  # moves the running statistics
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        momentum = teacher_momentum_at(step, 100)
        update_teacher(teacher, student, momentum)
        for name, value in student.state_dict().items():
            if value.is_floating_point():
                reference[name] = momentum * reference[name] + (1 - momentum) * value.double()
            else:
                reference[name] = value.double()
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value.double(), reference[name], rtol=1e-5, atol=1e-6)
    assert teacher.state_dict()["1.num_batches_tracked"] == 100
    assert not torch.allclose(teacher.state_dict()["1.running_mean"], student.state_dict()["1.running_mean"])


def test_the_student_is_left_alone() -> None:
    student, teacher = nn.Linear(2, 2), nn.Linear(2, 2)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    update_teacher(teacher, student, 0.5)
    torch.testing.assert_close(dict(student.state_dict()), before)


def test_a_module_of_two_names_is_averaged_once() -> None:
    student = nn.Sequential(nn.Linear(1, 1, bias=False))
    student.add_module("again", student[0])
    teacher = make_teacher(student)
    nn.init.zeros_(teacher[0].weight)
    nn.init.ones_(student[0].weight)
    update_teacher(teacher, student, 0.75)
    assert teacher.again.weight.item() == 0.25


def test_different_networks() -> None:
    with pytest.raises(ValueError, match="Teacher and student differ in .*bias"):
        update_teacher(nn.Linear(2, 2, bias=False), nn.Linear(2, 2), 0.5)


@pytest.mark.parametrize("arguments", [{"momentum": 1.1}, {"momentum": -0.1}, {"warmup": 2}, {"warmup": math.nan}])
def test_arguments_out_of_range(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be within \[0, 1\]"):
        TeacherUpdate(**arguments)


@pytest.mark.parametrize("momentum", [[], [0.9, 0.95, 1.0]])
def test_one_or_two_momenta(momentum: list[float]) -> None:
    with pytest.raises(ValueError, match="teacher_momentum must be one number, or the first and the last of two"):
        TeacherUpdate(momentum)


def test_either_of_two_momenta_may_be_out_of_range() -> None:
    for momenta in ([1.5, 1.0], [0.9, -0.1]):
        with pytest.raises(ValueError, match=r"teacher_momentum must be within \[0, 1\]"):
            TeacherUpdate(momenta)


def test_other_engines() -> None:
    with pytest.raises(TypeError, match="needs a MedContextTrainer, got Engine"):
        TeacherUpdate().attach(Engine(lambda engine, batch: None))


def test_the_teacher_starts_from_weights_that_a_handler_loads() -> None:
    engine = trainer(TinyNet(), teacher=make_teacher(TinyNet()))
    seen = []

    def load(_: Engine) -> None:
        for value in engine.student.state_dict().values():
            value.fill_(0.5)

    engine.add_event_handler(Events.STARTED, load)
    TeacherUpdate(momentum=1.0, warmup=0.0).attach(engine)  # never follows the student
    engine.add_event_handler(Events.STARTED, lambda: seen.extend(engine.teacher.state_dict().values()))
    engine.run()
    assert all(value.eq(0.5).all() for value in seen)
