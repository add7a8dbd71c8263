"""Tables of a comparison: the ladder, differences, worth of labels, and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from medcontext.comparison.few_shot import FewShot
from medcontext.comparison.pairing import Role
from medcontext.comparison.predictions import Predictions
from medcontext.comparison.results import Result
from medcontext.comparison.rungs import Basis
from medcontext.comparison.runs import TrackedRun
from medcontext.comparison.verdicts import Group

__all__ = ["difference_rows", "efficiency_rows", "ladder_rows", "prediction_rows", "run_rows"]


def ladder_rows(groups: Sequence[Group]) -> pd.DataFrame:
    """Return one row per group and rung: its gains over the rung below and over the baseline, and its cost."""
    rows = []
    for group in groups:
        for step in group.ladder.steps:
            row = {**group.values, "rung": step.rung.key, "runs": step.runs, "mean_dice": step.mean_dice}
            row |= {"steps": step.length, "step_cost": step.cost}
            for basis in Basis:
                row |= _gain_columns(f"over_below_{basis.key}", step.over_below(basis), named=True)
                row |= _gain_columns(f"over_baseline_{basis.key}", step.over_baseline(basis))
            rows.append(row)
    return pd.DataFrame(rows)


def _gain_columns(name: str, result: Result | None, named: bool = False) -> dict[str, object]:
    """Return a result's columns, which are empty without a result."""
    value, low, high = (None, None, None) if result is None else result.mean
    opponent = {f"{name}_rung": "" if result is None else result.lower.key} if named else {}
    seeds = 0 if result is None else result.seeds
    return {**opponent, name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_seeds": seeds}


def difference_rows(groups: Sequence[Group]) -> pd.DataFrame:
    """Return one row per group, subject, control and class."""
    tables = []
    for group in groups:
        for rung, subject in group.subjects.items():
            for control, result in subject.results.items():
                table = result.table.rename_axis("class").reset_index()
                leading: dict[str, str | int] = {
                    **group.values,
                    "run": str(rung),
                    "control": str(control),
                    "pairs": result.pairs,
                    "seeds": result.seeds,
                }
                for position, (name, value) in enumerate(leading.items()):
                    table.insert(position, name, value)
                tables.append(table.assign(verdict=[""] * (len(table) - 1) + [str(result.verdict)]))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["control"])


def efficiency_rows(settings: Mapping[str, FewShot]) -> pd.DataFrame:
    """Return one row per setting, by its name, rung and number of labelled cases: what they are worth."""
    columns = ["setting", "rung", "baseline", "labelled_cases"]
    columns += [f"{name}{ending}" for name in ("equal_cases", "doubling") for ending in ("", "_low", "_high")]
    rows = [
        (name, worth.rung.key, worth.control.key, worth.cases, *worth.equal_within_reach, *worth.doubling)
        for name, setting in settings.items()
        for worth in setting.efficiency.worths
    ]
    return pd.DataFrame(rows, columns=columns)


def prediction_rows(predictions: Sequence[Predictions]) -> pd.DataFrame:
    """Return one row per case and class of each set of predictions, which must not be empty."""
    tables = [
        table.assign(predictions=others.name, seed="" if seed is None else seed)
        for others in predictions
        for seed, table in others.tables.items()
    ]
    return pd.concat(tables, ignore_index=True).set_index(["predictions", "seed"]).reset_index()


def run_rows(runs: Sequence[TrackedRun], roles: Mapping[str, Role]) -> pd.DataFrame:
    """Return one row per run."""
    tags = (
        "mode",
        "bundle",
        "dataset",
        "train_fraction",
        "fold",
        "seed",
        "steps",
        "data_hash",
        "unlabeled_hash",
        "version",
    )
    metrics = ("train_seconds", "train_processor_seconds", "peak_memory_mib")
    return pd.DataFrame(
        {
            "run": run.name,
            "run_id": run.id,
            "status": run.status,
            "role": roles[run.id].name,
            "reason": roles[run.id].reason,
            **{name: run.tags.get(name, "") for name in tags},
            "training_cases": run.num_cases,
            "validation_cases": run.num_validation,
            "mean_dice": None if run.table.empty else run.mean_dice,
            **{name: run.metrics.get(name) for name in metrics},
        }
        for run in runs
    )
