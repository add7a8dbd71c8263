"""The examples in docstrings run, and every public transform, loss, metric and network has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import medcontext.checks
import medcontext.transforms

ROOMS = (medcontext.transforms,)


def modules() -> Iterator[str]:
    yield medcontext.checks.__name__
    for room in ROOMS:
        yield from (found.name for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."))


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not result.failed


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_every_public_class_and_function_has_an_example(room: object) -> None:
    public = {name: getattr(room, name) for name in room.__all__}
    components = [name for name, member in public.items() if callable(member) and member.__doc__]
    assert not [name for name in components if ">>>" not in public[name].__doc__]
