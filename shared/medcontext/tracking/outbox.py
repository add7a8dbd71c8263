"""Sending of records to MLflow in the background; they are kept while MLflow is unreachable."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, ErrorCode

from medcontext.faults import explained
from medcontext.storage.addresses import without_password
from medcontext.storage.files import open_unlinked
from medcontext.tracking.database import database_file
from medcontext.tracking.operations import FILE_KINDS, KEPT_KINDS, METRICS_LIMIT, Operation, send

__all__ = [
    "Outbox",
    "TrackingError",
    "is_rejection",
    "merge_metrics",
    "quiet_libraries",
    "reach",
    "short_requests",
    "short_text",
]

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0
"""Maximum number of seconds between two attempts to reach an unreachable server."""
PAUSE_AT_THE_END = 2.0

_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"


@contextlib.contextmanager
def short_requests(timeout: int | None = None) -> Iterator[None]:
    """Let MLflow's requests fail after the second attempt, unless the environment sets another number.

    By default, MLflow tries eight times, which takes minutes.

    Args:
        timeout: seconds per attempt, instead of MLflow's two minutes.
    """
    limits = {_RETRIES: "1"} if timeout is None else {_RETRIES: "1", _TIMEOUT: str(timeout)}
    limits = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name in limits:
            os.environ.pop(name, None)


@contextlib.contextmanager
def quiet_libraries(uri: str) -> Iterator[None]:
    """Keep tracebacks of a database, whose errors are raised and reported too, and passwords out of other logs.

    Args:
        uri: address of MLflow, parts of which urllib3 quotes when it tries again.
    """

    def hide_password(record: logging.LogRecord) -> bool:
        record.msg, record.args = without_password(record.getMessage(), uri), ()
        return True

    database, connections = (logging.getLogger(name) for name in ("mlflow.store.db.utils", "urllib3.connectionpool"))
    database.addFilter(_is_no_error)
    connections.addFilter(hide_password)
    try:
        yield
    finally:
        database.removeFilter(_is_no_error)
        connections.removeFilter(hide_password)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


@contextlib.contextmanager
def reach(uri: str, timeout: int | None = 10) -> Iterator[None]:
    """Report in one sentence, within seconds, that MLflow cannot be used.

    Args:
        uri: address of MLflow, which the sentence contains.
        timeout: as for :func:`short_requests`.

    Raises:
        TrackingError: If anything fails.
    """

    def explain(error: Exception) -> Exception:
        return TrackingError(
            f"MLflow at {without_password(uri)} cannot be used ({short_text(error, uri)}); check that it is running, "
            "or choose another by --tracking_uri or the environment variable MLFLOW_TRACKING_URI, such as sqlite:///mlruns.db."
        )

    with explained(explain), short_requests(timeout), quiet_libraries(uri):
        yield


def short_text(error: Exception, uri: str = "") -> str:
    """Return the informative part of an error of MLflow or of a connection, without passwords, that of ``uri`` too."""
    file = database_file(uri)
    if file is not None and not file.exists():
        return f"the database {file} is gone"
    text = without_password(" ".join(str(error).split()), uri)
    in_sqlite = re.search(r"\(sqlite3\.\w+\) ([^\[]+)", text)
    if in_sqlite:
        return in_sqlite[1].strip()
    if "Caused by" in text:  # of a failed connection, only the innermost error is informative
        text = text.rsplit(": ", 1)[-1].rstrip("'\")")
    return re.split(r"(?<=[a-z])\. ", text)[0][:300]


class TrackingError(ValueError):
    """MLflow is unreachable or fails, and the run cannot continue without it."""


def is_rejection(error: Exception) -> bool:
    """Return whether another attempt is useless: MLflow rejects the content, or a file does not exist."""
    rejected = isinstance(error, MlflowException) and error.error_code == ErrorCode.Name(INVALID_PARAMETER_VALUE)
    return rejected or isinstance(error, FileNotFoundError)


@dataclass
class _Queue:
    """Operations of one kind in order, and the time of the next attempt to send the first of them."""

    operations: deque[Operation] = field(default_factory=deque)
    failures: int = 0
    retry_at: float = 0.0
    failing_since: float = 0.0

    @property
    def is_failing(self) -> bool:
        return self.failures > 0


class Outbox:
    """Send the operations of a run in order from a background thread, so that training never waits for MLflow.

    While MLflow is unreachable, operations are kept and tried again at growing intervals; those left at the end are
    written to a file. Sending one twice is harmless: MLflow recognises points of a metric by their time. Files have a
    queue of their own, so that a failing artifact store does not delay the metrics.

    Args:
        client: client of MLflow, which only the thread may use from now on.
        run_id: id of the run.
        unsent: path of the file.
        tracking_uri: address of MLflow, which is noted in the file.
        ahead: keep operations in the file as soon as they are put and until they are sent, so that none are lost if the
            process is killed.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, unsent: Path, tracking_uri: str, *, ahead: bool = True
    ) -> None:
        self.client = client
        self.run_id = run_id
        self.unsent = unsent
        self.tracking_uri = tracking_uri
        self.ahead = ahead
        self._queues = {"values": _Queue(), "files": _Queue()}
        self._changed = threading.Condition()
        self._closing = self._abandoned = False
        self._warned: set[str] = set()
        self._requests = contextlib.ExitStack()
        self._requests.enter_context(short_requests())
        self._requests.enter_context(quiet_libraries(tracking_uri))
        self._thread = threading.Thread(target=self._send_all, name="mlflow outbox", daemon=True)
        self._thread.start()

    def put(self, *operations: Operation) -> None:
        """Add operations, without waiting for them to be sent."""
        if not operations:
            return
        with self._changed:
            if self.ahead:
                self._write(operations, "a")
            for operation in operations:
                queue = self._queues["files" if operation["kind"] in FILE_KINDS else "values"]
                if not merge_metrics(queue.operations, operation):
                    queue.operations.append(operation)
            self._changed.notify_all()

    def settle(self, wait: float) -> None:
        """Wait until everything but files is sent, or MLflow turns out to be unreachable.

        Args:
            wait: maximum number of seconds to wait.
        """
        queue = self._queues["values"]
        with self._changed:
            self._changed.wait_for(lambda: queue.is_failing or not queue.operations, wait)

    def close(self, wait: float) -> bool:
        """Send the remaining operations and stop.

        Args:
            wait: seconds to keep trying while MLflow is unreachable; if it is reachable, everything is sent.

        Returns:
            Whether everything was sent; the rest is in the file.
        """
        deadline = time.monotonic() + wait
        with self._changed:
            self._closing = True
            for queue in self._queues.values():
                queue.retry_at = 0.0
            self._changed.notify_all()
        try:
            while self._thread.is_alive() and not self._is_given_up(deadline, wait):
                self._thread.join(0.1)
        except (KeyboardInterrupt, SystemExit):  # of a signal
            logger.warning("Interrupted while waiting for MLflow.")
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            self._requests.close()
            return self._keep_unsent()

    def _is_given_up(self, deadline: float, wait: float) -> bool:
        """Return whether every queue that is not empty has been failing for longer than the time to wait."""
        now = time.monotonic()
        with self._changed:
            left = [queue for queue in self._queues.values() if queue.operations]
            return bool(left) and all(
                queue.is_failing and now > max(deadline, queue.failing_since + wait) for queue in left
            )

    def _keep_unsent(self) -> bool:
        rest = [operation for queue in self._queues.values() for operation in queue.operations]
        kept = [operation for operation in rest if operation["kind"] in KEPT_KINDS]
        if len(kept) < len(rest):
            logger.warning(
                "The model of run %s could not be logged to MLflow; to log it, run the same command with resume.json "
                "added, which trains no further.",
                self.run_id,
            )
        if kept:
            self._write(kept, "w" if self.ahead else "a")
            logger.warning(
                "%d records of run %s could not be sent to MLflow; they are kept in %s and sent by its next "
                "evaluation, when it is resumed, or by: python -m medcontext send_unsent --ckpt_dir %s",
                len(kept),
                self.run_id,
                self.unsent,
                self.unsent.parent,
            )
        elif self.ahead:
            self.unsent.unlink(missing_ok=True)
        return not rest

    def _send_all(self) -> None:
        while (queue := self._next_due()) is not None:
            operation = queue.operations[0]
            try:
                send(self.client, self.run_id, operation)
            except Exception as error:  # training continues after any error
                self._failed(queue, operation, error)
            else:
                self._sent(queue)
            with self._changed:
                self._changed.notify_all()

    def _next_due(self) -> _Queue | None:
        """Wait for the next queue that is due; return ``None`` if there will be none."""
        with self._changed:
            while not self._abandoned:
                waiting = [queue for queue in self._queues.values() if queue.operations]
                pauses = [queue.retry_at - time.monotonic() for queue in waiting]
                for queue, pause in zip(waiting, pauses, strict=True):
                    if pause <= 0:
                        return queue
                if self._closing and not waiting:
                    return None
                self._changed.wait(min(pauses, default=None))
        return None

    def _sent(self, queue: _Queue) -> None:
        with self._changed:
            if self._abandoned:
                return
            if queue.is_failing:
                logger.warning("MLflow is reachable again; the kept records are being sent.")
            queue.operations.popleft()
            queue.failures = 0
            self._delete_if_all_sent()

    def _failed(self, queue: _Queue, operation: Operation, error: Exception) -> None:
        reason = short_text(error, self.tracking_uri)
        with self._changed:
            if self._abandoned:
                return
            if is_rejection(error):
                self._warn_once(f"MLflow rejected {operation['kind']} of run {self.run_id} (left out): {reason}")
                queue.operations.popleft()
                self._delete_if_all_sent()
                return
            if not queue.is_failing:
                logger.warning("MLflow is unreachable (%s); records are kept and sent later.", reason)
                queue.failing_since = time.monotonic()
            longest = PAUSE_AT_THE_END if self._closing else LONGEST_PAUSE
            queue.retry_at = time.monotonic() + min(2.0**queue.failures, longest)
            queue.failures += 1

    def _delete_if_all_sent(self) -> None:
        """Delete the file if nothing is left to send."""
        if self.ahead and not any(queue.operations for queue in self._queues.values()):
            self.unsent.unlink(missing_ok=True)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(text)

    def _write(self, operations: Sequence[Operation], mode: str) -> None:
        """Write operations to the file, under a first line that names the run."""
        lines = [json.dumps(operation) for operation in operations if operation["kind"] in KEPT_KINDS]
        if mode == "w" or not self.unsent.exists():
            lines.insert(0, json.dumps({"run_id": self.run_id, "tracking_uri": without_password(self.tracking_uri)}))
        try:
            self.unsent.parent.mkdir(parents=True, exist_ok=True)
            with open_unlinked(self.unsent, mode) as file:
                file.write("".join(f"{line}\n" for line in lines))
        except OSError as error:
            self._warn_once(f"Records that are not sent to MLflow yet cannot be kept in a file: {error}")


def merge_metrics(waiting: deque[Operation], operation: Operation) -> bool:
    """Add metrics to the last waiting request unless it is full or being sent, and return whether they were added."""
    if operation["kind"] != "metrics" or len(waiting) < 2 or waiting[-1]["kind"] != "metrics":
        return False
    points = waiting[-1]["points"]
    if len(points) + len(operation["points"]) > METRICS_LIMIT:
        return False
    points.extend(operation["points"])
    return True
