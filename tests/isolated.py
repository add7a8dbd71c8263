"""Programs that find installed packages, but not this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def run_isolated(
    *words: str, cwd: Path, path: tuple[Path, ...] = (), environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python where only what lies in ``site-packages`` or in ``path`` can be imported.

    Without the module ``site`` nothing reads the ``.pth`` files by which an editable installation is found.
    """
    installed = [folder for folder in sys.path if Path(folder).name == "site-packages"]
    variables = {key: value for key, value in os.environ.items() if key != "MEDCONTEXT_HOME"}
    variables |= {"PYTHONPATH": os.pathsep.join([*map(str, path), *installed]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-S", "-W", "ignore", *words],
        cwd=cwd,
        env=variables | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
