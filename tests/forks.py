"""Processes that have loaded what takes seconds when they start: forked from one that has done nothing else.

For tests that end a process or look at what it leaves behind. They share one server in each process that runs tests,
and belong to the group ``forks`` so that there is one server in all.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

LOADED = ["monai.bundle", "mlflow.store.tracking.sqlalchemy_store", "torch._dynamo", "torch.utils.tensorboard"]
LOADED += [f"medcontext.{room}" for room in ("bundle", "engines", "handlers", "networks", "providers", "transforms")]


def forked(call: Callable[..., object], *arguments: Any, output: str = os.devnull) -> BaseProcess:
    """Start a process that calls a function of a module; what it prints is appended to the file ``output``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    circumstances = os.getcwd(), dict(os.environ), multiprocessing.get_start_method(), output
    process = context.Process(target=_called, args=(call, arguments, *circumstances))
    process.start()
    return process


def forked_module(words: Sequence[str], environment: Mapping[str, str], output: str) -> BaseProcess:
    """Start ``python -m MODULE ARGUMENT …``, given as the words of that command."""
    return forked(_run_module, list(words[2:]), dict(environment), output=output)


def _called(
    call: Callable[..., object],
    arguments: Sequence[Any],
    folder: str,
    environment: dict[str, str],
    start_method: str,
    output: str,
) -> None:
    multiprocessing.set_start_method(start_method, force=True)  # its loaders would load everything anew otherwise
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    call(*arguments)


def _run_module(words: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


class ForkedCommand:
    """``subprocess.Popen`` for ``python -m MODULE ARGUMENT …``, as far as it takes to wait for the end."""

    def __init__(self, words: Sequence[str], *, stdout: Any, env: Mapping[str, str], **_: Any) -> None:
        self.process = forked_module(words, env, stdout.name)
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode
