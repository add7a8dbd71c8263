"""What is made once for all tests: a browser without a window, MLflow databases and servers, and a release.

The process that hands out the tests reads this file too and runs none of them, so the libraries that take seconds to
load are imported where they are needed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_server import Door, MlflowServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from releases import Release

# what takes long to make is made in one of the processes that run tests: groups of the tests that use it, by fixture
GROUPS = {"release": "forks", "database": "pages", "reports": "pages", "browser": "pages"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")


@pytest.hookimpl(tryfirst=True)  # xdist reads the markers there too
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        groups = [group for fixture, group in GROUPS.items() if fixture in getattr(item, "fixturenames", ())]
        if groups and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(groups[0]))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep facts about the tests' files out of the cache of whoever runs them."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    with pytest.MonkeyPatch.context() as patch:  # not the test's own, which it may undo
        patch.setattr("medcontext.storage.file_memory.cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's own Chromium, Chrome or Edge, without a way to the internet."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium, Chrome or Edge on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        chromium = playwright.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of 1200 by 900 pixels; what its scripts complain about fails the test."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors, errors


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty pictures in reports of evaluations, which take most of the time of a small evaluation."""
    from matplotlib.figure import Figure

    for name in ("draw_planes", "metrics_boxplot", "curves_figure"):
        monkeypatch.setattr(f"medcontext.report.evaluation_page.{name}", lambda *_: Figure(figsize=(1, 1)))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, which takes MLflow seconds to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("database") / "mlruns.db"
    with contextlib.chdir(path.parent):  # the first experiment's artifacts go where the database is made
        MlflowClient(sqlite_uri(path))
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of a database of the test's own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path / "mlruns.db")
    return sqlite_uri(tmp_path / "mlruns.db")


def sqlite_uri(path: Path) -> str:
    from monai.utils import path_to_sqlite_uri

    return str(path_to_sqlite_uri(str(path)))


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """Folder of one database for all experiments of tests that do not need one of their own."""
    folder = tmp_path_factory.mktemp("database")
    shutil.copy(empty_database, folder / "mlruns.db")
    return folder


@pytest.fixture(scope="session")
def one_server(database: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(database, sqlite_uri(database / "mlruns.db"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mlflow_server(one_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A running MLflow server; tests share it, each with an experiment of its own, and may stop it for themselves."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    door = Door(one_server)
    door.start()
    yield door
    door.stop()


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """The bundles as zips on a web server of this machine."""
    from releases import released

    with released(tmp_path_factory.mktemp("release")) as made:
        yield made
