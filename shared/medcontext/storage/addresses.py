"""Addresses of servers and databases in a form that may be shown."""

from __future__ import annotations

import re

__all__ = ["without_password"]


def without_password(text: str) -> str:
    """Remove user names and passwords from the addresses in a text."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)
