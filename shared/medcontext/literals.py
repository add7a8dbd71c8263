"""Values that MONAI's configurations take as they are."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["as_literal"]

# marks of references, macros and nested keys, which MONAI looks for in expressions too
_MARKS = {ord(mark): f"\\x{ord(mark):02x}" for mark in "@%#"}


def as_literal(value: str | Sequence[str]) -> str:
    r"""Return a configuration value that is this text, or list of texts, whatever characters it contains.

    MONAI evaluates text that begins with ``$``, replaces text that begins with ``@`` or ``%``, and changes ``#``. Data,
    such as the paths in a request, must therefore never be a configuration value itself.

    Args:
        value: text, or several.

    Returns:
        A MONAI expression without names, references and calls, whose value is ``value``, or a list for several texts.

    Example:
        >>> as_literal("$exit()"), as_literal(["/scans/patient#1.nii"])
        ("$'$exit()'", "$['/scans/patient\\x231.nii']")
    """
    plain = str(value) if isinstance(value, str) else [str(text) for text in value]
    return f"${plain!r}".translate(_MARKS)
