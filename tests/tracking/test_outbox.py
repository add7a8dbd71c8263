from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from medcontext.tracking import outbox as mlflow_outbox
from medcontext.tracking.operations import (
    clean_key,
    file_operation,
    metrics_operations,
    note_operations,
    status_operation,
)
from medcontext.tracking.outbox import Outbox, quiet_libraries, short_requests
from medcontext.tracking.unsent import read_unsent, send_unsent, unsent_file
from waiting import until

RUN = "0" * 32


class Client:
    """Takes what MLflow would take, unless it is told to be away or to hang."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.away = False
        self.files_away = False
        self.hang: threading.Event | None = None
        self.delay = 0.0
        self.attempts = 0

    def _take(self, *what: Any) -> None:
        self.attempts += 1
        if self.hang is not None:
            self.hang.wait()
        time.sleep(self.delay)
        if self.away:
            raise MlflowException("API request failed")
        self.taken.append(what)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        if any(tag.key == "bad" for tag in tags):
            raise MlflowException("bad tag. It is bad.", error_code=INVALID_PARAMETER_VALUE)
        self._take(*[(m.key, m.value, m.step) for m in metrics], *[(n.key, n.value) for n in [*params, *tags]])

    def log_artifact(self, run_id: str, path: str, artifact_path: str | None = None) -> None:
        if self.files_away:
            raise OSError("no such store")
        self._take(Path(path).name, artifact_path)

    def update_run(self, run_id: str, status: str) -> None:
        self._take(status)

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self._take(status)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_outbox, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(mlflow_outbox, "PAUSE_AT_THE_END", 0.05)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def outbox(client: Client, tmp_path: Path) -> Outbox:
    return Outbox(client, RUN, unsent_file(tmp_path, RUN), "http://me:secret@127.0.0.1:5000")  # type: ignore[arg-type]


def point(value: float, step: int) -> dict[str, Any]:
    return metrics_operations([("loss", value, 1000 + step, step)])[0]


def test_operations_arrive_in_order_and_the_end_waits_for_them(client: Client, outbox: Outbox, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    outbox.put(status_operation(RunStatus.RUNNING), point(0.5, 1), *note_operations({"p": 1}, {"t": None}))
    outbox.put(file_operation(tmp_path / "a.txt", "texts"), status_operation(RunStatus.FINISHED))
    assert outbox.close(wait=0)
    values = [what for what in client.taken if what[0] != "a.txt"]
    assert values == [("RUNNING",), (("loss", 0.5, 1),), (("p", "1"),), (("t", "None"),), ("FINISHED",)]
    assert ("a.txt", "texts") in client.taken
    assert list(tmp_path.glob("*.jsonl")) == []


def test_putting_never_waits_for_a_server_that_hangs(client: Client, outbox: Outbox) -> None:
    client.hang = threading.Event()
    started = time.monotonic()
    for step in range(100):
        outbox.put(point(0.0, step))
    assert time.monotonic() - started < 1
    client.hang.set()
    assert outbox.close(wait=0)
    assert [row[2] for what in client.taken for row in what] == list(range(100))
    assert len(client.taken) < 100  # what waited went together


def test_settling_waits_for_values_but_not_for_a_server_away(client: Client, outbox: Outbox, tmp_path: Path) -> None:
    client.delay = 0.05
    client.files_away = True
    outbox.put(file_operation(tmp_path / "a.txt"), *note_operations({"p": 1}, {"t": 2}))
    outbox.settle(wait=10)
    assert client.taken == [(("p", "1"),), (("t", "2"),)]

    client.away = True
    outbox.put(point(1.0, 1))
    started = time.monotonic()
    outbox.settle(wait=60)
    assert time.monotonic() - started < 10
    outbox.close(wait=0)


def test_what_is_kept_while_the_server_is_away_arrives_once_it_is_back(
    client: Client, outbox: Outbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.away = True
    outbox.put(point(1.0, 1))
    assert len(read_unsent(unsent_file(tmp_path, RUN)).operations) == 1  # before it was tried
    until(lambda: client.attempts >= 2)
    outbox.put(point(2.0, 2))
    kept = read_unsent(unsent_file(tmp_path, RUN))
    assert [operation["points"][0][3] for operation in kept.operations] == [1, 2]  # safe from kill -9
    client.away = False
    until(lambda: not unsent_file(tmp_path, RUN).exists())
    assert outbox.close(wait=0)
    assert [row for what in client.taken for row in what] == [("loss", 1.0, 1), ("loss", 2.0, 2)]
    assert [text for text in caplog.messages if "is unreachable" in text] == [
        "MLflow is unreachable (API request failed); records are kept and sent later."
    ]
    assert sum("is reachable again" in text for text in caplog.messages) == 1


@pytest.mark.parametrize("away_from_the_start", [True, False])
def test_what_is_left_at_the_end_is_sent_by_the_next(
    client: Client, outbox: Outbox, tmp_path: Path, caplog: pytest.LogCaptureFixture, away_from_the_start: bool
) -> None:
    client.away = away_from_the_start
    outbox.put(point(float("nan"), 1))
    if not away_from_the_start:
        until(lambda: len(client.taken) == 1)
        client.away = True
    outbox.put(point(float("inf"), 2), status_operation(RunStatus.FAILED))
    started = time.monotonic()
    assert not outbox.close(wait=0.3)
    assert 0.3 <= time.monotonic() - started < 3
    path = unsent_file(tmp_path, RUN)
    assert f"send_unsent --ckpt_dir {tmp_path}" in caplog.text
    assert "secret" not in path.read_text()
    kept = read_unsent(path)
    assert (kept.run_id, kept.tracking_uri) == (RUN, "http://127.0.0.1:5000")
    assert [operation["kind"] for operation in kept.operations] == ["metrics"] * (1 + away_from_the_start) + ["status"]
    with pytest.raises(MlflowException, match="API request failed"):
        send_unsent(path, client)  # type: ignore[arg-type]
    assert path.exists()
    client.away = False
    assert send_unsent(path, client) == len(kept.operations)  # type: ignore[arg-type]
    assert not path.exists()
    assert client.taken[-1] == ("FAILED",)
    assert client.taken[-2] == (("loss", float("inf"), 2),)
    assert send_unsent(path, client) == 0  # type: ignore[arg-type]


def test_a_server_that_is_back_while_the_end_waits_gets_everything(client: Client, outbox: Outbox) -> None:
    client.away = True
    outbox.put(point(1.0, 1), status_operation(RunStatus.FINISHED))
    until(lambda: client.attempts >= 2)
    threading.Timer(0.2, lambda: setattr(client, "away", False)).start()
    assert outbox.close(wait=10)
    assert client.taken == [(("loss", 1.0, 1),), ("FINISHED",)]


def test_files_that_cannot_be_sent_do_not_hold_up_values(client: Client, outbox: Outbox, tmp_path: Path) -> None:
    client.files_away = True
    (tmp_path / "a.txt").write_text("a")
    outbox.put(file_operation(tmp_path / "a.txt"), point(1.0, 1), status_operation(RunStatus.FINISHED))
    assert not outbox.close(wait=0.2)
    assert client.taken == [(("loss", 1.0, 1),), ("FINISHED",)]
    kept = read_unsent(unsent_file(tmp_path, RUN)).operations
    assert kept == [{"kind": "file", "path": str(tmp_path / "a.txt"), "folder": None}]


@pytest.mark.parametrize("ahead", [True, False])
def test_a_model_is_never_kept_in_a_file(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture, ahead: bool
) -> None:
    path = unsent_file(tmp_path, RUN)
    outbox = Outbox(client, RUN, path, "sqlite:///x.db", ahead=ahead)  # type: ignore[arg-type]
    client.away = True
    outbox.put(point(1.0, 1), {"kind": "model", "bundle_root": "bundle"})
    assert not outbox.close(wait=0)
    assert [operation["kind"] for operation in read_unsent(path).operations] == ["metrics"]
    assert f"The model of run {RUN} could not be logged to MLflow; to log it, run the same command with" in caplog.text


def test_records_are_not_appended_to_a_link(client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    diary = tmp_path / "diary.txt"
    diary.write_text("mine")
    unsent_file(tmp_path, RUN).symlink_to(diary)
    outbox = Outbox(client, RUN, unsent_file(tmp_path, RUN), "sqlite:///x.db")  # type: ignore[arg-type]
    client.away = True
    outbox.put(point(1.0, 1))
    assert not outbox.close(wait=0)
    assert "cannot be kept in a file" in caplog.text
    assert diary.read_text() == "mine"


def test_what_mlflow_refuses_is_left_out_and_told_once(
    client: Client, outbox: Outbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        outbox.put(*note_operations({}, {"bad": step}), file_operation(tmp_path / "gone.txt"), point(1.0, step))
    assert outbox.close(wait=0)
    assert [what[0] for what in client.taken] == [("loss", 1.0, 1), ("loss", 1.0, 2)]
    assert sorted(caplog.messages) == [
        f"MLflow rejected file of run {RUN} (left out): {tmp_path}/gone.txt no longer exists.",
        f"MLflow rejected tags of run {RUN} (left out): bad tag",
    ]


def test_without_writing_ahead_the_file_holds_what_is_left_alone(client: Client, tmp_path: Path) -> None:
    path = unsent_file(tmp_path / "models", RUN)
    outbox = Outbox(client, RUN, path, "sqlite:///x.db", ahead=False)  # type: ignore[arg-type]
    outbox.put(point(1.0, 1))
    until(lambda: len(client.taken) == 1)
    client.away = True
    outbox.put(point(2.0, 2))
    until(lambda: client.attempts >= 2)
    assert not path.parent.exists()
    assert not outbox.close(wait=0)
    assert [operation["points"] for operation in read_unsent(path).operations] == [[["loss", 2.0, 1002, 2]]]


def test_a_folder_that_cannot_be_written_stops_nothing(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    outbox = Outbox(client, RUN, unsent_file(tmp_path / "models", RUN), "sqlite:///x.db")  # type: ignore[arg-type]
    client.away = True
    outbox.put(point(1.0, 1))
    assert not outbox.close(wait=0)
    assert sum("cannot be kept in a file" in text for text in caplog.messages) == 1


def test_ctrl_c_ends_the_waiting(
    client: Client, outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.hang = threading.Event()
    outbox.put(point(1.0, 1))

    def interrupted(timeout: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(outbox._thread, "join", interrupted)
    assert not outbox.close(wait=60)
    assert len(read_unsent(unsent_file(tmp_path, RUN)).operations) == 1
    client.hang.set()


def test_requests_are_short_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    with short_requests(timeout=3):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"


@pytest.mark.parametrize(
    ("key", "clean"),
    [("val_dice_left kidney", "val_dice_left kidney"), ("tumor (core), %", "tumor _core__ _"), ("x" * 300, "x" * 250)],
)
def test_names_follow_mlflow(key: str, clean: str) -> None:
    assert clean_key(key) == clean


def test_requests_stay_under_the_limits_of_mlflow() -> None:
    points = [("loss", 0.0, 0, step) for step in range(2500)]
    assert [len(operation["points"]) for operation in metrics_operations(points)] == [1000, 1000, 500]
    notes = note_operations({f"p{i}": "v" * 9000 for i in range(150)}, {"t": "v" * 9000})
    assert [(operation["kind"], len(operation["notes"])) for operation in notes] == [
        ("params", 100),
        ("params", 50),
        ("tags", 1),
    ]
    assert {len(value) for value in notes[0]["notes"].values()} == {6000}
    assert len(notes[2]["notes"]["t"]) == 8000


def test_passwords_stay_out_of_what_urllib3_logs(caplog: pytest.LogCaptureFixture) -> None:
    connections = logging.getLogger("urllib3.connectionpool")
    with quiet_libraries("http://me:pass/word@host"):
        connections.warning("Retrying after connection broken: /%s@host/api", "word")
    connections.warning("%s", "word")
    assert caplog.messages == ["Retrying after connection broken: /***@host/api", "word"]
