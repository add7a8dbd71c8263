"""A home for the runs of a bundle, with a small generated cohort in it."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from bundle_runs import ROOT
from medcontext.phantoms.cohort import write_phantoms


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six generated cases of 32 × 32 × 32 voxels, four of them for training."""
    folder = tmp_path_factory.mktemp("cohort") / "btcv"
    write_phantoms(folder, num_cases=6, size=(32, 32, 32), spacing=(4.5, 4.5, 6.0), progress=False)
    return folder


SMALL = {
    "acdc": {"num_cases": 6, "size": (32, 32, 8), "spacing": (3.0, 3.0, 10.0)},
    "brats": {"num_cases": 4, "size": (32, 32, 32), "spacing": (4.5, 4.5, 6.0)},
    "hippocampus": {"num_cases": 4, "size": (24, 32, 24), "spacing": (1.5, 1.5, 1.5)},
}


@pytest.fixture(scope="session")
def other_cohorts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small generated cohorts of the other datasets, each made when it is first asked for."""
    folder = tmp_path_factory.mktemp("cohorts")

    @functools.cache
    def made(dataset: str) -> Path:
        write_phantoms(folder / dataset, dataset=dataset, **SMALL[dataset], progress=False)
        return folder / dataset

    return made


@pytest.fixture
def home(tmp_path: Path, cohort: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that holds the cohort and no runs, with the working directory at the repository's root."""
    shutil.copy(empty_database, tmp_path / "mlruns.db")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "btcv").symlink_to(cohort)
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(ROOT)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
