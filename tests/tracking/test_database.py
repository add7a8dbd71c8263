from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from monai.utils import path_to_sqlite_uri

from medcontext.tracking import database
from medcontext.tracking.database import make_database


def test_a_database_is_made_whole_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "home" / "mlruns.db"
    uri = path_to_sqlite_uri(str(path))
    make_database(uri)
    assert [file.name for file in path.parent.iterdir()] == ["mlruns.db"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("select name from experiments").fetchall() == [("Default",)]
    monkeypatch.setattr(database, "SqlAlchemyStore", lambda *_: pytest.fail("made again"))
    make_database(uri)
    assert [experiment.name for experiment in MlflowClient(uri).search_experiments()] == ["Default"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_nothing_is_left_of_a_database_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(*_: str) -> None:
        raise error("half-way")

    monkeypatch.setattr(database, "SqlAlchemyStore", interrupted)
    with pytest.raises(error, match="half-way"):
        make_database(f"sqlite:///{tmp_path}/mlruns.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///:memory:", "sqlite:///a.db?x=1", "postgresql:///a"])
def test_other_addresses_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.chdir(tmp_path)
    make_database(uri)
    assert list(tmp_path.iterdir()) == []
