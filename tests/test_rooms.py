"""Each folder of the package is one concern, and none imports one above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import medcontext
from medcontext.cli import COMMANDS

PACKAGE = Path(medcontext.__file__).parent
LAYERS = (
    ("checks", "faults", "literals", "text"),
    ("keys", "labels", "storage"),
    ("dicom", "losses", "metrics", "networks", "transforms", "hub"),
    ("scans",),
    ("data", "engines", "inferers"),
    ("reliability",),
    ("cases", "inspection", "phantoms", "providers", "report"),
    ("audit", "handlers"),
    ("tracking",),
    ("bundle",),
    ("comparison", "experiment", "planning", "ranking"),
    ("cli",),
    ("__main__",),
)
"""From the ground upwards; rooms of one layer do not know each other."""


def imported(path: Path) -> set[str]:
    """Names of the package's rooms that a module imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("medcontext.")}


def test_no_room_imports_one_above_it() -> None:
    height = {room: level for level, layer in enumerate(LAYERS) for room in layer}
    upwards = []
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        others = imported(path) - {room}
        upwards += [f"{path.relative_to(PACKAGE)} imports {other}" for other in others if height[other] >= height[room]]
    assert not upwards


WATCHED = ["torch", "monai", "mlflow", "pandas", "matplotlib", "numpy", "ignite", "nibabel"]


@pytest.mark.parametrize(
    "words", [[], ["--help"], *([command.__name__, "--help"] for group in COMMANDS.values() for command in group)]
)
def test_help_loads_no_library_that_takes_long(words: list[str]) -> None:
    program = (
        "import sys\nsys.argv = ['medcontext', *sys.argv[1:]]\nfrom medcontext.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('loaded:', *[name for name in {WATCHED} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1].split() == ["loaded:"]
    described = words[0] if words[1:] else "experiment"
    assert described in result.stdout + result.stderr
