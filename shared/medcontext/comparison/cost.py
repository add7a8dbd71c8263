"""What MedContext and its controls cost: steps, time and memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain

import pandas as pd

from medcontext.comparison.pairing import MEDCONTEXT, Control, PairedRun
from medcontext.comparison.runs import TrackedRun

__all__ = ["cost_notes", "cost_table", "runs_by_role"]

_STEADY = 1.25  # ratio of the slowest to the fastest time of a step that still counts as the same


def runs_by_role(runs: Iterable[PairedRun]) -> dict[str, list[TrackedRun]]:
    """MedContext runs, and the controls of each kind, each run once, in the order in which they are shown."""
    runs = list(runs)
    found = {MEDCONTEXT: [paired.run for paired in runs]}
    for control in Control:
        found[control] = list(dict.fromkeys(r.controls[control] for r in runs if control in r.controls))
    return {role: members for role, members in found.items() if members}


def cost_table(runs: Sequence[PairedRun]) -> pd.DataFrame:
    """Measured cost by role.

    Args:
        runs: MedContext runs of a group with their controls.

    Returns:
        One row per role: mean ``steps``, ``seconds`` of training, ``memory_mib`` at its peak, ``step_seconds``, and
        ``time_ratio`` and ``memory_ratio`` to the baseline at equal steps, pair by pair; NaN where it was not logged.
    """
    rows = {}
    for role, members in runs_by_role(runs).items():
        rows[role] = {
            "steps": _mean(run.steps for run in members),
            "seconds": _mean(run.metrics.get("train_seconds", math.nan) for run in members),
            "memory_mib": _mean(run.metrics.get("peak_memory_mib", math.nan) for run in members),
            "step_seconds": _mean(_step_seconds(run) for run in members),
            "time_ratio": _ratio(runs, role, "train_seconds"),
            "memory_ratio": _ratio(runs, role, "peak_memory_mib"),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def cost_notes(runs: Sequence[PairedRun]) -> list[str]:
    """Reasons to doubt that times can be compared."""
    roles = runs_by_role(runs)
    members = list(chain.from_iterable(roles.values()))
    notes = []
    machines = sorted({_machine(run) for run in members})
    if len(machines) > 1:
        notes.append(f"The runs trained on different devices ({', '.join(machines)}): do not compare their times.")
    for role, some in roles.items():
        seconds = [value for run in some if math.isfinite(value := _step_seconds(run))]
        if seconds and max(seconds) > _STEADY * min(seconds):
            notes.append(
                f"{role[0].upper()}{role[1:]} took {min(seconds):.3g} to {max(seconds):.3g} s for the same step: "
                "the machine was shared, or not always the same one."
            )
    return notes


def _machine(run: TrackedRun) -> str:
    return run.tags.get("gpu", run.params.get("device", "unknown"))


def _step_seconds(run: TrackedRun) -> float:
    return run.metrics.get("train_seconds", math.nan) / run.steps


def _ratio(runs: Iterable[PairedRun], role: str, metric: str) -> float:
    """Mean over the pairs of a role's metric as a share of that of the baseline at equal steps."""
    ratios = []
    for paired in runs:
        own = paired.run if role == MEDCONTEXT else paired.controls.get(Control(role))
        base = paired.controls.get(Control.EQUAL_STEPS)
        if own and base and metric in own.metrics and base.metrics.get(metric):
            ratios.append(own.metrics[metric] / base.metrics[metric])
    return _mean(ratios)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
