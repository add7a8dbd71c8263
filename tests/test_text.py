from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from medcontext.text import escape_records, printable, printable_lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\udcff", r"\udcff"),
        ("gnp.\u202enii", r"gnp.\u202enii"),
        ("Größe 脾 = <b>", "Größe 脾 = <b>"),
    ],
)
def test_what_cannot_be_shown_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_lines_stay_and_endless_ones_are_shortened() -> None:
    assert printable_lines("a\x1b:\n  b") == "a\\x1b:\n  b"
    assert printable_lines("a" * 3000 + "b" * 3000) == f"{'a' * 2000} … {'b' * 2000}"


@pytest.fixture
def escaped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Escaped records, for this test only."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    factory = logging.getLogRecordFactory()
    escape_records()
    yield
    logging.setLogRecordFactory(factory)


@pytest.mark.usefixtures("escaped")
def test_records_and_warnings_of_other_libraries(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("pydicom").warning("Invalid value %r, %s\nof %d", "\x1b", "\x1b[31m", 3)
    assert caplog.records[0].getMessage() == "Invalid value '\\x1b', \\x1b[31m\nof 3"
    assert caplog.records[0].args == ("\x1b", "\x1b[31m", 3)
    shown = warnings.formatwarning(UserWarning("\x1b[31m"), UserWarning, str(Path("a.py")), 1, "")
    assert shown == "a.py:1: UserWarning: \\x1b[31m\n"
