"""What is to be sent to MLflow, sent in the background and kept while MLflow is away."""

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
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, ErrorCode

from medcontext.faults import explained
from medcontext.storage.addresses import without_password
from medcontext.tracking.address import resolve_tracking_uri
from medcontext.tracking.operations import FILE_KINDS, METRICS_LIMIT, Operation, send

__all__ = [
    "Outbox",
    "TrackingError",
    "Unsent",
    "reach",
    "read_unsent",
    "send_kept",
    "send_unsent",
    "short_requests",
    "unsent_file",
]

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0
"""Seconds between two attempts to reach a server that is away."""
PAUSE_AT_THE_END = 2.0

_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"


@contextlib.contextmanager
def short_requests(timeout: int | None = None) -> Iterator[None]:
    """Let MLflow's requests fail at the second attempt, where the environment does not say otherwise.

    By default MLflow tries eight times, which takes minutes.

    Args:
        timeout: seconds for an attempt, instead of MLflow's two minutes.
    """
    ours = {_RETRIES: "1"} if timeout is None else {_RETRIES: "1", _TIMEOUT: str(timeout)}
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextlib.contextmanager
def reach(uri: str, timeout: int | None = 10) -> Iterator[None]:
    """Say in one sentence that MLflow cannot be used, within seconds.

    Args:
        uri: of MLflow, named in the sentence.
        timeout: as for :func:`short_requests`.

    Raises:
        TrackingError: When anything goes wrong.
    """

    def explain(error: Exception) -> Exception:
        return TrackingError(
            f"MLflow at {without_password(uri)} cannot be used ({_reason(error)}); see that it runs, or choose another "
            "by --tracking_uri or the environment variable MLFLOW_TRACKING_URI, such as sqlite:///mlruns.db."
        )

    with explained(explain), short_requests(timeout):
        yield


def _reason(error: Exception) -> str:
    text = without_password(" ".join(str(error).split()))
    if "Caused by" in text:  # of a failed connection only the innermost error tells something
        text = text.rsplit(": ", 1)[-1].rstrip("'\")")
    return re.split(r"(?<=[a-z])\. ", text)[0][:300]


def unsent_file(ckpt_dir: str | os.PathLike[str], run_id: str) -> Path:
    """Where the operations of a run are kept that MLflow did not take."""
    return Path(ckpt_dir) / f"mlflow_unsent_{run_id}.jsonl"


class TrackingError(ValueError):
    """MLflow does not answer, or not as it should, where a run cannot go on without it."""


class Unsent(NamedTuple):
    """A file of operations that MLflow did not take."""

    run_id: str
    tracking_uri: str
    operations: list[Operation]


def read_unsent(path: Path) -> Unsent:
    """Read a file of unsent operations; a last line that a crash cut off is left out.

    Raises:
        ValueError: When the file is no such file.
    """
    lines: list[Any] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    if not lines or not isinstance(lines[0], dict) or "run_id" not in lines[0]:
        raise ValueError(f"{path} does not name a run; delete it if you do not know where it comes from.")
    return Unsent(lines[0]["run_id"], lines[0]["tracking_uri"], lines[1:])


def send_unsent(path: Path, client: MlflowClient) -> int:
    """Send what a file keeps for its run, then delete the file.

    Args:
        path: the file; without one nothing is done.
        client: of MLflow.

    Returns:
        How many entries were sent.
    """
    if not path.is_file():
        return 0
    unsent = read_unsent(path)
    waiting: deque[Operation] = deque()
    for operation in unsent.operations:
        if not _merge(waiting, operation):
            waiting.append(operation)
    for operation in waiting:
        try:
            send(client, unsent.run_id, operation)
        except Exception as error:
            if not _is_refusal(error):
                raise
            logger.warning("MLflow refused %s of run %s: %s", operation["kind"], unsent.run_id, _reason(error))
    path.unlink()
    return len(unsent.operations)


