"""MONAI Deploy's operators turn a DICOM series into the DICOM SEG that prediction gives."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from highdicom.seg import segread
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle

from bundle_runs import BUNDLES, ROOT
from dicom_scans import write_series
from medcontext.data import load_cases
from medcontext.networks.weights import save_checkpoint
from monailabel_server import tiny_bundle

pytestmark = pytest.mark.slow

PYTHON = ROOT / ".venv-monai-deploy" / "bin" / "python"
STACK = 32 * 2**20  # that holoscan asks for
LIMIT = 900.0


@pytest.fixture(scope="module")
def deploy() -> None:
    """Install the SDK unless it is there, or skip the test."""
    result = subprocess.run(["bash", str(ROOT / "ci" / "monai_deploy.sh")], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"MONAI Deploy cannot be installed here: {(result.stderr or result.stdout).strip()[-300:]}")


def run_application(series: Path, bundle: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Run it in a folder that knows nothing of the bundle."""
    words = [PYTHON, "-W", "ignore", ROOT / "tests" / "deploy_app.py", series, bundle, output]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "shared"), "OMP_NUM_THREADS": "1"}

    def enlarge_stack() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (STACK, resource.getrlimit(resource.RLIMIT_STACK)[1]))

    options: dict[str, Any] = {"capture_output": True, "text": True, "check": False, "timeout": LIMIT}
    command = list(map(str, words))
    return subprocess.run(command, cwd=output, env=environment, preexec_fn=enlarge_stack, **options)


def segments(path: Path) -> dict[Any, np.ndarray]:
    """The slices of a DICOM SEG that hold anything, by label and position."""
    content = segread(path)
    found = {}
    for frame, pixels in zip(content.PerFrameFunctionalGroupsSequence, content.pixel_array, strict=True):
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        name = content.SegmentSequence[number - 1].SegmentLabel.replace(" ", "_")
        position = tuple(round(float(value), 2) for value in frame.PlanePositionSequence[0].ImagePositionPatient)
        found |= {(name, position): pixels} if pixels.any() else {}
    return found


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_segmentation_is_that_of_prediction(bundle: str, deploy: None, home: Path, cohort: Path) -> None:
    folder, series, output = home / bundle, home / "series", home / "out"
    tiny_bundle(bundle, folder)
    output.mkdir()
    image = nib.load(load_cases(cohort / "dataset.json", "test")[0]["image"])
    write_series(series, np.asarray(image.dataobj), image.affine)
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    torch.manual_seed(0)
    save_checkpoint(parser.get_parsed_content("network_def").state_dict(), folder / "models" / "model.pt")
    result = run_application(series, folder, output)
    (path,) = output.glob("*.dcm")
    run_bundle(
        run_id="inferring",
        config_file=str(folder / "configs" / "inference.json"),
        dataset_dir=str(series),
        predictions_dir=str(home / "ours"),
        save_dicom_seg=True,
        logging_file=False,
    )
    (expected,) = (home / "ours").glob("*.dcm")
    ours, theirs = segments(expected), segments(path)
    assert ours.keys() == theirs.keys(), result.stderr[-2000:]
    assert ours
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
