"""Record of the run that a folder of checkpoints belongs to."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from medcontext.storage.files import write_file
from medcontext.storage.json_files import json_text, read_json

__all__ = ["RUN_FILE", "read_identity", "write_identity"]

RUN_FILE = "run.json"
"""File beside the checkpoints with the name of the run that saves them, and the id of its MLflow run if it has one."""

logger = logging.getLogger(__name__)


def read_identity(ckpt_dir: str | os.PathLike[str]) -> dict[str, str]:
    """Return ``run_name`` and ``mlflow_run_id`` of the run whose checkpoints are in a folder, as far as they are known.

    The result is empty if there is no such file, or if it cannot be read, in which case a warning is logged.
    """
    path = Path(ckpt_dir) / RUN_FILE
    if not path.is_file():
        return {}
    try:
        content = read_json(path).items()
        return {str(name): str(value) for name, value in content}
    except (ValueError, AttributeError):
        logger.warning("%s cannot be read, so the run that these checkpoints belong to is unknown.", path)
        return {}


def write_identity(ckpt_dir: str | os.PathLike[str], **values: str) -> None:
    """Write the run that a folder of checkpoints belongs to, in place of any earlier record."""
    write_file(Path(ckpt_dir) / RUN_FILE, json_text(values).encode())
