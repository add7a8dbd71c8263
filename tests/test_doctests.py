"""The examples in docstrings run, and every public transform, loss, metric and network has one."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from enum import Enum

import pytest

import medcontext.checks
import medcontext.cli
import medcontext.engines
import medcontext.faults
import medcontext.handlers
import medcontext.inferers
import medcontext.labels
import medcontext.losses
import medcontext.metrics
import medcontext.networks
import medcontext.planning
import medcontext.tracking
import medcontext.transforms

ROOMS = (medcontext.losses, medcontext.metrics, medcontext.networks, medcontext.transforms)


def modules() -> Iterator[str]:
    yield from (
        module.__name__ for module in (medcontext.checks, medcontext.faults, medcontext.inferers, medcontext.labels)
    )
    rooms = (medcontext.cli, medcontext.engines, medcontext.handlers, medcontext.planning, medcontext.tracking)
    for room in (*rooms, *ROOMS):
        yield from (found.name for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."))


def computes(member: object) -> bool:
    """Whether a member is a function or class that does something, rather than a record of values."""
    if inspect.isclass(member):
        return not (issubclass(member, Enum | Exception) or dataclasses.is_dataclass(member))
    return inspect.isfunction(member)


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not result.failed


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_every_public_class_and_function_has_an_example(room: object) -> None:
    public = {name: getattr(room, name) for name in room.__all__}
    assert not [name for name, member in public.items() if computes(member) and ">>>" not in (member.__doc__ or "")]
