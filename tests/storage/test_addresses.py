from __future__ import annotations

import pytest

from medcontext.storage.addresses import without_password


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://me:secret@host:5000", "http://host:5000"),
        ("postgresql://me:p%40ss@host/db and https://token@x/y", "postgresql://host/db and https://x/y"),
        ("http://me:p@ss/w:rd@host/a", "http://host/a"),
        ("http://me:it's\"@host", "http://host"),
        ("'http://me:a@b'", "'http://b'"),
        ("http://host/?token=abc&x=1", "http://host/?token=***&x=1"),
        ("http://host/a?x=1&Api_Key=abc#top", "http://host/a?x=1&Api_Key=***"),
        ("mysql://host/db?password=a;ssl=1", "mysql://host/db?password=***;ssl=1"),
        ("sqlite:////home/me@work/mlruns.db", "sqlite:////home/me@work/mlruns.db"),
        ("$'http://' + @host", "$'http://' + @host"),
        ("http://host:5000/x?page=2", "http://host:5000/x?page=2"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_passwords_are_left_out(text: str, clean: str) -> None:
    assert without_password(text) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("invalid literal for int() with base 10: 'pass'", "invalid literal for int() with base 10: '***'"),
        ("user me:pass/word is unknown", "user *** is unknown"),
        ("no route to host", "no route to host"),
    ],
)
def test_parts_of_a_password_are_found_where_a_library_quotes_them(text: str, clean: str) -> None:
    assert without_password(text, "http://me:pass/word@host") == clean
