"""A dataset from which cases that cannot be prepared come as their reasons."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from monai.data import Dataset

from medcontext.data import ImageValueError, case_files, case_name
from medcontext.inferers import NonFinitePredictionError
from medcontext.scans import ImageReadError

__all__ = ["FAILED", "TolerantDataset", "reason_of"]

FAILED = "failed"
"""Key of an item that stands for a failed case: its name, image and reason, by name."""

_KNOWN = (ImageReadError, ImageValueError, NonFinitePredictionError)


class TolerantDataset(Dataset):
    """MONAI's ``Dataset``, where a case that cannot be prepared is an item with its reason instead of an error.

    A case with a ``problem``, which was found before, is not read. Load the items one by one (``batch_size=1``) and
    give them to a :class:`medcontext.cases.TolerantEvaluator`.
    """

    def _transform(self, index: int) -> Any:
        """Return the prepared case, or ``{"failed": {"case": …, "image": …, "reason": …}}``."""
        case = self.data[index]
        if "problem" in case:
            return {FAILED: _failed(case, case["problem"])}
        try:
            return super()._transform(index)
        except Exception as error:
            return {FAILED: _failed(case, reason_of(error, case_files(case)[0]))}


def _failed(case: Mapping[str, Any], reason: str) -> dict[str, str]:
    return {"case": str(case.get("case") or case_name(case)), "image": case_files(case)[0], "reason": reason}


def reason_of(error: Exception, image: str) -> str:
    """Return in one sentence why a case failed.

    Args:
        error: what was raised, which MONAI may have wrapped.
        image: file of its image.

    Raises:
        Exception: ``error`` itself with ``MEDCONTEXT_DEBUG=1`` in the environment.
    """
    if os.environ.get("MEDCONTEXT_DEBUG", "0") not in ("", "0"):
        raise error
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, _KNOWN):
        cause = cause.__cause__
    if isinstance(cause, _KNOWN):
        return str(cause)
    message = " ".join(str(cause).split()).rstrip(".")
    return f"{image} cannot be processed ({type(cause).__name__}: {message}); MEDCONTEXT_DEBUG=1 shows the traceback."
