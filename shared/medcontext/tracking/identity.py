"""Record of the run that a folder of checkpoints belongs to."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from medcontext.storage.files import write_file
from medcontext.storage.json_files import json_text, read_json
from medcontext.text import printable

__all__ = ["RUN_FILE", "read_identity", "write_identity"]

RUN_FILE = "run.json"
"""File beside the checkpoints with the name of the run that saves them, and the id of its MLflow run if it has one."""

LONGEST = 250
"""Characters of the longest name that MLflow takes."""

logger = logging.getLogger(__name__)


def read_identity(ckpt_dir: str | os.PathLike[str]) -> dict[str, str]:
    """Return ``run_name`` and ``mlflow_run_id`` of the run whose checkpoints are in a folder, as far as they are known.

    Values that are no names or ids are left out: the file may come from elsewhere. The result is empty if there is no
    such file, or if it cannot be read, in which case a warning is logged.
    """
    path = Path(ckpt_dir) / RUN_FILE
    if not path.is_file():
        return {}
    try:
        content = read_json(path).items()
        return {name: value for name, value in content if _is_plain(name, value)}
    except (OSError, ValueError, AttributeError):
        logger.warning("%s cannot be read, so the run that these checkpoints belong to is unknown.", path)
        return {}


def _is_plain(name: str, value: object) -> bool:
    if not isinstance(value, str) or printable(value) != value:
        return False
    return 0 < len(value) <= LONGEST and (name != "mlflow_run_id" or re.fullmatch(r"[\w-]+", value) is not None)


def write_identity(ckpt_dir: str | os.PathLike[str], **values: str) -> None:
    """Write the run that a folder of checkpoints belongs to, in place of any earlier record."""
    write_file(Path(ckpt_dir) / RUN_FILE, json_text(values).encode())
