"""Grids of training runs that measure the parts of MedContext, on the same cases, seeds and budgets."""

from __future__ import annotations

from medcontext.experiment.costs import Costs, known_costs, measure_costs, with_equal_time
from medcontext.experiment.grid import MODES, SUPERVISED_MODES, Cell, grid
from medcontext.experiment.planning import Job, checked_configuration, plan
from medcontext.experiment.running import run_cells

__all__ = [
    "MODES",
    "SUPERVISED_MODES",
    "Cell",
    "Costs",
    "Job",
    "checked_configuration",
    "grid",
    "known_costs",
    "measure_costs",
    "plan",
    "run_cells",
    "with_equal_time",
]
