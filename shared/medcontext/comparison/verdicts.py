"""What a comparison says in plain words: MedContext helps, hurts, or one cannot tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from medcontext.comparison.pairing import Control, PairedRun
from medcontext.comparison.statistics import MEAN, label_table, paired_cases
from medcontext.report.page import number

__all__ = ["FEWEST_SEEDS", "Group", "Result", "Verdict", "compare_group", "network_name"]

FEWEST_SEEDS = 3
"""Trainings that it takes to tell anything."""

_FAIR_TIME = (0.8, 1.25)  # of the measured times, to call them equal
_NETWORKS = {"unetr": "UNETR", "swin_unetr": "SwinUNETR", "nnformer": "nnFormer", "unetr_plus_plus": "UNETR++"}


class Verdict(StrEnum):
    """Of a group, or of one control in it."""

    HELPS = "helps"
    HURTS = "hurts"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, eq=False)
class Result:
    """MedContext against one control.

    Attributes:
        control: the control.
        table: class by class, see :func:`medcontext.comparison.statistics.label_table`.
        pairs: number of pairs.
        seeds: number of different folds and seeds among them.
        seconds_ratio: training time of the control as a share of MedContext's, mean over the pairs.
    """

    control: Control
    table: pd.DataFrame
    pairs: int
    seeds: int
    seconds_ratio: float

    @property
    def mean(self) -> tuple[float, float, float]:
        """Difference, lower and upper bound of the mean over the classes."""
        value, low, high = self.table.loc[[MEAN], ["difference", "low", "high"]].to_numpy(dtype=float)[0]
        return float(value), float(low), float(high)

    @property
    def verdict(self) -> Verdict:
        """``helps`` where the interval of the mean lies above 0, ``hurts`` where it lies below."""
        _, low, high = self.mean
        if self.seeds < FEWEST_SEEDS or not (low > 0 or high < 0):
            return Verdict.CANNOT_TELL
        return Verdict.HELPS if low > 0 else Verdict.HURTS

    @property
    def unequal_time(self) -> bool:
        """Whether a control of equal time took measurably more or less."""
        measured = self.control is Control.EQUAL_TIME and math.isfinite(self.seconds_ratio)
        return measured and not _FAIR_TIME[0] <= self.seconds_ratio <= _FAIR_TIME[1]


@dataclass(frozen=True, eq=False)
class Group:
    """MedContext against all controls in one setting.

    Attributes:
        values: what the runs of the group have in common, by the names of ``group_by``.
        title: the same in words.
        runs: MedContext runs with their controls.
        results: by control; those without any pair are absent.
        verdict: ``helps`` only where MedContext beats all three, ``hurts`` where any beats it.
        explanation: the numbers behind the verdict, in words.
    """

    values: Mapping[str, str]
    title: str
    runs: Sequence[PairedRun]
    results: Mapping[Control, Result]
    verdict: Verdict
    explanation: str

    @property
    def sentence(self) -> str:
        """Title, verdict and explanation."""
        return f"{self.title}: {self.verdict}. {self.explanation}"


def network_name(architecture: str) -> str:
    """A network's own spelling, where it is known, for a bundle's name without ``medcontext_``."""
    return _NETWORKS.get(architecture, architecture)


def compare_group(values: Mapping[str, str], runs: Sequence[PairedRun]) -> Group:
    """Compare the MedContext runs of a group with their controls.

    Args:
        values: by the names of ``group_by``.
        runs: of the group, from :func:`medcontext.comparison.pairing.pair_runs`.
    """
    results = {control: _compare(control, runs) for control in Control if any(control in r.controls for r in runs)}
    return Group(values, _title(values, runs), runs, results, _overall(results), _explain(results))


def _compare(control: Control, runs: Sequence[PairedRun]) -> Result:
    pairs = [(paired.run, paired.controls[control]) for paired in runs if control in paired.controls]
    table = label_table(paired_cases(pairs))
    seeds = len({run.unit for run, _ in pairs})
    ratios = [
        other.metrics["train_seconds"] / run.metrics["train_seconds"]
        for run, other in pairs
        if run.metrics.get("train_seconds") and "train_seconds" in other.metrics
    ]
    ratio = sum(ratios) / len(ratios) if ratios else math.nan
    return Result(control, table, len(pairs), seeds, ratio)


def _overall(results: Mapping[Control, Result]) -> Verdict:
    verdicts = {result.verdict for result in results.values()}
    if Verdict.HURTS in verdicts:
        return Verdict.HURTS
    return Verdict.HELPS if len(results) == len(Control) and verdicts == {Verdict.HELPS} else Verdict.CANNOT_TELL


def _explain(results: Mapping[Control, Result]) -> str:
    """The numbers behind a verdict, and what is missing for a better one."""
    clauses: dict[str, list[str]] = {}
    for result in results.values():
        relation, numbers = _against(result)
        clauses.setdefault(relation, []).append(f"{_named(result.control)} {numbers}")
    parts = [f"{relation} {_listed(controls)}" for relation, controls in clauses.items()]
    text = f"MedContext is {', and '.join(parts)}." if parts else ""
    for result in results.values():
        if result.unequal_time:
            text += (
                f" As measured, {_named(result.control)} took {number(result.seconds_ratio, 2)} of MedContext's time."
            )
    missing = [_named(control) for control in Control if control not in results]
    if missing:
        text += f" There is no run of {_listed(missing)} to compare with."
    return text.strip()


def _against(result: Result) -> tuple[str, str]:
    """How MedContext stands to a control, and the numbers that say so."""
    value, low, high = result.mean
    if result.verdict is Verdict.HELPS:
        return "ahead of", f"by {number(value)} ({number(low)} to {number(high)})"
    if result.verdict is Verdict.HURTS:
        return "behind", f"by {number(-value)} ({number(-high)} to {number(-low)})"
    signed = number(value, sign=True)
    if result.seeds < FEWEST_SEEDS:
        return "not yet comparable to", f"({signed}; {_counted(result.seeds)}, at least three are needed)"
    return "not clearly apart from", f"({signed}, {number(low, sign=True)} to {number(high, sign=True)})"


def _named(control: Control) -> str:
    return control if control is Control.MASKING_ONLY else f"the {control}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _title(values: Mapping[str, str], runs: Sequence[PairedRun]) -> str:
    """Such as ``UNETR on btcv, 25 % of the training cases (4), 3 seeds``."""
    rest = dict(values)
    network, dataset = rest.pop("architecture", None), rest.pop("dataset", None)
    words = [network_name(network)] if network else []
    if dataset:
        words.append(f"on {dataset}")
    parts = [" ".join(words)] if words else []
    counts = sorted({count for paired in runs if (count := paired.run.num_cases) is not None})
    known = f" ({' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))})" if counts else ""
    fraction = rest.pop("train_fraction", None)
    if fraction is not None:
        parts.append(_share(fraction) + known)
    parts += [f"{name} {value}" for name, value in rest.items()]
    seeds = len({paired.run.unit for paired in runs if paired.controls})
    return ", ".join([*parts, _counted(seeds)] if seeds else parts)


def _counted(seeds: int) -> str:
    return f"{seeds} {'seed' if seeds == 1 else 'seeds'}"


def _share(fraction: str) -> str:
    try:
        share = float(fraction)
    except ValueError:
        return f"{fraction} to train on"
    return "all training cases" if share == 1 else f"{100 * share:g} % of the training cases"
