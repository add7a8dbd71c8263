from __future__ import annotations

import math
from pathlib import Path

import pytest

from hostile import JSON
from medcontext.storage import json_files
from medcontext.storage.json_files import parse_json, read_json


@pytest.mark.parametrize(("content", "said"), [one[1:] for one in JSON], ids=[one.name for one in JSON])
def test_what_is_said_of_json_from_elsewhere(tmp_path: Path, content: bytes, said: str | None) -> None:
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    if said is None:
        assert read_json(path)
        return
    with pytest.raises(ValueError, match=said):
        read_json(path)


def test_text_as_bytes() -> None:
    text = '{"脾": [1, 2.5, null]}'
    assert parse_json(text) == parse_json(text.encode()) == {"脾": [1, 2.5, None]}


def test_configurations_may_hold_infinity() -> None:
    assert parse_json('{"weight": -Infinity}', finite=False) == {"weight": -math.inf}
    with pytest.raises(ValueError, match="beyond 1e308"):
        parse_json("1e999", finite=False)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "LARGEST", 8)
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    with pytest.raises(ValueError, match="it has more than 8 bytes"):
        read_json(tmp_path / "a.json")
