"""Training and evaluation of an experiment's cells, with a process for each."""

from __future__ import annotations

import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from medcontext.experiment.grid import config_file
from medcontext.experiment.planning import Job
from medcontext.handlers.training_state import training_states
from medcontext.storage.files import write_file
from medcontext.tracking.tracker import check_tracking

__all__ = ["environments", "run_cells"]

STATES = ("new", "trained", "evaluated")


def run_cells(
    jobs: Sequence[Job],
    output_dir: str | os.PathLike[str],
    devices: Sequence[str | int] = (),
    minutes: float | None = None,
) -> list[str]:
    """Train and evaluate all cells, one after the other on each device.

    Cells that an earlier call finished are skipped; an interrupted training run is resumed from its last checkpoint. A
    cell that fails does not stop the others. For every cell, ``output_dir`` holds the arguments, the state and a log.

    Args:
        jobs: jobs from :func:`~medcontext.experiment.plan`.
        output_dir: folder of the experiment.
        devices: GPU numbers, or ``cpu``; one process runs on each, and a device may be named several times. Without
            any, one process runs on the device that the configuration chooses.
        minutes: time after which all runs are stopped, as by Ctrl-C.

    Returns:
        A sentence about each cell that failed.

    Raises:
        ValueError: If the folder holds cells of the same name with other settings, or one that is still running.
    """
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    records = [_Record(job, folder) for job in jobs]
    unfinished = [record for record in records if record.state != "evaluated"]
    free_environments: queue.Queue[Mapping[str, str]] = queue.Queue()
    all_environments = environments(devices)
    for environment in all_environments:
        free_environments.put(environment)
    for uri in {job.tracking_uri for job in jobs}:
        check_tracking(uri)
    if len(unfinished) < len(records):
        print(f"{len(records) - len(unfinished)} of {len(records)} runs were done before.", file=sys.stderr)

    def work(record: _Record) -> str | None:
        environment = free_environments.get()
        try:
            return record.run(environment)
        finally:
            free_environments.put(environment)

    failures = []
    with tqdm(total=len(records), initial=len(records) - len(unfinished), unit="run", desc="experiment") as bar:
        pool = ThreadPoolExecutor(max_workers=len(all_environments))
        futures = [pool.submit(work, record) for record in unfinished]
        try:
            pending = set(futures)
            while pending and time.monotonic() < deadline:
                done, pending = wait(pending, timeout=1, return_when=FIRST_EXCEPTION)
                failures += [failure for future in done if (failure := future.result())]
                if done:
                    bar.update(len(done))
        finally:  # after an exception, Ctrl-C included, no process is left running
            for future in futures:
                future.cancel()
            for record in unfinished:
                record.stop()
            pool.shutdown()
    if time.monotonic() >= deadline:
        left = sum(record.state != STATES[-1] for record in records)
        print(f"Stopped after {minutes:g} minutes, {left} of {len(records)} runs are left.", file=sys.stderr)
    return failures


class _Record:
    """Record of a cell on disk: its arguments, its progress, and its process."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.path = folder / f"{job.name}.json"
        self.log = folder / f"{job.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.started = self.stopped = False
        self.state = STATES[0]
        settings = {"training": job.training, "evaluating": job.evaluating}
        self.content: dict[str, Any] = {"cell": asdict(job.cell), "state": self.state, "pid": None, **settings}
        if self.path.is_file():
            self._take_over(json.loads(self.path.read_text(encoding="utf-8")))

    def _take_over(self, earlier: dict[str, Any]) -> None:
        content = json.loads(json.dumps(self.content))
        different = sorted(
            key
            for part in ("training", "evaluating")
            for key in earlier[part].keys() | content[part].keys()
            if earlier[part].get(key) != content[part].get(key)
        )
        if different:
            raise ValueError(
                f"{self.path} was run with other values of {', '.join(dict.fromkeys(different))}; "
                "choose another experiment_name, or another output_dir."
            )
        pid = earlier["pid"]
        if pid is not None and _is_running(pid, self.job.name):
            raise ValueError(f"{self.job.name} is still run by process {pid}; wait for it, or end it.")
        self.started = pid is not None
        self.state = self.content["state"] = earlier["state"]

    def run(self, environment: Mapping[str, str]) -> str | None:
        """Run the rest of the cell; return a sentence if it failed."""
        for entry, state in (("training", "trained"), ("evaluating", "evaluated")):
            if STATES.index(self.state) >= STATES.index(state):
                continue
            if self.stopped:
                return None
            code = self._call(entry, environment) if self.content[entry] else 0
            if self.stopped:
                return None
            if code:
                return f"{self.job.name}: {entry} ended with {code}, see {self.log}"
            self._save(state=state, pid=None)
        return None

    def _call(self, entry: str, environment: Mapping[str, str]) -> int:
        arguments = dict(self.content[entry])
        if entry == "training" and training_states(self.job.run_dir / "models"):
            arguments["config_file"] = [*arguments["config_file"], config_file(self.job.cell, "resume")]
        elif entry == "training" and self.started:
            shutil.rmtree(self.job.run_dir, ignore_errors=True)  # interrupted before it saved its state
        file = self.path.with_suffix(f".{entry}.json")
        write_file(file, (json.dumps(arguments, indent=4) + "\n").encode())
        command = [sys.executable, "-m", "monai.bundle", "run", "--args_file", str(file)]
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # a Ctrl-C of the terminal would reach it twice
            )
            self._save(pid=self.process.pid)
            self.started = True
            if self.stopped:
                self.stop()
            return self.process.wait()

    def _save(self, **changes: Any) -> None:
        self.content.update(changes)
        self.state = self.content["state"]
        write_file(self.path, (json.dumps(self.content, indent=4) + "\n").encode())

    def stop(self) -> None:
        """End the process as by Ctrl-C, so that it can mark its MLflow run, or else by force."""
        self.stopped = True
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def _is_running(pid: int, name: str) -> bool:
    """Return whether a process that runs this cell is alive; ids of processes are reused."""
    try:
        return any(name in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def environments(devices: Sequence[str | int]) -> list[dict[str, str]]:
    """Return, for each process that runs at a time, the environment that keeps it on its device.

    Args:
        devices: devices as for :func:`run_cells`.

    Raises:
        ValueError: If a device is neither a number nor ``cpu``.
    """
    if not devices:
        return [{}]
    variables = []
    for device in devices:
        number = str(device).removeprefix("cuda:")
        if number != "cpu" and not number.isdigit():
            raise ValueError(f"devices must be GPU numbers or cpu, got {device!r}.")
        variables.append({"CUDA_VISIBLE_DEVICES": "" if number == "cpu" else number})
    cpu_only = all(environment["CUDA_VISIBLE_DEVICES"] == "" for environment in variables)
    if cpu_only and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // len(variables))
        variables = [{**environment, "OMP_NUM_THREADS": str(threads)} for environment in variables]
    return variables
