"""Which cases failed and why, as a record, a table and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pandas as pd
from ignite.engine import Engine

from medcontext.storage.files import write_file
from medcontext.storage.tables import csv_bytes
from medcontext.text import printable

__all__ = ["FAILURES_FILE", "FailedCase", "failed_cases", "failures_sentence", "write_failures"]

FAILURES_FILE = "failures.csv"
"""Name of the table of failed cases, beside the results of the others."""

SHOWN = 5


@dataclass(frozen=True)
class FailedCase:
    """A case that was left out, in :func:`medcontext.text.printable` words.

    Attributes:
        case: its name.
        image: the first file of its image.
        reason: sentence that names the file and the remedy.
    """

    case: str
    image: str
    reason: str

    def __post_init__(self) -> None:
        """Escape what tables, pages and terminals do not take."""
        for field in fields(self):
            object.__setattr__(self, field.name, printable(getattr(self, field.name)))


def failed_cases(engine: Engine) -> list[FailedCase]:
    """Return the cases that failed so far, in all processes, each of which must call this."""
    failed: list[FailedCase] = list(getattr(engine.state, "failed_cases", ()))
    if idist.get_world_size() == 1:
        return failed
    shares: Any = idist.all_gather(failed)
    return list(dict.fromkeys(case for share in shares for case in share))


def write_failures(folder: Path, failed: Sequence[FailedCase]) -> None:
    """Write the table of failed cases, or remove that of an earlier run if none failed."""
    if not failed:
        (folder / FAILURES_FILE).unlink(missing_ok=True)
        return
    columns = [field.name for field in fields(FailedCase)]
    table = pd.DataFrame([asdict(case) for case in failed], columns=columns)
    write_file(folder / FAILURES_FILE, csv_bytes(table))


def failures_sentence(failed: Sequence[FailedCase], total: int, folder: str) -> str:
    """Return one sentence that says which of ``total`` cases failed and why, and in which folder the table is.

    Example:
        >>> failures_sentence([FailedCase("b", "b.nii", "b.nii is empty; get it again.")], 3, "out")
        '1 of 3 cases failed, listed in out/failures.csv: b.nii is empty; get it again.'
    """
    if total == 1:
        return failed[0].reason
    reasons = " | ".join(case.reason for case in failed[:SHOWN])
    more = f" (and {len(failed) - SHOWN} more)" if len(failed) > SHOWN else ""
    return f"{len(failed)} of {total} cases failed, listed in {folder}/{FAILURES_FILE}: {reasons}{more}"
