from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from medcontext.tracking.operations import file_operation, metrics_operations, text_operation
from medcontext.tracking.outbox import TrackingError
from medcontext.tracking.unsent import read_unsent, send_kept, send_unsent, unsent_file

RUN = "0" * 32
POINT = metrics_operations([("loss", 1.0, 1000, 1)])[0]


class Client:
    """Takes everything."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def log_batch(self, run_id: str, metrics: Any) -> None:
        self.taken += [metric.key for metric in metrics]

    def log_artifact(self, run_id: str, path: str, artifact_path: str | None = None) -> None:
        self.taken.append(Path(path).read_text())

    def log_artifacts(self, run_id: str, path: str, artifact_path: str | None = None) -> None:
        self.taken += sorted(file.read_text() for file in Path(path).rglob("*") if file.is_file())

    def log_text(self, run_id: str, text: str, file: str) -> None:
        self.taken.append(text)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Folder of a run's checkpoints, beside a secret of the user."""
    folder = tmp_path / "run" / "models"
    folder.mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (folder.parent / "report.txt").write_text("report")
    return folder


def keep(models: Path, *operations: dict[str, Any], uri: str = "sqlite:///x.db") -> Path:
    path = unsent_file(models, RUN)
    lines = [{"run_id": RUN, "tracking_uri": uri}, *operations]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_a_line_that_a_crash_cut_off_is_left_out(client: Client, models: Path) -> None:
    path = keep(models, POINT)
    path.write_text(path.read_text() + '{"kind": "met')
    assert send_unsent(path, client) == 1  # type: ignore[arg-type]
    assert not path.exists()


@pytest.mark.parametrize("content", ["[1, 2]\n", "[" * 100_000, "", "{}\n", '{"run_id": 1, "tracking_uri": "x"}\n'])
def test_a_file_that_names_no_run_is_refused(models: Path, content: str) -> None:
    unsent_file(models, RUN).write_text(content)
    with pytest.raises(ValueError, match="does not name a run; delete it"):
        read_unsent(unsent_file(models, RUN))


def test_files_of_the_run_are_sent_and_no_others(
    client: Client, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, secret = models.parent, models.parents[1] / "secret.txt"
    (run / "link.txt").symlink_to(secret)
    for name in ("figures", "linked"):
        (run / name).mkdir()
        (run / name / "a.txt").write_text(name)
    (run / "linked" / "b.txt").symlink_to(secret)
    own = [file_operation(run / "report.txt"), file_operation(run / "figures"), text_operation("text", "a.json")]
    outside = [secret, run / ".." / "secret.txt", run / "link.txt", run / "linked", Path("secret.txt")]
    foreign = [{"kind": "file", "path": str(path), "folder": None} for path in outside]
    assert send_unsent(keep(models, *own, *foreign), client) == 3  # type: ignore[arg-type]
    assert client.taken == ["report", "figures", "text"]
    assert sum("is not sent: it lies, or leads, outside the run's folder" in text for text in caplog.messages) == 5


def test_a_kept_model_or_an_unknown_record_is_not_sent(client: Client, models: Path) -> None:
    model = {"kind": "model", "bundle_root": str(models), "weights": str(models.parents[1] / "secret.txt")}
    assert send_unsent(keep(models, model, {"kind": "run"}, POINT), client) == 1  # type: ignore[arg-type]
    assert client.taken == ["loss"]


def test_a_link_is_not_followed(client: Client, models: Path) -> None:
    path = keep(models, POINT)
    path.rename(models / "elsewhere")
    path.symlink_to(models / "elsewhere")
    with pytest.raises(ValueError, match=f"{path} is a link, which is not followed; delete it"):
        send_unsent(path, client)  # type: ignore[arg-type]
    assert client.taken == []


@pytest.fixture
def sent_to(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that records were sent to."""
    addresses: list[str] = []
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("medcontext.tracking.unsent.MlflowClient", lambda uri: addresses.append(uri) or Client())
    return addresses


OWN, OTHER = "http://127.0.0.1:5000", "http://thief.example/?token=1"


@pytest.mark.parametrize(
    ("noted", "given", "environment", "address"),
    [
        (OWN, None, None, OWN),
        ("http://me:password@127.0.0.1:5000", None, None, OWN),
        (OTHER, OTHER, None, OTHER),
        (OTHER, None, OWN, OWN),
        (OTHER, "sqlite:///b.db", OWN, "sqlite:///b.db"),
    ],
)
def test_records_go_where_the_user_says(
    models: Path,
    sent_to: list[str],
    monkeypatch: pytest.MonkeyPatch,
    noted: str,
    given: str | None,
    environment: str | None,
    address: str,
) -> None:
    keep(models, POINT, uri=noted)
    if environment:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    assert send_kept(models, given, default=OWN) == 1
    assert sent_to == [address]


@pytest.mark.parametrize(("noted", "shown"), [(OTHER, "'http://thief.example/?token=1'"), ("\x1b[2Jx", "ADDRESS")])
def test_an_address_that_only_the_folder_names_must_be_given(
    models: Path, sent_to: list[str], noted: str, shown: str
) -> None:
    path = keep(models, POINT, uri=noted)
    with pytest.raises(ValueError, match="trust that address, give it: --tracking_uri ") as caught:
        send_kept(models, default=OWN)
    assert str(caught.value).endswith(f"--tracking_uri {shown}")
    assert path.exists()
    assert sent_to == []


def test_an_unreachable_server_is_named(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert send_kept(models) == 0
    path = keep(models, POINT)
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"MLflow at http://127.0.0.1:9 cannot be used \(.*refused\); check that"):
        send_kept(models, "http://127.0.0.1:9")
    assert time.monotonic() - started < 5
    assert path.exists()
