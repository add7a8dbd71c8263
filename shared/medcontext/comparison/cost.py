"""Cost of each rung of the ladder: steps, time and memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain

import pandas as pd

from medcontext.comparison.results import mean
from medcontext.comparison.rungs import Draw, Rung, runs_by_rung
from medcontext.comparison.runs import TrackedRun

__all__ = ["cost_notes", "cost_table"]

_METRICS = {
    "seconds": "train_seconds",
    "processor_seconds": "train_processor_seconds",
    "memory_mib": "peak_memory_mib",
}
_STEADY = 1.25  # ratio of the slowest to the fastest time of a step up to which they count as the same


def cost_table(draws: Sequence[Draw]) -> pd.DataFrame:
    """Return the measured cost by rung.

    Args:
        draws: draws of a group.

    Returns:
        One row per rung: mean ``steps``, ``seconds`` and ``processor_seconds`` of training, ``memory_mib`` at its peak,
        ``step_seconds``, and ``time_ratio`` (:meth:`TrackedRun.time_ratio`) and ``memory_ratio`` to the baseline at
        equal steps, draw by draw; NaN if it was not logged.
    """
    rows = {}
    for rung, members in runs_by_rung(draws).items():
        rows[rung] = {
            "steps": mean(run.steps for run in members),
            **{name: mean(run.metrics.get(metric, math.nan) for run in members) for name, metric in _METRICS.items()},
            "step_seconds": mean(_step_seconds(run) for run in members),
            "time_ratio": mean(base.time_ratio(own) for own, base in _beside_baseline(draws, rung)),
            "memory_ratio": mean(_memory_ratio(own, base) for own, base in _beside_baseline(draws, rung)),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def cost_notes(draws: Sequence[Draw]) -> list[str]:
    """Return reasons to doubt that times can be compared."""
    rungs = runs_by_rung(draws)
    members = list(dict.fromkeys(chain.from_iterable(rungs.values())))
    notes = []
    machines = sorted({_machine(run) for run in members})
    if len(machines) > 1:
        notes.append(f"The runs trained on different devices ({', '.join(machines)}): do not compare their times.")
    for rung, runs in rungs.items():
        seconds = [value for run in runs if math.isfinite(value := _step_seconds(run))]
        if seconds and max(seconds) > _STEADY * min(seconds):
            notes.append(
                f"{rung[0].upper()}{rung[1:]} took {min(seconds):.3g} to {max(seconds):.3g} s for the same step: "
                "the machine was shared, or not always the same."
            )
    return notes


def _machine(run: TrackedRun) -> str:
    return run.tags.get("gpu", run.params.get("device", "unknown"))


def _step_seconds(run: TrackedRun) -> float:
    return run.metrics.get("train_seconds", math.nan) / run.steps


def _beside_baseline(draws: Iterable[Draw], rung: Rung) -> list[tuple[TrackedRun, TrackedRun]]:
    """Pair a rung's runs with the baseline at equal steps of the same draw."""
    return [
        (draw.runs[rung], draw.runs[Rung.BASELINE])
        for draw in draws
        if rung in draw.runs and Rung.BASELINE in draw.runs
    ]


def _memory_ratio(run: TrackedRun, base: TrackedRun) -> float:
    baseline_mib = base.metrics.get("peak_memory_mib", 0.0)
    return run.metrics.get("peak_memory_mib", math.nan) / baseline_mib if baseline_mib else math.nan
