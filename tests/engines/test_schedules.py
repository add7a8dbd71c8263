from __future__ import annotations

import pytest
import torch

from medcontext.engines import WarmupPolynomialSchedule
from medcontext.engines.schedules import ramp


def schedule(warmup_steps: int = 0, t_total: int = 4, power: float = 0.9) -> WarmupPolynomialSchedule:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    return WarmupPolynomialSchedule(optimizer, warmup_steps, t_total, power)


def rates(schedule: WarmupPolynomialSchedule, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"power": 1.0}, [2.0, 1.5, 1.0, 0.5, 0.0, 0.0]),
        ({}, [2.0, 2 * 0.75**0.9, 2 * 0.5**0.9, 2 * 0.25**0.9, 0.0]),
        ({"power": 1.0, "warmup_steps": 2}, [2 / 3, 1.5 * 2 / 3, 1.0, 0.5, 0.0]),
    ],
)
def test_the_curve(arguments: dict[str, float], expected: list[float]) -> None:
    assert rates(schedule(**arguments), len(expected)) == pytest.approx(expected)


def test_a_restored_schedule_continues() -> None:
    whole, cut, rest = schedule(), schedule(), schedule()
    expected = rates(whole, 4)
    rates(cut, 2)
    rest.load_state_dict(cut.state_dict())
    rest.optimizer.param_groups[0]["lr"] = cut.optimizer.param_groups[0]["lr"]
    assert rates(rest, 2) == pytest.approx(expected[2:])


@pytest.mark.parametrize("arguments", [{"t_total": 0}, {"warmup_steps": -1}, {"power": -1.0}])
def test_impossible_curves(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="t_total must be 1 or more, warmup_steps and power 0 or more, got"):
        schedule(**arguments)


@pytest.mark.parametrize(
    ("progress", "arguments", "expected"),
    [
        (0.0, {}, 1.0),
        (1.0, {}, 1.0),
        (0.1, {"length": 0.4}, 0.25),
        (0.3, {"start": 0.2, "length": 0.4}, 0.25),
        (0.1, {"start": 0.2}, 0.0),
        (0.2, {"start": 0.2}, 1.0),
        (0.79, {"length": 0.4, "end": 0.8}, 1.0),
        (0.8, {"length": 0.4, "end": 0.8}, 0.0),
        (0.5, {"length": 1.0, "end": 0.75}, 0.5),
    ],
)
def test_a_ramp_up_to_its_end(progress: float, arguments: dict[str, float], expected: float) -> None:
    assert ramp(progress, **arguments) == pytest.approx(expected)
