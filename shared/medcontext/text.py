"""Text from outside, such as names of files, as one line that neither a terminal nor a table takes for commands."""

from __future__ import annotations

import re

__all__ = ["printable"]

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
