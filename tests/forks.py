"""Processes that have loaded what takes seconds when they start: forked from one that has done nothing else.

For tests that end a process or look at what it leaves behind. They share one server in each process that runs tests,
and belong to the group ``forks`` so that there is one server in all. The server is a Python of its own, whose hashes of
strings are others than those of the tests.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mlflow_server import free_port

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


def torchrun(processes: int, words: Sequence[str], output: Path) -> None:
    """Run ``torchrun --nproc_per_node PROCESSES -m MODULE ARGUMENT …`` with forks, given the words from ``-m`` on."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    place |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    started = [
        forked_module(["python", *words], {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}, str(output))
        for rank in range(processes)
    ]
    left = started
    while left:
        wait([process.sentinel for process in left])
        left = [process for process in left if process.is_alive()]
        if any(process.exitcode for process in started):  # the others would wait for it
            for process in left:
                process.kill()
    assert [process.exitcode for process in started] == [0] * processes, output.read_text()[-3000:]


def run_script(folder: Path, script: str, words: Sequence[str], output: Path, umask: int) -> int | None:
    """Run ``python SCRIPT ARGUMENT …`` in a folder that holds the script, and return its exit code."""
    process = forked(_run_script, folder, script, list(words), umask, output=str(output))
    process.join()
    return process.exitcode


def write_key(transforms: Sequence[Any], key: str, string_hash: str) -> None:
    """Write a cache's key of transforms, and this process's hash of a string."""
    from medcontext.data.caching import transforms_key

    Path(key).write_bytes(transforms_key(transforms))
    Path(string_hash).write_text(str(hash("the image")))


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


def _run_script(folder: Path, script: str, words: list[str], umask: int) -> None:
    os.chdir(folder)
    os.umask(umask)
    sys.path.insert(0, str((folder / script).parent))
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")


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
