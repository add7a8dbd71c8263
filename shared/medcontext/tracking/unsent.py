"""Records that were kept beside checkpoints while MLflow was unreachable, and their sending.

A folder of checkpoints may come from elsewhere, so what is kept in it is data: records are sent to the address that the
user chose, together with files in the run's own folder, and nothing is followed out of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient

from medcontext.storage.addresses import without_password
from medcontext.storage.json_files import parse_json
from medcontext.tracking.address import resolve_tracking_uri
from medcontext.tracking.operations import KEPT_KINDS, Operation, send
from medcontext.tracking.outbox import is_rejection, merge_metrics, reach, short_text

__all__ = ["Unsent", "read_unsent", "send_kept", "send_unsent", "unsent_file"]

logger = logging.getLogger(__name__)


class Unsent(NamedTuple):
    """Content of a file of unsent operations."""

    run_id: str
    tracking_uri: str
    operations: list[Operation]


def unsent_file(ckpt_dir: str | os.PathLike[str], run_id: str) -> Path:
    """Return the path of the file with the unsent operations of a run."""
    return Path(ckpt_dir) / f"mlflow_unsent_{run_id}.jsonl"


def read_unsent(path: Path) -> Unsent:
    """Read a file of unsent operations, without a last line that a crash cut off.

    Raises:
        ValueError: If the file is a link, or not such a file.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link, which is not followed; delete it, or put the file itself there.")
    lines: list[Any] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            lines.append(parse_json(line, finite=False))
    head = lines[0] if lines else None
    if not isinstance(head, dict) or not all(isinstance(head.get(key), str) for key in ("run_id", "tracking_uri")):
        raise ValueError(f"{path} does not name a run; delete it if you do not know where it comes from.")
    operations = [line for line in lines[1:] if isinstance(line, dict) and line.get("kind") in KEPT_KINDS]
    return Unsent(head["run_id"], head["tracking_uri"], operations)


def send_unsent(path: Path, client: MlflowClient) -> int:
    """Send the operations in a file, then delete the file.

    Files outside the run's folder, which is above a ``models`` folder, are left out with a warning.

    Args:
        path: path of the file; nothing is done if it does not exist.
        client: client of MLflow.

    Returns:
        The number of records that were sent.

    Raises:
        ValueError: If the file is a link, or not such a file.
    """
    if not os.path.lexists(path):
        return 0
    unsent = read_unsent(path)
    sendable = list(_within(_run_folder(path), unsent.operations))
    waiting: deque[Operation] = deque()
    for operation in sendable:
        if not merge_metrics(waiting, operation):
            waiting.append(operation)
    for operation in waiting:
        try:
            send(client, unsent.run_id, operation)
        except Exception as error:
            if not is_rejection(error):
                raise
            logger.warning("MLflow rejected %s of run %s: %s", operation["kind"], unsent.run_id, short_text(error))
    path.unlink()
    return len(sendable)


def _run_folder(path: Path) -> Path:
    """Return the folder of the run to which a file of unsent operations belongs."""
    folder = path.parent.resolve()
    return folder.parent if folder.name == "models" else folder


def _within(folder: Path, operations: list[Operation]) -> Iterator[Operation]:
    """Yield the operations that send nothing from outside a folder."""
    for operation in operations:
        if operation["kind"] == "file" and not _lies_in(folder, Path(operation["path"])):
            logger.warning("%s is not sent: it lies, or leads, outside the run's folder %s.", operation["path"], folder)
        else:
            yield operation


def _lies_in(folder: Path, path: Path) -> bool:
    """Return whether a file, or a folder with all that is in it, lies in ``folder`` when all links are followed."""
    return all(each.resolve().is_relative_to(folder) for each in (path, *path.rglob("*")))


def send_kept(ckpt_dir: str | os.PathLike[str], tracking_uri: str | None = None, *, default: str | None = None) -> int:
    """Send the unsent records that are kept beside checkpoints.

    The records name the address that the run was logged to, which is not believed: if it is not the default, it must be
    given.

    Args:
        ckpt_dir: folder of the checkpoints.
        tracking_uri: address of MLflow; by default ``$MLFLOW_TRACKING_URI``, else ``default``.
        default: address that the user's runs are logged to if none is given.

    Returns:
        The number of records that were sent.

    Raises:
        FileNotFoundError: If there is no such folder.
        TrackingError: If MLflow is unreachable; the records are still kept.
        ValueError: If no address is given and the run was logged to another one than the default.
    """
    if not Path(ckpt_dir).is_dir():
        raise FileNotFoundError(f"There is no folder {ckpt_dir}.")
    sent = 0
    for path in sorted(Path(ckpt_dir).glob(unsent_file("", "*").name)):
        noted, uri = read_unsent(path).tracking_uri, resolve_tracking_uri(tracking_uri)
        if uri is None and without_password(default or "") != without_password(noted):
            address = shlex.quote(noted) if noted.isprintable() else "ADDRESS"
            raise ValueError(
                f"The records in {path} are of a run that was logged elsewhere; to send them there, and if you trust "
                f"that address, give it: --tracking_uri {address}"
            )
        uri = uri or str(default)
        with reach(uri, timeout=None):
            sent += send_unsent(path, MlflowClient(uri))
    return sent
