"""A training run that is killed twenty times ends as one that never was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import pytest
import torch
from monai.utils import path_to_sqlite_uri

from bundle_runs import UNETR, command, runs_of
from crashes import MOMENTS, train_and_die
from forks import forked, forked_module
from mlflow_server import free_port
from platforms import posix_only
from waiting import until

pytestmark = [posix_only, pytest.mark.slow, pytest.mark.xdist_group("forks")]

EPOCHS, KILLS = 30, 20


def start(
    home: Path,
    run_name: str,
    processes: int,
    workers: int,
    death: tuple[str, int, float] | None = None,
    epochs: int = EPOCHS,
) -> int | None:
    """Train or resume in forked processes, of which the first may die, and return its exit code."""
    overlays = ["multi_gpu_train"] if processes > 1 else []
    keys: dict[str, Any] = {"run_name": run_name, "max_epochs": epochs, "num_workers": workers, "system_metrics": False}
    words = command(UNETR, "training", "train", "auto_resume", *overlays, **keys)
    port = str(free_port())
    group = []
    for rank in range(processes):
        environment = {"OMP_NUM_THREADS": "1"}
        if processes > 1:
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        output = str(home / f"output{rank}.txt")
        group.append(
            forked(train_and_die, *death, words, environment, output=output)
            if death is not None and rank == 0
            else forked_module(words, environment, output)
        )
    return joined(group)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_torchrun_is_signalled(home: Path, number: signal.Signals) -> None:
    """All processes stop after the same step, which is saved, and the resumed run ends as the one that was not."""
    epochs = 8
    assert start(home, "whole", 2, 1, epochs=epochs) == 0
    keys = {"run_name": "cut", "max_epochs": epochs, "num_workers": 1, "checkpoint_interval": epochs}
    words = command(UNETR, "training", "train", "multi_gpu_train", processes=2, **keys)
    with (home / "output.txt").open("w") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"})
    until(lambda: (home / "runs" / UNETR / "cut" / "models" / "history.csv").exists(), seconds=300)
    group = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert process.wait(timeout=120)
    assert not psutil.wait_procs(group, timeout=10)[1]
    text = (home / "output.txt").read_text()
    step = torch.load(home / "runs" / UNETR / "cut" / "models" / "last.pt", weights_only=True)["trainer"]["iteration"]
    assert text.count(f"after step {step}; resume.json resumes the run there.") == 1
    assert step < epochs
    assert start(home, "cut", 2, 1, epochs=epochs) == 0
    whole, cut = (content(home / "runs" / UNETR / name / "models") for name in ("whole", "cut"))
    torch.testing.assert_close(cut["tensors"], whole["tensors"], rtol=0, atol=0)


def joined(group: list[BaseProcess]) -> int | None:
    """Wait for the first process, and kill the others if it was."""
    first, *others = group
    first.join(timeout=600)
    for process in others:
        if first.exitcode:
            process.kill()
        process.join(timeout=60)
    return first.exitcode


def content(folder: Path) -> dict[str, Any]:
    """Everything that a run leaves for the next, but for times."""
    found = {name: torch.load(folder / name, weights_only=True) for name in ("last.pt", "model.pt", "teacher.pt")}
    facts = found["last.pt"].pop("facts")
    del found["last.pt"]["trainer"]["train_processor_seconds"]
    table = pd.read_csv(folder / "history.csv").drop(columns="train_processor_seconds")
    return {"tensors": found, "facts": facts, "history": table.to_csv()}


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2)])
def test_twenty_kills(home: Path, processes: int, workers: int) -> None:
    assert start(home, "whole", processes, workers) == 0
    draw = random.Random(processes * 10 + workers)
    for _ in range(KILLS):
        moment, (_, _, calls) = draw.choice(list(MOMENTS.items()))
        death = moment, draw.randint(1, calls), draw.choice([0.0, draw.uniform(0, 0.1)])
        assert start(home, "killed", processes, workers, death) == -signal.SIGKILL, death
    assert start(home, "killed", processes, workers) == 0
    whole, killed = (content(home / "runs" / UNETR / name / "models") for name in ("whole", "killed"))
    torch.testing.assert_close(killed.pop("tensors"), whole.pop("tensors"), rtol=0, atol=0)
    assert killed == whole
    assert not list((home / "runs" / UNETR / "killed").rglob(".*.tmp"))
    found = {run.info.run_name: run for run in runs_of(home)}
    assert len(runs_of(home)) == 2
    assert found["killed"].info.status == "FINISHED"
    client = mlflow.MlflowClient(path_to_sqlite_uri(str(home / "mlruns.db")))
    histories = [client.get_metric_history(found[name].info.run_id, "train_loss") for name in ("whole", "killed")]
    steps, again = ([(point.step, point.value) for point in history] for history in histories)
    assert again == steps
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1))
