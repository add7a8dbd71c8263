from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from medcontext.literals import as_literal


def read(value: Any) -> Any:
    """What a configuration makes of a value, on its own and in an expression."""
    parser = ConfigParser({"secret": 42, "value": value, "same": "$@value"})
    assert parser.get_parsed_content("same") == parser.get_parsed_content("value")
    return parser.get_parsed_content("value")


@pytest.mark.parametrize(
    "text",
    ["$1 + 1", "@secret", "%secret", "a#b", "a::b", "/home/me@secret/x", "$'", "\\#\"'", "${x}", "", "True", "[1]"],
)
def test_a_configuration_takes_text_as_it_is(text: str) -> None:
    assert read(as_literal(text)) == text
    assert read(as_literal([text, "plain"])) == [text, "plain"]


def test_other_text_is_evaluated() -> None:
    assert (read("$1 + 1"), read("@secret"), read("$'a#b'")) == (2, 42, "a::b")


@given(st.text())
def test_any_text_returns_unchanged(text: str) -> None:
    assert read(as_literal(text)) == text
