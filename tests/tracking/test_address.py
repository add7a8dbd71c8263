from __future__ import annotations

import os
from pathlib import Path

import pytest

from medcontext.tracking import MLflowTracker, resolve_tracking_uri


@pytest.mark.parametrize(
    ("given", "variable", "default", "expected"),
    [
        ("sqlite:///given.db", "sqlite:///variable.db", "sqlite:///default.db", "sqlite:///given.db"),
        (None, "sqlite:///variable.db", "sqlite:///default.db", "sqlite:///variable.db"),
        (None, "", "sqlite:///default.db", "sqlite:///default.db"),
        (None, None, "sqlite:///default.db", "sqlite:///default.db"),
        (None, None, None, None),
    ],
)
def test_argument_then_environment_then_default(
    given: str | None, variable: str | None, default: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if variable is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    assert resolve_tracking_uri(given, default=default) == expected


def test_a_tracker_logs_to_the_address_given_and_leaves_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, given = (f"sqlite:///{tmp_path}/{name}.db" for name in ("variable", "given"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    tracker = MLflowTracker(str(tmp_path), tracking_uri=given, experiment_name="e", run_name="r")
    assert tracker.client.tracking_uri == given
    assert os.environ["MLFLOW_TRACKING_URI"] == variable
    tracker = MLflowTracker(str(tmp_path), tracking_uri=None, experiment_name="e", run_name="r")
    assert tracker.client.tracking_uri == variable
