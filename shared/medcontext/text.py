"""Text from outside, such as names of files, that neither a terminal nor a table takes for commands."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any

__all__ = ["escape_records", "printable", "printable_lines"]

LONGEST = 4000
"""Characters of a line, of which a message quotes values from files."""
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, which move a terminal's cursor or change its title, reversals of direction, and bytes that are no
UTF-8, as Python holds them."""


def printable(text: str) -> str:
    r"""Return one line of text in which characters that cannot be shown are escaped.

    Example:
        >>> printable("scan\x1b[31m\udcff.nii") == r"scan\x1b[31m\udcff.nii"
        True
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    r"""Return a message in lines of :func:`printable` text, of which the middle is left out where one is endless.

    Example:
        >>> print(printable_lines("Left out:\n  scan\x1b[31m"))
        Left out:
          scan\x1b[31m
    """
    return "\n".join(map(_shortened, map(printable, text.split("\n"))))


def _shortened(line: str) -> str:
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} … {line[-half:]}"


def escape_records() -> None:
    """Escape what cannot be shown in all later log records and warnings, those of other libraries included.

    They quote what files hold, such as values of DICOM files.
    """
    logging.setLogRecordFactory(_PrintableRecord)
    warnings.formatwarning = _format_printably


class _PrintableRecord(logging.LogRecord):
    """A record whose message is printable; its arguments stay as they are, for formatters that use them."""

    def getMessage(self) -> str:  # noqa: N802 of the base class
        return printable_lines(super().getMessage())


_format_warning = warnings.formatwarning


def _format_printably(*args: Any, **keys: Any) -> str:
    return printable_lines(_format_warning(*args, **keys))
