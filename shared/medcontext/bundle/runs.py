"""Names and folders of training runs."""

from __future__ import annotations

import time
import uuid
import weakref
from pathlib import Path

import ignite.distributed as idist
from monai.bundle import ConfigWorkflow

from medcontext.handlers.training_state import training_states
from medcontext.tracking.identity import read_identity

__all__ = ["checkpoint_run", "has_training_state", "latest_run", "new_run_name", "run_folder"]


_run_names: weakref.WeakKeyDictionary[ConfigWorkflow, str] = weakref.WeakKeyDictionary()


def new_run_name(workflow: ConfigWorkflow | None, *words: str) -> str:
    """Return a unique name such as ``btcv-medcontext-20260131-140501-3f2a``.

    Every call with the same workflow returns the same name. Processes of a distributed run use the name of the first.

    Args:
        workflow: workflow of the configuration.
        words: words at the beginning of the name.
    """
    run = _run_names.get(workflow) if workflow is not None else None
    if run is None:
        run = "-".join([*words, time.strftime("%Y%m%d-%H%M%S"), uuid.uuid4().hex[:4]])
    run = str(idist.broadcast(run))
    if workflow is not None:
        _run_names[workflow] = run
    return run


def latest_run(runs_dir: str) -> str:
    """Return the name of the run under ``runs_dir`` that saved its training state last.

    Raises:
        FileNotFoundError: If no run has saved one.
    """
    newest = [state for folder in Path(runs_dir).glob("*/models") for state in training_states(folder)[:1]]
    states = sorted(newest, key=lambda path: path.stat().st_mtime)
    if not states:
        raise FileNotFoundError(f"No run under {runs_dir} can be resumed; give the one to resume by --run_name.")
    return states[-1].parent.parent.name


def has_training_state(ckpt_dir: str) -> bool:
    """Return whether there is a training state to resume from, as seen by the first process of a distributed run."""
    return bool(idist.broadcast(float(bool(training_states(ckpt_dir)))))


def checkpoint_run(ckpt_dir: str) -> str | None:
    """Return the name of the run that trained the checkpoints in a folder, if its ``run.json`` is still there."""
    return read_identity(ckpt_dir).get("run_name")


def run_folder(ckpt_dir: str, default: str) -> str:
    """Return the folder of the run that trained the checkpoints in ``ckpt_dir``, ``default`` if it is unknown."""
    return default if checkpoint_run(ckpt_dir) is None else str(Path(ckpt_dir).resolve().parent)
