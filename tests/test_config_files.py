from __future__ import annotations

from pathlib import Path

import pytest

from bundle_runs import ROOT, UNETR
from medcontext.bundle import open_workflow

TRAIN = str(ROOT / "bundles" / UNETR / "configs" / "train.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bom.json", b'\xef\xbb\xbf{"seed": 1}', "bom.json is not a configuration in .* byte order mark .Unexpected"),
        ("comma.json", b'{"seed": 1,}', "comma.json is not a configuration in JSON or YAML"),
        ("latin.json", b'{"_desc_": "\xe4"}', "latin.json is not a configuration in JSON or YAML"),
        ("a.yaml", b"seed: [1", "a.yaml is not a configuration in JSON or YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_workflow([TRAIN, str(tmp_path / name)])


def test_a_file_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(FileNotFoundError, match="no configuration file .*trian.json. Did you mean 'train.json'"):
        open_workflow(TRAIN.replace("train", "trian"))


def test_files_in_json_and_yaml_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 7\n")
    workflow = open_workflow([TRAIN, str(tmp_path / "mine.yaml")])
    assert workflow.parser.get("seed") == 7
