from __future__ import annotations

import pytest

from medcontext.text import printable


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
