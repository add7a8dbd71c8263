"""Functions that a bundle's configuration calls: paths, names of runs, checks, and the start of a run."""

from __future__ import annotations

from medcontext.bundle.checks import check_configuration, check_network
from medcontext.bundle.errors import one_sentence
from medcontext.bundle.launch import build_network, prepare, run
from medcontext.bundle.model_settings import largest_components, model_settings, trained_intensity, trained_settings
from medcontext.bundle.places import bundle_names, find_bundle, find_home, find_root, name, version
from medcontext.bundle.plans import check_plan, planned_data
from medcontext.bundle.runs import checkpoint_run, has_training_state, latest_run, new_run_name, run_folder
from medcontext.bundle.settings import hyperparameters, model_to_log
from medcontext.bundle.workflow import current_workflow, open_workflow

__all__ = [
    "build_network",
    "bundle_names",
    "check_configuration",
    "check_network",
    "check_plan",
    "checkpoint_run",
    "current_workflow",
    "find_bundle",
    "find_home",
    "find_root",
    "has_training_state",
    "hyperparameters",
    "largest_components",
    "latest_run",
    "model_settings",
    "model_to_log",
    "name",
    "new_run_name",
    "one_sentence",
    "open_workflow",
    "planned_data",
    "prepare",
    "run",
    "run_folder",
    "trained_intensity",
    "trained_settings",
    "version",
]
