"""The MLflow database or server whose runs are compared."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException
from monai.utils import path_to_sqlite_uri

from medcontext.bundle import find_home
from medcontext.faults import explained
from medcontext.storage.addresses import without_password
from medcontext.tracking.outbox import quiet_libraries

__all__ = ["connect", "default_tracking_uri", "find_experiment", "mlflow_errors"]

# MLflow itself retries for four minutes to reach an unreachable server, and draws a bar for every file
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def default_tracking_uri() -> str:
    """Return the address of the home's database: that of the working directory, else the repository's."""
    repository = Path(__file__).resolve().parents[3] / "bundles" / "any"
    databases = [Path(find_home(str(folder))) / "mlruns.db" for folder in (Path.cwd(), repository)]
    return str(path_to_sqlite_uri(str(next((path for path in databases if path.is_file()), databases[0]))))


def connect(tracking_uri: str) -> MlflowClient:
    """Open an existing database or server; MLflow itself would create a missing database.

    Raises:
        ValueError: If there is no such database, or MLflow knows no such kind of store.
    """
    if tracking_uri.startswith("sqlite"):
        database = tracking_uri.partition(":///")[2].partition("?")[0]
        if not Path(database).is_file():
            raise ValueError(
                f"There is no MLflow database {database or tracking_uri}; name the one of your runs as "
                "--tracking_uri sqlite:///FOLDER/mlruns.db, or a server as --tracking_uri http://HOST:PORT."
            )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with mlflow_errors(tracking_uri):
        return MlflowClient(tracking_uri)


def find_experiment(client: MlflowClient, name: str) -> Experiment:
    """Return an experiment by its name.

    Raises:
        ValueError: If there is none; the message names those that there are.
    """
    with mlflow_errors(client.tracking_uri):
        experiment = client.get_experiment_by_name(name)
        if experiment is not None and experiment.lifecycle_stage == LifecycleStage.ACTIVE:
            return experiment
        others = ", ".join(sorted(other.name for other in client.search_experiments()))
    raise ValueError(
        f"There is no experiment {name!r} at {without_password(client.tracking_uri)}; there are: {others}."
    )


@contextlib.contextmanager
def mlflow_errors(tracking_uri: str) -> Iterator[None]:
    """Turn MLflow's errors into one sentence, without the password that the address may contain.

    Raises:
        ValueError: If MLflow fails.
    """

    def explain(error: Exception) -> Exception | None:
        if not isinstance(error, MlflowException | ModuleNotFoundError):
            return None
        text = " ".join(without_password(str(error), tracking_uri).split())
        return ValueError(f"MLflow at {without_password(tracking_uri)}: {text[:400]}")

    with explained(explain), quiet_libraries(tracking_uri):
        yield
