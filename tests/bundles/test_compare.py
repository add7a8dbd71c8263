"""Runs of the bundles themselves, compared."""

from __future__ import annotations

from pathlib import Path

from bundle_runs import UNETR, run
from medcontext.comparison import Control, compare_runs
from medcontext.report.page import number


def test_modes_of_a_bundle_are_fair_controls(home: Path, tmp_path: Path) -> None:
    # three training cases in batches of two: 6 and 14 steps
    modes = {
        "medcontext": ((), 3),
        "baseline": (("baseline",), 3),
        "longer": (("baseline",), 7),
        "masking": (("masking_only",), 3),
    }
    for name, (overlays, epochs) in modes.items():
        intervals = {"val_interval": epochs, "preview_interval": epochs}  # the latter follows them by default
        run(UNETR, "training", "train", *overlays, run_name=name, max_epochs=epochs, **intervals)
        ckpt_dir = str(home / "runs" / UNETR / name / "models")
        run(UNETR, "evaluating", "train", *overlays, "evaluate", ckpt_dir=ckpt_dir)
    comparison = compare_runs("medcontext", tmp_path / "comparison", tracking_uri=f"sqlite:///{home}/mlruns.db")
    assert {found.name: comparison.roles[found.id].name for found in comparison.runs} == {
        "medcontext": "MedContext",
        "baseline": "baseline at equal steps",
        "longer": "baseline at equal time",
        "masking": "masking only",
    }
    (group,) = comparison.groups
    assert group.title == "UNETR on btcv, all training cases (3), 1 seed"
    assert list(group.results) == list(Control)
    assert all(number(result.mean[0]) != "–" and result.seconds_ratio > 0 for result in group.results.values())
    assert comparison.notes() == []
