from __future__ import annotations

from pathlib import Path

import pytest

from medcontext.tracking.identity import RUN_FILE, read_identity, write_identity


def test_an_identity_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_identity(tmp_path) == {}
    write_identity(tmp_path / "models", run_name="one")
    assert read_identity(tmp_path / "models") == {"run_name": "one"}
    write_identity(tmp_path / "models", run_name="one", mlflow_run_id="0")
    assert read_identity(tmp_path / "models") == {"run_name": "one", "mlflow_run_id": "0"}


@pytest.mark.parametrize("content", ["{", "3", '["run_name"]'])
def test_a_file_that_cannot_be_read_is_reported(content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / RUN_FILE).write_text(content)
    assert read_identity(tmp_path) == {}
    assert "cannot be read" in caplog.text
