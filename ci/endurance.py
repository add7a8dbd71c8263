"""Show that a long run takes no more of the machine the longer it lasts.

python ci/endurance.py                                  500 training steps and 100 predictions; minutes on two cores
python ci/endurance.py --steps 100 --predictions 20     fewer of them

Sampled are the memory of the process (without the files that it maps), its open files and its threads. The first
quarter of the samples, in which caches fill, is left out; exit code 1 if any of the three still grows after that. With
fewer than some fifty samples, the batches that loaders have ready at the moment show.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
import pandas as pd
import psutil
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

from medcontext.bundle import prepare, run
from medcontext.phantoms.cohort import write_phantoms
from sync_bundles import BUNDLES, REFERENCE

TOLERANCES = {"memory, MiB": 20.0, "open files": 0.0, "threads": 0.0}
"""By how much the last quarter of the samples may lie above the second."""
SMALL: dict[str, Any] = {
    "run_name": "long",
    "spacing": [6.0, 6.0, 8.0],
    "roi_size": [32, 32, 32],
    "validation_cases": 1,
}


def measure(steps: int = 500, predictions: int = 100) -> None:
    """Train and predict with phantom.json, made smaller, and print a table of both."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["MEDCONTEXT_HOME"] = home
        write_phantoms(Path(home) / "data" / "btcv", num_cases=8, size=(48, 48, 48), spacing=(6, 6, 8), progress=False)
        epochs = -(-steps // 2)
        often = max(1, epochs // 8)  # the first validation starts loaders that stay: well within the first quarter
        length = {"max_epochs": epochs, "val_interval": often}
        training = _samples(("train", "phantom"), "train#trainer", **length, **SMALL)
        growing = ["training"] if _print_growth("training", training) else []
        folders = {
            "ckpt_dir": str(Path(home) / "runs" / REFERENCE / SMALL["run_name"] / "models"),
            "dataset_dir": str(_scans(Path(home), predictions)),
        }
        prediction = _samples(("inference",), "evaluator", **folders)
        growing += ["prediction"] if _print_growth("prediction", prediction) else []
    sys.exit(f"endurance: {' and '.join(growing)} took more and more." if growing else 0)


def _samples(names: tuple[str, ...], engine: str, **overrides: Any) -> pd.DataFrame:
    """Run an engine of a bundle, and sample the process after each of its iterations."""
    files = [str(BUNDLES / REFERENCE / "configs" / f"{name}.json") for name in names]
    overrides |= {"num_workers": 2, "device": "cpu"}
    workflow = ConfigWorkflow(files, logging_file=False, workflow_type="train", **overrides)
    workflow.initialize()
    prepare(workflow, engine, settings_check=True if "inference" in names else None)
    built: Engine = workflow.parser.get_parsed_content(engine)
    rows: list[dict[str, float]] = []
    built.add_event_handler(Events.ITERATION_COMPLETED, lambda: rows.append(_sample()))
    run(workflow, built)
    return pd.DataFrame(rows)


def _sample() -> dict[str, float]:
    process = psutil.Process()
    memory = process.memory_info()  # not what is private now, which is less while loaders share it
    own = memory.rss - memory.shared if hasattr(memory, "shared") else process.memory_full_info().uss
    values = (own / 2**20, process.num_fds(), process.num_threads())
    return dict(zip(TOLERANCES, map(float, values), strict=True))


def _print_growth(name: str, table: pd.DataFrame) -> bool:
    """Print the lowest values of the second and of the last quarter of the samples, and return whether any grew."""
    quarter = len(table) // 4
    early, late = table.iloc[quarter : 2 * quarter].min(), table.iloc[-quarter:].min()
    print(f"{name}, {len(table)} iterations")
    print(pd.DataFrame({"second quarter": early, "last quarter": late}).round(1).to_string())
    return bool((late - early > pd.Series(TOLERANCES)).any())


def _scans(home: Path, count: int) -> Path:
    """Write scans to predict."""
    folder = home / "scans"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        voxels = draw.normal(0, 100, (40, 40, 40)).astype(np.int16) - 200
        nib.save(nib.Nifti1Image(voxels, np.diag([6.0, 6.0, 8.0, 1.0])), folder / f"scan{number:03}.nii.gz")
    return folder


if __name__ == "__main__":
    fire.Fire(measure)
