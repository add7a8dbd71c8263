"""How the model zoo's script is called; a stand-in says what it was given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from archives import write_zip
from bundle_runs import BUNDLES, ROOT, SWIN_UNETR, UNETR
from platforms import posix_only
from releases import EPOCH

pytestmark = posix_only

STAND_IN = """
import pathlib, sys
import bundle_custom_data, utils
_, bundle, _, models, _, mode = sys.argv[1:]
assert (pathlib.Path(models) / "model_info.json").read_text() == "{}\\n"
print(bundle, mode, (pathlib.Path(models) / bundle / "models" / "model.pt").read_text())
sys.exit(bundle == "medcontext_bad_phantom")
"""


def verified(folder: Path, *bundles: str) -> subprocess.CompletedProcess[str]:
    scripts, zips = folder / "scripts", folder / "zips"
    for path in (scripts, zips):
        path.mkdir()
    for name in ("bundle_custom_data.py", "utils.py"):
        (scripts / name).touch()
    (scripts / "verify_bundle.py").write_text(STAND_IN)
    for bundle in bundles:
        write_zip(zips / f"{bundle}_v0.1.0.zip", {f"{bundle}/models/model.pt": b"weights"}, int(EPOCH))
    return subprocess.run(
        ["bash", ROOT / "ci" / "verify_with_model_zoo.sh", zips, scripts],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_bundles_with_weights_are_verified(tmp_path: Path) -> None:
    """In full, but for the network that TorchScript does not compile."""
    result = verified(tmp_path, UNETR, *(f"{bundle}_phantom" for bundle in BUNDLES))
    assert result.returncode == 0, result.stderr
    modes = {bundle: "min" if bundle == SWIN_UNETR else "full" for bundle in BUNDLES}
    assert sorted(result.stdout.splitlines()) == sorted(f"{b}_phantom {mode} weights" for b, mode in modes.items())


def test_what_the_zoo_refuses_fails(tmp_path: Path) -> None:
    assert verified(tmp_path, "medcontext_bad_phantom", f"{UNETR}_phantom").returncode == 1


def test_a_folder_without_weights_fails(tmp_path: Path) -> None:
    result = verified(tmp_path, UNETR)
    assert result.returncode == 1
    assert "holds no *_phantom_v*.zip; pack the bundles with weights first." in result.stderr
