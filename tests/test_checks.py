from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from medcontext.checks import (
    check_above_zero,
    check_arguments,
    check_choice,
    check_fraction,
    check_integer,
    check_integers,
    check_not_negative,
    nearest_name,
)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("max_epoch", {"max_epochs", "batch_size"}, " Did you mean 'max_epochs'?"),
        ("max_epoch", {"seed": 1}, ""),
        ("x", [], ""),
        (None, ["none", "all"], " Did you mean 'none'?"),
        (3, ["13", "8"], " Did you mean '13'?"),
    ],
)
def test_hint_at_the_nearest_name(name: object, known: Any, hint: str) -> None:
    assert nearest_name(name, known) == hint


def test_arguments_of_a_function() -> None:
    def crop(size: int, *, margin: int = 0) -> None: ...

    check_arguments(crop, {"size": 1, "margin": 2})
    with pytest.raises(TypeError, match=r"^crop has no argument 'margins'. Did you mean 'margin'\?$"):
        check_arguments(crop, {"size": 1, "margins": 2})


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (lambda v: check_choice("x", v, ("a", "b")), "b", "b"),
        (lambda v: check_fraction("x", v), np.float32(0.5), 0.5),
        (lambda v: check_fraction("x", v), Fraction(1, 4), 0.25),
        (lambda v: check_integer("x", v, minimum=0, remedy=""), np.int64(3), 3),
        (lambda v: check_integers("x", v, minimum=1), [1, np.uint8(2)], (1, 2)),
        (lambda v: check_integers("x", v, minimum=1), 4, 4),
        (lambda v: check_not_negative("x", v), 0, 0.0),
        (lambda v: check_above_zero("x", v, remedy=""), 1e-9, 1e-9),
    ],
)
def test_values_that_pass(check: Any, value: Any, expected: Any) -> None:
    found = check(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("check", "value", "error", "message"),
    [
        (
            lambda v: check_choice("x", v, ("mean", "zero")),
            "zeros",
            ValueError,
            "'mean', 'zero', got 'zeros'. Did",
        ),
        (lambda v: check_fraction("x", v), True, TypeError, "x must be a number, got True"),
        (lambda v: check_fraction("x", v, above_zero=True), 0, ValueError, r"x must lie in \(0, 1\], got 0: give a"),
        (lambda v: check_integer("x", v, minimum=0, remedy="r"), 1.0, TypeError, "x must be an integer, got 1.0: r."),
        (lambda v: check_integers("x", v, minimum=1), "12", TypeError, "x must be an integer, got '12'"),
        (lambda v: check_integers("x", v, minimum=1), (), ValueError, "x must not be empty: give voxels"),
        (lambda v: check_not_negative("x", v), math.inf, ValueError, "x must be 0 or more and finite, got inf"),
        (
            lambda v: check_above_zero("x", v, remedy="use None"),
            0.0,
            ValueError,
            "x must be above 0, got 0.0: use None",
        ),
    ],
)
def test_values_that_are_refused(check: Any, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check(value)
