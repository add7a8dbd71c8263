"""Addresses of servers and databases, as they may be shown."""

from __future__ import annotations

import re

__all__ = ["without_password"]


def without_password(text: str) -> str:
    """Leave user names and passwords out of the addresses in a text."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)
