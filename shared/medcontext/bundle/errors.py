"""How a user's mistake ends a program: with one sentence."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from medcontext.dicom import ImageReadError
from medcontext.handlers import NonFiniteLossError, PredictionWriteError, ResumeError
from medcontext.networks import CheckpointWriteError
from medcontext.tracking.outbox import TrackingError

__all__ = ["MISTAKES", "STOPS", "one_sentence", "removed_on_failure"]

logger = logging.getLogger(__name__)


MISTAKES: tuple[type[BaseException], ...] = (ValueError, TypeError, FileNotFoundError, ImportError, AssertionError)


STOPS: tuple[type[BaseException], ...] = (
    NonFiniteLossError,
    CheckpointWriteError,
    ImageReadError,
    PredictionWriteError,
    ResumeError,
    TrackingError,
)


@contextlib.contextmanager
def one_sentence(subject: str | None = None, kinds: tuple[type[BaseException], ...] = MISTAKES) -> Iterator[None]:
    """End the program with the message of a user's mistake alone; anything else keeps its traceback."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, kinds):  # MONAI wraps what its components raise
            cause = cause.__cause__
        said = _raised_in_loader(error, kinds)
        if cause is None and said is None:
            raise
        logger.debug("refused", exc_info=error)
        text = " ".join((said or str(cause)).split()) or type(cause).__name__
        raise SystemExit(f"medcontext: {subject + ': ' if subject else ''}{text}") from error


def _raised_in_loader(error: Exception, kinds: tuple[type[BaseException], ...]) -> str | None:
    """What a loader's process was ended by, if by one of ``kinds``; of its exceptions only the traceback arrives."""
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
