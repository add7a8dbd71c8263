"""Ends of a program: one sentence for a user's mistake, a traceback for a programming error."""

from __future__ import annotations

import contextlib
import linecache
import os
import re
import shutil
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import monai

import medcontext
from medcontext.data import ImageValueError
from medcontext.faults import disk_remedy, explained
from medcontext.handlers import NonFiniteLossError, PredictionWriteError, ResumeError
from medcontext.inferers import NonFinitePredictionError
from medcontext.networks import CheckpointWriteError
from medcontext.reliability import CalibrationError
from medcontext.scans import ImageReadError
from medcontext.text import printable_lines
from medcontext.tracking.outbox import TrackingError

__all__ = ["FaultError", "MISTAKES", "STOPS", "TRACEBACK_FILE", "known_faults", "one_sentence", "removed_on_failure"]

TRACEBACK_FILE = "traceback.txt"
"""File in a run's folder with the traceback of the error that ended it or prevented its start."""

MISTAKES: tuple[type[BaseException], ...] = (ValueError, TypeError, FileNotFoundError, ImportError, AssertionError)
"""Errors that a component raises for invalid arguments."""


class FaultError(RuntimeError):
    """The disk, or a process of a loader, failed."""


STOPS: tuple[type[BaseException], ...] = (
    CalibrationError,
    FaultError,
    NonFiniteLossError,
    CheckpointWriteError,
    ImageReadError,
    ImageValueError,
    NonFinitePredictionError,
    PredictionWriteError,
    ResumeError,
    TrackingError,
)
"""Errors that end a running engine and are not programming errors."""

# either an invalid argument or a programming error
_AMBIGUOUS = (TypeError, ImportError, AssertionError)
_DELIBERATE = re.compile(r"\s*(raise|assert)\b")
_SIGNATURE = re.compile(r"unexpected keyword argument|required (positional|keyword-only) argument|multiple values for")
_LIBRARIES = tuple(str(Path(str(package.__file__)).parent) + os.sep for package in (monai, medcontext))
_STANDARD_LIBRARY, _INSTALLED = (sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib"))


@contextlib.contextmanager
def one_sentence(
    subject: str | None = None, kinds: tuple[type[BaseException], ...] = MISTAKES, *, folder: Path | None = None
) -> Iterator[None]:
    """End the program with only the message of a user's mistake; other errors keep their traceback.

    A ``TypeError``, ``ImportError`` or ``AssertionError`` is a mistake only if MONAI or this package raises it
    deliberately, or if arguments do not match a signature. The traceback of an error from elsewhere, for example from a
    user's own component, is also written to ``folder``. With ``MEDCONTEXT_DEBUG=1`` in the environment, all errors keep
    their traceback.

    Args:
        subject: subject of the sentence, as its prefix.
        kinds: errors that are mistakes.
        folder: folder of the run, for :data:`TRACEBACK_FILE`.

    Raises:
        SystemExit: If the error is a mistake; the message is the sentence.
    """
    try:
        yield
    except Exception as error:
        mistake = _mistake(error, kinds)
        message = str(mistake) if mistake is not None else _message_from_loader(error, kinds)
        file = None if _is_from_library(mistake) and message is not None else _write_traceback(error, folder)
        if message is None or os.environ.get("MEDCONTEXT_DEBUG", "0") not in ("", "0"):
            raise
        text = printable_lines(" ".join(message.split())) or type(mistake).__name__
        if mistake is not None and not _is_from_library(mistake):
            text += f" (MEDCONTEXT_DEBUG=1 shows the traceback{f', as does {file}' if file else ''})"
        raise SystemExit(f"medcontext: {subject + ': ' if subject else ''}{text}") from error


def _mistake(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException | None:
    """Return the mistake that caused an error, which MONAI wraps; ``None`` for a programming error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kinds):
        cause = cause.__cause__
    if isinstance(cause, _AMBIGUOUS) and not _is_deliberate(cause):
        return None
    return cause


def _is_deliberate(error: BaseException) -> bool:
    """Return whether a library raised an error deliberately, to reject an argument."""
    frame = _innermost(error)
    if frame is None:
        return True
    code = frame.tb_frame.f_code
    if not code.co_filename.startswith(_LIBRARIES):
        return False
    if isinstance(error, TypeError) and code.co_name in ("instantiate", "__init__") and _SIGNATURE.search(str(error)):
        return True
    return _DELIBERATE.match(linecache.getline(code.co_filename, frame.tb_lineno)) is not None


def _is_from_library(error: BaseException | None) -> bool:
    """Return whether an error comes from MONAI, this package or Python, whose messages suffice without a traceback."""
    frame = None if error is None else _innermost(error)
    if frame is None:
        return True
    name = frame.tb_frame.f_code.co_filename
    if name.startswith(_INSTALLED):
        return name.startswith(_LIBRARIES)
    return name.startswith((*_LIBRARIES, _STANDARD_LIBRARY, "<"))


def _innermost(error: BaseException) -> TracebackType | None:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame


def _write_traceback(error: BaseException, folder: Path | None) -> Path | None:
    """Write the traceback to the run's folder and return the file, ``None`` without a folder or if writing fails."""
    if folder is None:
        return None
    path = folder / TRACEBACK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return None
    return path


def _message_from_loader(error: Exception, kinds: tuple[type[BaseException], ...]) -> str | None:
    """Return the message of the error of ``kinds`` that ended a loader's process, of which only the text is passed."""
    names = "|".join(re.escape(f"{kind.__module__}.{kind.__qualname__}") for kind in kinds)
    match = re.search(rf"^Caught .* in DataLoader worker process(?s:.*)^(?:{names}): (.+)$", str(error), re.MULTILINE)
    return match[1] if match else None


def known_faults() -> contextlib.AbstractContextManager[None]:
    """Put failures of the disk and of loaders' processes into words.

    Raises:
        FaultError: In place of such a failure.
    """
    return explained(lambda error: _loader_fault(error) or _disk_fault(error))


def _loader_fault(error: Exception) -> FaultError | None:
    match = re.search(r"DataLoader worker \(pid.*?\) (?:is killed by signal: (.+?)\.|exited unexpectedly)", str(error))
    if match is None:
        return None
    if match[1] and match[1].startswith("Bus error"):
        return FaultError(
            "A loader's process ran out of shared memory; raise its limit (docker run --shm-size=8g), or lower "
            "num_workers, then resume."
        )
    how = f"was killed ({match[1]})" if match[1] else "ended unexpectedly"
    return FaultError(
        f"A loader's process {how}, most likely because memory ran out; lower num_workers or cache_rate, then resume."
    )


def _disk_fault(error: Exception) -> FaultError | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (OSError, *STOPS)):
        cause = cause.__cause__  # MONAI wraps errors of a component's constructor
    remedy = disk_remedy(cause) if isinstance(cause, OSError) and not isinstance(cause, STOPS) else None
    return None if remedy is None else FaultError(f"{cause}; {remedy}.")


@contextlib.contextmanager
def removed_on_failure(output_dir: Path) -> Iterator[None]:
    """Remove the folder if it was created for a run that could not be built."""
    existed = output_dir.exists()
    try:
        yield
    except BaseException:
        if not existed:
            shutil.rmtree(output_dir, ignore_errors=True)
        raise
