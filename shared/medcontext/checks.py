"""Checks of arguments, and the hint at the name that was meant."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

__all__ = [
    "check_above_zero",
    "check_arguments",
    "check_choice",
    "check_flag",
    "check_fraction",
    "check_integer",
    "check_integers",
    "check_not_negative",
    "nearest_name",
]


def nearest_name(name: object, known: Iterable[str]) -> str:
    """Return a hint at the known name that is most like a misspelt one, to end a message with.

    Args:
        name: the name that is not known.
        known: the names that are.

    Returns:
        `` Did you mean 'name'?`` with a space in front, or nothing where no name is like it.

    Example:
        >>> nearest_name("spleeen", ["spleen", "liver"])
        " Did you mean 'spleen'?"
        >>> nearest_name("aorta", ["spleen", "liver"])
        ''
    """
    nearest = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def check_arguments(component: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Refuse keyword arguments that a class or function does not take.

    Raises:
        TypeError: If one is unknown; the message names it and the argument that is most like it.
    """
    known = inspect.signature(component).parameters
    for name in arguments:
        if name not in known:
            raise TypeError(f"{component.__name__} has no argument {name!r}.{nearest_name(name, known)}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> Any:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        ValueError: If it is not.
    """
    allowed = [str(choice) for choice in choices]
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}.{nearest_name(value, allowed)}"
        )
    return value


def check_flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is ``True`` or ``False``.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}.")
    return value


def check_fraction(
    name: str, value: float, *, above_zero: bool = False, remedy: str = "give a share, such as 0.4 for 40 %"
) -> float:
    """Return ``value`` if it lies in [0, 1], or in (0, 1] with ``above_zero``.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it lies outside.
    """
    _check_number(name, value)
    if not 0 <= value <= 1 or (above_zero and value == 0):
        interval = "(0, 1]" if above_zero else "[0, 1]"
        raise ValueError(f"{name} must lie in {interval}, got {value}: {remedy}.")
    return float(value)


def check_integers(
    name: str, value: int | Sequence[int], *, minimum: int, remedy: str = "give voxels, such as 8 or (8, 8, 4)"
) -> int | tuple[int, ...]:
    """Return ``value``, an integer or a sequence of integers (as a tuple), if none is below ``minimum``.

    Raises:
        TypeError: If it is neither.
        ValueError: If a number is too small or the sequence is empty.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        return check_integer(name, value, minimum=minimum, remedy=remedy)
    if not value:
        raise ValueError(f"{name} must not be empty: {remedy}.")
    return tuple(check_integer(name, number, minimum=minimum, remedy=remedy) for number in value)


def check_integer(name: str, value: int, *, minimum: int, remedy: str) -> int:
    """Return ``value`` if it is one integer of at least ``minimum``.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}: {remedy}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}: {remedy}.")
    return int(value)


def check_not_negative(name: str, value: float, *, remedy: str = "0 switches it off") -> float:
    """Return ``value`` if it is a finite number, 0 or more.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is negative or not finite.
    """
    _check_number(name, value)
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 or more and finite, got {value}: {remedy}.")
    return float(value)


def check_above_zero(name: str, value: float, *, remedy: str) -> float:
    """Return ``value`` if it is a number above 0.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is 0 or less.
    """
    _check_number(name, value)
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}: {remedy}.")
    return float(value)


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__}).")
