"""Readers of what lies beside data and weights, which may come from elsewhere, take no damaged or ambiguous JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostile import JSON
from medcontext.data.datalist import load_datalist
from medcontext.hub.collection import read_collection
from medcontext.networks.model_file import read_model_file
from medcontext.reliability import read_calibration
from medcontext.report.provenance import training_settings
from medcontext.tracking.identity import read_identity, write_identity

REFUSED = [one.content for one in JSON if one.said]
REFUSING: list[tuple[str, Callable[[Path], Any]]] = [
    ("dataset.json", load_datalist),
    ("model_info.json", read_collection),
    ("model.json", lambda path: read_model_file(path.with_name("model.pt"))),
    ("quality.json", lambda path: read_calibration(path.parent, {})),
]
IGNORING: list[tuple[str, Callable[[Path], Any]]] = [
    ("run.json", lambda path: read_identity(path.parent)),
    ("train_config.json", lambda path: training_settings(path.parent / "models")),
]


@pytest.mark.parametrize(("name", "read"), REFUSING, ids=[name for name, _ in REFUSING])
def test_refused(tmp_path: Path, name: str, read: Callable[[Path], Any]) -> None:
    for content in REFUSED:
        (tmp_path / name).write_bytes(content)
        with pytest.raises((ValueError, RuntimeError), match=name) as refusal:
            read(tmp_path / name)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "read"), IGNORING, ids=[name for name, _ in IGNORING])
def test_ignored_with_a_warning(
    tmp_path: Path, name: str, read: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    refused = [one for one in REFUSED if name == "run.json" or not re.search(rb"NaN|Infinity", one)]
    for content in refused:
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name) == {}
    assert len(caplog.records) == len(refused)


@pytest.mark.parametrize(
    "values", [{"run_name": 5}, {"run_name": "\x1b[31m"}, {"mlflow_run_id": "../a"}, {"run_name": ""}]
)
def test_values_that_are_no_names_or_ids_are_left_out(tmp_path: Path, values: dict[str, Any]) -> None:
    write_identity(tmp_path, **{"version": "1", **values})
    assert read_identity(tmp_path) == {"version": "1"}
