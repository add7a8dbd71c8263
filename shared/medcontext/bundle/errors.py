"""How a program ends: with one sentence for a user's mistake, with its traceback for a programming error."""

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
from medcontext.dicom import ImageReadError
from medcontext.handlers import NonFiniteLossError, PredictionWriteError, ResumeError
from medcontext.networks import CheckpointWriteError
from medcontext.tracking.outbox import TrackingError

__all__ = ["MISTAKES", "STOPS", "TRACEBACK_FILE", "one_sentence", "removed_on_failure"]

TRACEBACK_FILE = "traceback.txt"
"""In a run's folder: where the error arose that ended it, or kept it from starting."""

MISTAKES: tuple[type[BaseException], ...] = (ValueError, TypeError, FileNotFoundError, ImportError, AssertionError)
"""What a component raises for arguments that it cannot use."""

STOPS: tuple[type[BaseException], ...] = (
    NonFiniteLossError,
    CheckpointWriteError,
    ImageReadError,
    PredictionWriteError,
    ResumeError,
    TrackingError,
)
"""What ends a run that was built."""

# the mistake of whoever passes an argument, or the bug of whoever uses it
_AMBIGUOUS = (TypeError, ImportError, AssertionError)
_DELIBERATE = re.compile(r"\s*(raise|assert)\b")
_SIGNATURE = re.compile(r"unexpected keyword argument|required (positional|keyword-only) argument|multiple values for")
_LIBRARIES = tuple(str(Path(str(package.__file__)).parent) + os.sep for package in (monai, medcontext))
_STANDARD_LIBRARY, _INSTALLED = (sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib"))


@contextlib.contextmanager
def one_sentence(
    subject: str | None = None, kinds: tuple[type[BaseException], ...] = MISTAKES, *, folder: Path | None = None
) -> Iterator[None]:
    """End the program with the message of a user's mistake alone; anything else keeps its traceback.

    A ``TypeError``, ``ImportError`` or ``AssertionError`` is a mistake only where MONAI or this package raises it on
    purpose, or where arguments do not match a signature. The traceback of what arose elsewhere, in a user's own
    component for example, is kept in ``folder`` too. With ``MEDCONTEXT_DEBUG=1`` in the environment there are no
    sentences.

    Args:
        subject: what the sentence is about, put before it.
        kinds: errors that are mistakes.
        folder: of the run, for :data:`TRACEBACK_FILE`.

    Raises:
        SystemExit: With the sentence.
    """
    try:
        yield
    except Exception as error:
        mistake = _mistake(error, kinds)
        said = str(mistake) if mistake is not None else _raised_in_loader(error, kinds)
        kept = None if _from_a_library(mistake) and said is not None else _keep_traceback(error, folder)
        if said is None or os.environ.get("MEDCONTEXT_DEBUG", "0") not in ("", "0"):
            raise
        text = " ".join(said.split()) or type(mistake).__name__
        if mistake is not None and not _from_a_library(mistake):
            text += f" (MEDCONTEXT_DEBUG=1 shows where{f', as does {kept}' if kept else ''})"
        raise SystemExit(f"medcontext: {subject + ': ' if subject else ''}{text}") from error


def _mistake(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException | None:
    """Return the mistake that an error comes from, which MONAI wraps; None for a programming error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kinds):
        cause = cause.__cause__
    if isinstance(cause, _AMBIGUOUS) and not _is_on_purpose(cause):
        return None
    return cause


def _is_on_purpose(error: BaseException) -> bool:
    """Whether a library raised an error to reject an argument, rather than stumbled over it."""
    frame = _innermost(error)
    if frame is None:
        return True
    code = frame.tb_frame.f_code
    if not code.co_filename.startswith(_LIBRARIES):
        return False
    if isinstance(error, TypeError) and code.co_name in ("instantiate", "__init__") and _SIGNATURE.search(str(error)):
        return True
    return _DELIBERATE.match(linecache.getline(code.co_filename, frame.tb_lineno)) is not None


def _from_a_library(error: BaseException | None) -> bool:
    """Whether an error rose in MONAI, in this package or in Python, whose messages say all there is to say."""
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


def _keep_traceback(error: BaseException, folder: Path | None) -> Path | None:
    """Write the traceback to the run's folder; no error of its own takes the place of the one that is reported."""
    if folder is None:
        return None
    path = folder / TRACEBACK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return None
    return path


def _raised_in_loader(error: Exception, kinds: tuple[type[BaseException], ...]) -> str | None:
    """Return what ended a loader's process, if it is one of ``kinds``; of its errors only the traceback arrives."""
    names = "|".join(re.escape(f"{kind.__module__}.{kind.__qualname__}") for kind in kinds)
    found = re.search(rf"^Caught .* in DataLoader worker process(?s:.*)^(?:{names}): (.+)$", str(error), re.MULTILINE)
    return found[1] if found else None


@contextlib.contextmanager
def removed_on_failure(output_dir: Path) -> Iterator[None]:
    """Remove the folder again if it was made for a run that could not be built."""
    existed = output_dir.exists()
    try:
        yield
    except Exception:
        if not existed:
            shutil.rmtree(output_dir, ignore_errors=True)
        raise