def send_kept(ckpt_dir: str | os.PathLike[str], tracking_uri: str | None = None) -> int:
    """Send what is kept beside checkpoints because MLflow did not take it.

    Args:
        ckpt_dir: folder of the checkpoints.
        tracking_uri: MLflow's address; by default ``$MLFLOW_TRACKING_URI``, else the one that the run was logged to.

    Returns:
        How many entries were sent.

    Raises:
        FileNotFoundError: When there is no such folder.
        TrackingError: When MLflow does not answer; what is kept stays.
    """
    if not Path(ckpt_dir).is_dir():
        raise FileNotFoundError(f"There is no folder {ckpt_dir}.")
    sent = 0
    for path in sorted(Path(ckpt_dir).glob(unsent_file("", "*").name)):
        uri = str(resolve_tracking_uri(tracking_uri, default=read_unsent(path).tracking_uri))
        with reach(uri, timeout=None):
            sent += send_unsent(path, MlflowClient(uri))
    return sent


def _is_refusal(error: Exception) -> bool:
    """Whether trying again is of no use: MLflow rejects the content, or a file is not there."""
    refused = isinstance(error, MlflowException) and error.error_code == ErrorCode.Name(INVALID_PARAMETER_VALUE)
    return refused or isinstance(error, FileNotFoundError)


@dataclass
class _Lane:
    """Operations of one kind in order, and when to try the first of them again."""

    operations: deque[Operation] = field(default_factory=deque)
    failures: int = 0
    retry_at: float = 0.0
    since: float = 0.0

    @property
    def away(self) -> bool:
        return self.failures > 0


