"""Comparison of tracked runs: does MedContext help, hurt, or can one not tell?"""

from __future__ import annotations

from medcontext.comparison.compare import GROUP_BY, compare_runs
from medcontext.comparison.pairing import Control, PairedRun, Pairing, Role, pair_runs
from medcontext.comparison.report import Comparison, write_comparison
from medcontext.comparison.runs import TrackedRun, read_runs
from medcontext.comparison.verdicts import Group, Result, Verdict, compare_group

__all__ = [
    "GROUP_BY",
    "compare_runs",
    "Comparison",
    "write_comparison",
    "TrackedRun",
    "read_runs",
    "Control",
    "PairedRun",
    "Pairing",
    "Role",
    "pair_runs",
    "Group",
    "Result",
    "Verdict",
    "compare_group",
]
