"""Runs of the bundles themselves, compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from bundle_runs import UNETR, run
from medcontext.comparison import Rung, compare_runs
from medcontext.report.page import number


@pytest.mark.usefixtures("blank_pictures")
def test_modes_of_a_bundle_are_fair_controls(home: Path, tmp_path: Path) -> None:
    # three training cases in batches of two: 2 and 4 steps
    modes = {
        "medcontext": ((), 1),
        "baseline": (("baseline",), 1),
        "longer": (("baseline",), 2),
        "masking": (("masking_only",), 1),
    }
    for name, (overlays, epochs) in modes.items():
        # the latter follows the epochs by default; one run of another interval shows that it does not matter
        intervals = {"val_interval": epochs, "preview_interval": epochs if name == "longer" else 0}
        run(UNETR, "training", "train", *overlays, run_name=name, max_epochs=epochs, **intervals)
        ckpt_dir = str(home / "runs" / UNETR / name / "models")
        run(UNETR, "evaluating", "train", *overlays, "evaluate", ckpt_dir=ckpt_dir)
    uri = f"sqlite:///{home}/mlruns.db"
    measure_twice_a_step(MlflowClient(uri))
    comparison = compare_runs("medcontext", tmp_path / "comparison", tracking_uri=uri)
    assert {found.name: comparison.roles[found.id].name for found in comparison.runs} == {
        "medcontext": "MedContext",
        "baseline": "baseline at equal steps",
        "longer": "baseline at equal time",
        "masking": "masking only",
    }
    (group,) = comparison.groups
    assert group.title == "UNETR on btcv, all training cases (3 and 1 to validate), 1 seed"
    results = group.subjects[Rung.MEDCONTEXT].results
    assert list(results) == [Rung.BASELINE, Rung.BASELINE_EQUAL_TIME, Rung.MASKING_ONLY]
    assert all(number(result.mean[0]) != "–" and result.seconds_ratio > 0 for result in results.values())
    assert comparison.notes() == []


def measure_twice_a_step(client: MlflowClient) -> None:
    """Log times as of networks of a usual size: those of two steps of a tiny one say nothing."""
    experiment = client.get_experiment_by_name("medcontext")
    assert experiment is not None
    for found in client.search_runs([experiment.experiment_id]):
        steps = int(found.data.tags["medcontext.steps"])
        times = {name for name in found.data.metrics if name in ("train_seconds", "train_processor_seconds")}
        assert "train_seconds" in times
        for name in times:
            seconds = steps * (2 if found.data.tags["medcontext.mode"] == "medcontext" else 1)
            client.log_metric(found.info.run_id, name, 1000.0 * seconds, step=steps)