class Outbox:
    """Send operations of one run in order from a thread of its own, so that training never waits for MLflow.

    When MLflow does not answer, the operations are kept and tried again, at growing intervals; what is left at the end
    is written to a file. Sending one twice does no harm: points of a metric carry their own time, by which MLflow knows
    them. Files have a lane of their own, so that a store of artifacts that fails does not hold up the metrics.

    Args:
        client: of MLflow; after this only the thread uses it.
        run_id: the run.
        unsent: the file.
        tracking_uri: noted in that file.
        ahead: keep operations in the file from when they are put until they are sent, so that none are lost with the
            process.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, unsent: Path, tracking_uri: str, *, ahead: bool = True
    ) -> None:
        self.client = client
        self.run_id = run_id
        self.unsent = unsent
        self.tracking_uri = tracking_uri
        self.ahead = ahead
        self._lanes = {"values": _Lane(), "files": _Lane()}
        self._changed = threading.Condition()
        self._closing = self._abandoned = False
        self._told: set[str] = set()
        self._requests = contextlib.ExitStack()
        self._requests.enter_context(short_requests())
        self._thread = threading.Thread(target=self._send_all, name="mlflow outbox", daemon=True)
        self._thread.start()

    def put(self, *operations: Operation) -> None:
        """Add operations; this returns at once."""
        if not operations:
            return
        with self._changed:
            if self.ahead:
                self._write(operations, "a")
            for operation in operations:
                lane = self._lanes["files" if operation["kind"] in FILE_KINDS else "values"]
                if not _merge(lane.operations, operation):
                    lane.operations.append(operation)
            self._changed.notify_all()

    def settle(self, wait: float) -> None:
        """Wait until all but files is sent, or MLflow turns out to be away.

        Args:
            wait: seconds to wait at most.
        """
        lane = self._lanes["values"]
        with self._changed:
            self._changed.wait_for(lambda: lane.away or not lane.operations, wait)

    def close(self, wait: float) -> bool:
        """Send what is left and stop.

        Args:
            wait: seconds to go on trying where MLflow is away; as long as it takes something, all is sent.

        Returns:
            Whether all is sent; the rest stands in the file.
        """
        deadline = time.monotonic() + wait
        with self._changed:
            self._closing = True
            for lane in self._lanes.values():
                lane.retry_at = 0.0
            self._changed.notify_all()
        try:
            while self._thread.is_alive() and not self._hopeless(deadline, wait):
                self._thread.join(0.1)
        except KeyboardInterrupt:
            logger.warning("Interrupted while waiting for MLflow.")
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            self._requests.close()
            return self._keep_the_rest()

    def _hopeless(self, deadline: float, wait: float) -> bool:
        """Whether everything that is left has failed for as long as one is ready to wait."""
        now = time.monotonic()
        with self._changed:
            left = [lane for lane in self._lanes.values() if lane.operations]
            return bool(left) and all(lane.away and now > max(deadline, lane.since + wait) for lane in left)

    def _keep_the_rest(self) -> bool:
        rest = [operation for lane in self._lanes.values() for operation in lane.operations]
        if not rest:
            return True
        self._write(rest, "w" if self.ahead else "a")
        logger.warning(
            "MLflow did not take %d entries of run %s; they are kept in %s and sent by the next evaluation or resumed "
            "training of it, or by: python -m medcontext send_unsent --ckpt_dir %s",
            len(rest),
            self.run_id,
            self.unsent,
            self.unsent.parent,
        )
        return False

    def _send_all(self) -> None:
        while (lane := self._next_lane()) is not None:
            operation = lane.operations[0]
            try:
                send(self.client, self.run_id, operation)
            except Exception as error:  # whatever it is, training goes on
                self._failed(lane, operation, error)
            else:
                self._sent(lane)
            with self._changed:
                self._changed.notify_all()

    def _next_lane(self) -> _Lane | None:
        """Wait for a lane with something that is due; ``None`` when there will be none."""
        with self._changed:
            while not self._abandoned:
                waiting = [lane for lane in self._lanes.values() if lane.operations]
                pauses = [lane.retry_at - time.monotonic() for lane in waiting]
                for lane, pause in zip(waiting, pauses, strict=True):
                    if pause <= 0:
                        return lane
                if self._closing and not waiting:
                    return None
                self._changed.wait(min(pauses, default=None))
        return None

    def _sent(self, lane: _Lane) -> None:
        with self._changed:
            if self._abandoned:
                return
            if lane.away:
                logger.warning("MLflow answers again; what was kept is being sent.")
            lane.operations.popleft()
            lane.failures = 0
            self._forget()

    def _failed(self, lane: _Lane, operation: Operation, error: Exception) -> None:
        reason = _reason(error)
        with self._changed:
            if self._abandoned:
                return
            if _is_refusal(error):
                self._warn_once(f"MLflow refused {operation['kind']} of run {self.run_id} (left out): {reason}")
                lane.operations.popleft()
                self._forget()
                return
            if not lane.away:
                logger.warning("MLflow does not answer (%s); values are kept and sent later.", reason)
                lane.since = time.monotonic()
            longest = PAUSE_AT_THE_END if self._closing else LONGEST_PAUSE
            lane.retry_at = time.monotonic() + min(2.0**lane.failures, longest)
            lane.failures += 1

    def _forget(self) -> None:
        """Delete the file when nothing is left to send."""
        if self.ahead and not any(lane.operations for lane in self._lanes.values()):
            self.unsent.unlink(missing_ok=True)

    def _warn_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            logger.warning(text)

    def _write(self, operations: Sequence[Operation], mode: str) -> None:
        """Write operations to the file, under a first line that names the run."""
        lines = [json.dumps(operation) for operation in operations]
        if mode == "w" or not self.unsent.exists():
            lines.insert(0, json.dumps({"run_id": self.run_id, "tracking_uri": without_password(self.tracking_uri)}))
        try:
            self.unsent.parent.mkdir(parents=True, exist_ok=True)
            with self.unsent.open(mode, encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
        except OSError as error:
            self._warn_once(f"What is not sent to MLflow yet cannot be kept in a file: {error}")


def _merge(waiting: deque[Operation], operation: Operation) -> bool:
    """Add metrics to the last request that waits, unless it is full or may be under way."""
    if operation["kind"] != "metrics" or len(waiting) < 2 or waiting[-1]["kind"] != "metrics":
        return False
    points = waiting[-1]["points"]
    if len(points) + len(operation["points"]) > METRICS_LIMIT:
        return False
    points.extend(operation["points"])
    return True
