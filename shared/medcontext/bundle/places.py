"""Folders, name and version of a bundle."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from monai.bundle import ConfigWorkflow

__all__ = ["bundle_names", "find_bundle", "find_home", "find_root", "name", "version"]


def find_root(workflow: ConfigWorkflow | None) -> str:
    """Return the bundle's folder, which is above the ``configs`` folder that is run, from any working directory.

    Args:
        workflow: workflow of the configuration. Without one, another program parses the configuration: then the first
            configuration on the command line is used, else the first bundle on Python's path, to which MONAI Label and
            MONAI Deploy add the folder of the bundle that they run, else the working directory.
    """
    configs = (_configs_without_workflow() if workflow is None else Path(workflow.config_root_path)).resolve()
    return str(configs.parent if configs.name == "configs" else configs)


def _configs_without_workflow() -> Path:
    words = re.findall(r"[^\s'\"\[\],=]+\.json", " ".join(sys.argv))
    if words:
        return Path(words[0]).parent
    folders = (Path(folder, "configs") for folder in sys.path)
    return next((folder for folder in folders if (folder / "inference.json").is_file()), Path("configs"))


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


def find_bundle(bundle: str) -> Path:
    """Return the folder of a bundle that is given by its folder or by its name under ``bundles``.

    Names are looked for in the working directory, the home and the repository.

    Raises:
        FileNotFoundError: If there is no such bundle; the message names those that there are.
    """
    candidates = [Path(bundle), *(folder / "bundles" / str(bundle) for folder in _roots())]
    for folder in candidates:
        if (folder / "configs" / "train.json").is_file():
            return folder.resolve()
    names = bundle_names()
    known = f"name one of {', '.join(names)}, or " if names else ""
    raise FileNotFoundError(f"There is no bundle {bundle!r}; {known}give the path of its folder.")


def bundle_names() -> list[str]:
    """Return the names of the bundles that :func:`find_bundle` finds, in alphabetical order."""
    return sorted({path.parents[1].name for root in _roots() for path in root.glob("bundles/*/configs/train.json")})


def _roots() -> Iterator[Path]:
    yield Path.cwd()
    yield Path(find_home(str(Path.cwd() / "bundles" / "any")))
    yield Path(__file__).resolve().parents[3]
