"""JSON that every reader accepts, and JSON from elsewhere, which may be damaged or made to do harm."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["json_text", "parse_json", "read_json"]

LARGEST = 1 << 26
"""Bytes of the largest file that is read, which lists some 300,000 cases."""
DEEPEST = 64
"""Objects and lists within one another; Python's own reader and writer fail at about a thousand."""


def read_json(path: str | os.PathLike[str], *, finite: bool = True) -> Any:
    """Return the content of a JSON file.

    Args:
        path: path of the file, in UTF-8 with or without a byte order mark.
        finite: as for :func:`parse_json`.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is larger than 64 MiB, or for what :func:`parse_json` refuses.
    """
    if Path(path).stat().st_size > LARGEST:
        raise ValueError(f"it has more than {LARGEST} bytes")
    return parse_json(Path(path).read_bytes(), finite=finite)


def parse_json(content: bytes | str, *, finite: bool = True) -> Any:
    """Return a JSON value that each reader understands in one way.

    Args:
        content: JSON as text, or in UTF-8 with or without a byte order mark.
        finite: refuse NaN and infinity, which configurations may hold, as MONAI reads and writes them.

    Raises:
        ValueError: If it is not JSON, names a key twice, is nested more than 64 deep, or has a number beyond 1e308 or
            one that is not finite; the message is a reason, to be put into brackets.

    Example:
        >>> parse_json(b'{"labels": {"1": "liver", "1": "spleen"}}')
        Traceback (most recent call last):
        ...
        ValueError: it has '1' twice
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from error
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_repetition,
            parse_constant=_refuse_constant if finite else float,
            parse_float=partial(_finite, float),
            parse_int=partial(_finite, int),
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check_depth(value)
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (name, _), *_ = (Counter(name for name, _ in pairs)).most_common(1)
        raise ValueError(f"it has {name!r} twice")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has {name}, which is not a number in JSON")


def _finite(kind: type[float], digits: str) -> float:
    if math.isinf(float(digits)):
        raise ValueError(f"it has a number that begins with {digits[:9]}, which is beyond 1e308")
    return kind(digits)


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [item for value in level for item in _items(value)]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def json_text(content: Mapping[str, Any]) -> str:
    """Return JSON with NaN and infinity as null, NumPy's numbers as plain ones, and other objects as text."""
    return json.dumps(_json_value(content), indent=4, allow_nan=False, ensure_ascii=False) + "\n"


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
