"""Grids of training runs that measure the parts of MedContext, on the same cases, seeds and budgets."""

from __future__ import annotations

from medcontext.experiment.costs import Costs, known_costs, measure_costs, with_equal_time
from medcontext.experiment.cross_validation import CrossValidation, experiment_dir, read_cross_validation
from medcontext.experiment.final_model import make_final_model
from medcontext.experiment.grid import MODES, SUPERVISED_MODES, Cell, grid
from medcontext.experiment.planning import Job, checked_configuration, plan
from medcontext.experiment.running import run_cells

__all__ = [
    "MODES",
    "SUPERVISED_MODES",
    "Cell",
    "Costs",
    "CrossValidation",
    "Job",
    "checked_configuration",
    "experiment_dir",
    "grid",
    "known_costs",
    "make_final_model",
    "measure_costs",
    "plan",
    "read_cross_validation",
    "run_cells",
    "with_equal_time",
]
