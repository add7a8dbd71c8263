"""Making of MLflow's database, once and whole."""

from __future__ import annotations

from pathlib import Path

from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from monai.utils import path_to_sqlite_uri

from medcontext.storage.files import remove_unfinished, whole_file
from medcontext.storage.locks import locked

__all__ = ["database_file", "make_database"]

LONGEST = 120.0
"""Maximum number of seconds to wait for another process that makes the same database."""


def database_file(tracking_uri: str) -> Path | None:
    """Return the file of a SQLite database, ``None`` for other addresses."""
    scheme, _, name = tracking_uri.partition(":///")
    return None if scheme != "sqlite" or not name or "?" in name or ":memory:" in name else Path(name)


def make_database(tracking_uri: str) -> None:
    """Make a SQLite database for MLflow where there is none; other addresses are left alone.

    MLflow makes its tables one by one in place, so that two first runs at once, or an interrupted one, leave a database
    that nothing can use. Here it is made aside, and gets its name when it is whole.

    Args:
        tracking_uri: address of MLflow.

    Raises:
        OSError: If it cannot be written.
        ValueError: If another process has been making it for two minutes.
    """
    path = database_file(tracking_uri)
    if path is None or path.exists():
        return
    with locked(path, f"another process is making the database {path}", LONGEST):
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(path.parent)
        with whole_file(path) as stream:  # SQLite takes an empty file for a new database
            store = SqlAlchemyStore(path_to_sqlite_uri(stream.name), DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
            store.engine.dispose()
