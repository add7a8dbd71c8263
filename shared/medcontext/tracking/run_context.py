"""Machine, user and code of a run, as MLflow's tags."""

from __future__ import annotations

import platform
import shlex
import sys
from pathlib import Path

import mlflow
import monai
import torch
from mlflow.tracking.context.git_context import GitRunContext
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

import medcontext
from medcontext.storage.addresses import without_password
from medcontext.storage.git import ask_git

__all__ = ["context_tags"]


def context_tags() -> dict[str, str]:
    """Return user, source, command, git commit if there is a repository, GPU, and versions of the libraries."""
    tags = {
        **resolve_tags(ignore=[GitRunContext]),  # it finds the repository of `python -m`, hence of MONAI
        "medcontext.command": shlex.join(map(without_password, sys.orig_argv)),
        "version.python": platform.python_version(),
        "version.torch": torch.__version__,
        "version.monai": monai.__version__,
        "version.mlflow": mlflow.__version__,
    }
    if torch.cuda.is_available():
        tags["version.cuda"] = str(torch.version.cuda)
        tags["medcontext.gpu"] = torch.cuda.get_device_name()
    commit = _git_commit()
    return tags if commit is None else {**tags, MLFLOW_GIT_COMMIT: commit}


def _git_commit() -> str | None:
    """Return the commit of the package's repository, else of the working directory's, if there is one and git."""
    folders = (Path(medcontext.__file__).parent, Path.cwd())
    return next(filter(None, (ask_git(folder, "rev-parse", "HEAD") for folder in folders)), None)
