"""Addresses of servers and databases in a form that may be shown."""

from __future__ import annotations

import re

__all__ = ["without_password"]

# Up to the last @, since passwords hold @, / and : too. A path without a host, as of sqlite:///, has no password.
_USER = re.compile(r"""(?<=://)(?!/)(?P<user>[^\s'"]*|[^\s:'"]+:\S*)@""")
_QUERY = re.compile(r"([?&;][\w.-]*(?:token|passw|pwd|secret|key|auth|sig|cred)[\w.-]*=)[^&;\s'\"]+", re.IGNORECASE)
LEAST = 3  # characters of a part of a password that are looked for elsewhere


def without_password(text: str, address: str = "") -> str:
    """Remove user names, passwords and tokens from the addresses in a text.

    To be safe, everything up to the last ``@`` of an address is taken for its user and password.

    Args:
        text: text to show, such as an error of a library or a command.
        address: address whose password may be anywhere in the text, whole or in parts, as libraries quote them.

    Example:
        >>> without_password("postgresql://me:p@ss/word@host/db?token=1&ssl=true")
        'postgresql://host/db?token=***&ssl=true'
        >>> without_password("invalid port: 'pass'", "http://me:pass/word@host")
        "invalid port: '***'"
    """
    text = _QUERY.sub(r"\1***", _USER.sub("", text))
    for user in _USER.finditer(address):
        parts = [user["user"], *re.split(r"[:/@]", user["user"])]
        for part in sorted({part for part in parts if len(part) >= LEAST}, key=len, reverse=True):
            text = text.replace(part, "***")
    return text
