"""Comparison of tracked runs: whether MedContext helps, and which part of it."""

from __future__ import annotations

from medcontext.comparison.compare import GROUP_BY, compare_runs
from medcontext.comparison.ladder import Ladder, Step, climb
from medcontext.comparison.page import Comparison, write_comparison
from medcontext.comparison.pairing import Pairing, Role, pair_runs
from medcontext.comparison.results import Result, Verdict
from medcontext.comparison.rungs import Basis, Draw, Rung
from medcontext.comparison.runs import TrackedRun, read_runs
from medcontext.comparison.verdicts import Group, Subject, compare_group

__all__ = [
    "GROUP_BY",
    "compare_runs",
    "Ladder",
    "Step",
    "climb",
    "Pairing",
    "Role",
    "pair_runs",
    "Comparison",
    "write_comparison",
    "Result",
    "Verdict",
    "Basis",
    "Draw",
    "Rung",
    "TrackedRun",
    "read_runs",
    "Group",
    "Subject",
    "compare_group",
]
