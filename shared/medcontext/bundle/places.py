"""Folders, name and version of a bundle."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from monai.bundle import ConfigWorkflow

__all__ = ["find_home", "find_root", "name", "version"]


def find_root(workflow: ConfigWorkflow | None) -> str:
    """Return the bundle's folder, which is above the ``configs`` folder that is run, from any working directory.

    Args:
        workflow: workflow of the configuration; without one, the first configuration on the command line is used.
    """
    if workflow is not None:
        configs = Path(workflow.config_root_path)
    else:
        words = re.findall(r"[^\s'\"\[\],=]+\.json", " ".join(sys.argv))
        configs = Path(words[0]).parent if words else Path("configs")
    configs = configs.resolve()
    return str(configs.parent if configs.name == "configs" else configs)


def find_home(bundle_root: str) -> str:
    """Return the folder of data and runs: ``$MEDCONTEXT_HOME``, else the bundle's repository, else its folder."""
    home = os.environ.get("MEDCONTEXT_HOME")
    if home:
        return str(Path(home).expanduser().resolve())
    root = Path(bundle_root).resolve()
    in_repository = root.parent.name == "bundles" and (root.parent.parent / "pyproject.toml").is_file()
    return str(root.parent.parent if in_repository else root)


def name(bundle_root: str) -> str:
    """Return the bundle's name, which is that of its folder, as in the model zoo."""
    return Path(bundle_root).resolve().name


def version(bundle_root: str) -> str:
    """Return the version in the bundle's ``configs/metadata.json``, ``unknown`` without this file."""
    path = Path(bundle_root) / "configs" / "metadata.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["version"]) if path.is_file() else "unknown"
