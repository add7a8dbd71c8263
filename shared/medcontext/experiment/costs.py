"""Cost of a training step of each mode, measured side by side, and the number of steps that fit in equal time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medcontext.experiment.grid import MODES
from medcontext.experiment.planning import Job
from medcontext.experiment.running import environments
from medcontext.storage.files import write_file

__all__ = ["COSTS_FILE", "Costs", "known_costs", "measure_costs", "with_equal_time"]

COSTS_FILE = "costs.json"
REFERENCE = "medcontext"

# keys that distinguish runs of one setting, or follow from their number of cases, and do not change a step's cost
_KEYS_OF_A_RUN = {
    *("run_id", "run_name", "experiment_name", "seed", "train_fraction", "train_cases", "fold", "num_folds"),
    *("max_epochs", "val_interval", "checkpoint_interval"),
}

Seconds = dict[str, float]
"""Seconds per step by mode of training, from one measurement, so that they can be compared."""
Costs = Mapping[tuple[str, str], Mapping[str, Seconds]]
"""By bundle and dataset, the measurement of each mode of equal time."""


def known_costs(jobs: Sequence[Job], output_dir: str | os.PathLike[str]) -> Costs:
    """Return the costs that an earlier call measured for the settings of these jobs.

    Args:
        jobs: jobs from :func:`~medcontext.experiment.plan`.
        output_dir: folder of the experiment.

    Raises:
        ValueError: If the folder's file of costs cannot be read.
    """
    path = Path(output_dir) / COSTS_FILE
    try:
        records = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        costs: dict[tuple[str, str], dict[str, Seconds]] = {}
        for job in jobs:
            for record in records:
                if record["settings"] == _settings(job) and MODES[job.cell.mode].training in record["seconds"]:
                    costs.setdefault(job.place, {}).setdefault(job.cell.mode, record["seconds"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} holds no costs of steps; remove it to measure them again.") from error
    return costs


def measure_costs(jobs: Sequence[Job], output_dir: str | os.PathLike[str], devices: Sequence[str | int] = ()) -> Costs:
    """Measure the cost of a step in each mode of equal time, unless an earlier call did.

    For each bundle and dataset, all modes train in turn in one process, on the first of the devices, with the
    configuration and cases of the first run (:func:`~medcontext.experiment.measuring.step_seconds`). The results are
    kept in ``output_dir``, so that resumed and added runs train for as many steps as the first.

    Args:
        jobs: jobs from :func:`~medcontext.experiment.plan`.
        output_dir: folder of the experiment.
        devices: devices as for :func:`~medcontext.experiment.run_cells`.

    Raises:
        ValueError: If a step cannot be measured.
    """
    folder = Path(output_dir)
    known = known_costs(jobs, folder)
    missing: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        if MODES[job.cell.mode].equal_time and job.cell.mode not in known.get(job.place, {}):
            missing.setdefault(job.place, []).append(job)
    for unmeasured in missing.values():
        first = unmeasured[0]
        print(
            f"measuring the cost of steps, {first.cell.dataset_name} with {Path(first.cell.bundle).name}",
            file=sys.stderr,
        )
        arguments = {REFERENCE: first.reference}
        for job in unmeasured:
            arguments.setdefault(MODES[job.cell.mode].training, job.training)
        record = {
            "bundle": Path(first.cell.bundle).name,
            "dataset": first.cell.dataset_name,
            **_measure_in_process(arguments, folder, environments(devices)[0]),
            "settings": _settings(first),
        }
        path = folder / COSTS_FILE
        records = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        write_file(path, (json.dumps([*records, record], indent=4) + "\n").encode())
    return known_costs(jobs, folder) if missing else known


def with_equal_time(jobs: Sequence[Job], costs: Costs) -> list[Job]:
    """Give the modes of equal time as many epochs as fit in the time of ``medcontext``, at least one.

    Args:
        jobs: jobs from :func:`~medcontext.experiment.plan`.
        costs: costs from :func:`measure_costs`; jobs whose mode they lack stay as they are.
    """
    changed = []
    for job in jobs:
        seconds = costs.get(job.place, {}).get(job.cell.mode) if MODES[job.cell.mode].equal_time else None
        if seconds is not None:
            times = seconds[REFERENCE] / seconds[MODES[job.cell.mode].training]
            epochs, interval = job.training["max_epochs"], job.training["val_interval"]
            length = {"max_epochs": math.floor(epochs * times + 1e-9), "val_interval": round(interval * times)}
            job = replace(job, training={**job.training, **{name: max(1, count) for name, count in length.items()}})
        changed.append(job)
    return changed


def _settings(job: Job) -> dict[str, Any]:
    """Return the settings that the costs depend on, as read back from JSON."""
    kept = {name: value for name, value in job.reference.items() if name not in _KEYS_OF_A_RUN}
    settings: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return settings


def _measure_in_process(arguments: Mapping[str, Any], folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Measure in a separate process, which sees the same devices as the training runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        arguments_file, result = Path(scratch) / "arguments.json", Path(scratch) / "costs.json"
        arguments_file.write_text(json.dumps(arguments, default=str), encoding="utf-8")
        command = [sys.executable, "-m", "medcontext.experiment.measuring", str(arguments_file), str(result)]
        log = folder / "costs.log"
        with log.open("ab") as stream:
            code = subprocess.run(command, stdout=stream, stderr=stream, env={**os.environ, **environment}).returncode
        if code:
            raise ValueError(f"The cost of a step could not be measured (the process ended with {code}), see {log}.")
        measured: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return measured
