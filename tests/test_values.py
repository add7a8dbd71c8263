from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from bundle_runs import BUNDLES, ROOT, UNETR, workflow_for
from medcontext import bundle
from medcontext.bundle.values import MAPPINGS, NULLABLE, TEXTS, TRUTHS, settle_values


def settled(key: str, value: Any) -> Any:
    """What the parts of a bundle get, if the configuration has a value for a key."""
    parser = ConfigParser({key: value, "used": f"$@{key}"})
    settle_values(parser)
    return parser.get_parsed_content("used")


@pytest.mark.parametrize(
    ("key", "word", "value"),
    [
        ("save_overlay", "false", False),
        ("save_overlay", "False", False),
        ("resume", "true", True),
        ("amp", "TRUE", True),
        ("cache_dir", "null", None),
        ("pretrained", "none", None),
        ("fold", "null", None),
        ("fold", "3", 3),
        ("max_grad_norm", "None", None),
        ("run_name", "42", "42"),
        ("run_name", "2026_01_01", "2026_01_01"),
        ("run_name", "1e3", "1e3"),
        ("run_name", "True", "True"),
        ("run_name", "none", "none"),
        ("run_name", "a,b", "a,b"),
        ("run_name", "[1]", "[1]"),
        ("experiment_name", "2024", "2024"),
        ("dataset_dir", "2024", "2024"),
        ("dataset_dir", "/data/a#b", "/data/a#b"),
        ("dataset_dir", "/data/me@home", "/data/me@home"),
        ("dataset_dir", "['/a#1','/b']", ["/a#1", "/b"]),
        ("dataset_dir", "/data/a::b", "/data/a::b"),
        ("tracking_uri", "http://[::1]:5000", "http://[::1]:5000"),
        ("ckpt_path", "['a.pt','b.pt']", ["a.pt", "b.pt"]),
        ("orientation", "LPS", "LPS"),
        ("device", "cpu", "cpu"),
    ],
)
@pytest.mark.parametrize("form", [["--{key}", "{word}"], ["--{key}={word}"], ["-{key}", "{word}"]])
def test_words_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, form: list[str], key: str, word: str, value: Any
) -> None:
    words = [part.format(key=key, word=word) for part in form]
    monkeypatch.setattr(sys, "argv", ["run", "training", *words, "--seed", "1"])
    assert settled(key, DefaultParseValue(word)) == value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("amp", 0, "amp must be true or false, got 0"),
        ("amp", "no", "amp must be true or false, got 'no'"),
        ("save_overlay", None, "save_overlay must have a value, got None"),
        ("run_name", None, "run_name must have a value, got None"),
        (
            "run_name",
            1000.0,
            "run_name must be text .on a command line in two pairs of quotes, --run_name .*, got 1000",
        ),
        ("run_name", "", "run_name must not be empty, got ''"),
        ("dataset_dir", " ", "dataset_dir must not be empty, got ' '"),
        ("dataset_dir", ["a", 1.5], "dataset_dir must be text .*, got 1.5"),
        ("ckpt_dir", ["a", "b"], "ckpt_dir must be text .*, got ['a', 'b']"),
        ("run_name", "..", "run_name must be the name of a folder, without / or .*, got '..'"),
        ("run_name", ".", "run_name must be the name of a folder"),
        ("run_name", "../other", "run_name must be the name of a folder"),
        ("run_name", "/tmp/x", "run_name must be the name of a folder"),
        ("run_name", "a\\b", "run_name must be the name of a folder"),
        ("dataset", "a/../..", "dataset must be the name of a folder"),
        ("labels", ["a", "b"], "labels must map names to values, such as {'a': 1}, got ['a', 'b']"),
        ("network_def", "UNETR", "network_def must map names to values, .*got 'UNETR'"),
        ("orientation", "XYZ", "orientation must name each axis once, .* such as RAS or LPS, got 'XYZ'"),
        ("orientation", "RLS", "orientation must name each axis once, .*got 'RLS'"),
        ("orientation", "ras", "orientation must name each axis once, .*got 'ras'"),
        ("orientation", "RA", "orientation must name each axis once, .*got 'RA'"),
        ("orientation", "RASS", "orientation must name each axis once, .*got 'RASS'"),
        ("device", "gpu", "device must be a device of PyTorch, such as cpu or cuda:0, got 'gpu'"),
    ],
)
def test_values_of_the_wrong_kind(monkeypatch: pytest.MonkeyPatch, key: str, value: Any, message: str) -> None:
    monkeypatch.setattr(sys, "argv", ["run"])
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        settled(key, value)


def test_a_word_that_stands_for_another_value_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run", "--run_name", "2026_01_01"])
    assert settled("run_name", 42) == "42"


def test_what_monai_made_of_a_path_in_a_file_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run"])
    assert settled("dataset_dir", "/data/a::b") == "/data/a#b"
    assert settled("tracking_uri", "http://[::1]:5000") == "http://[::1]:5000"


def test_expressions_and_references_are_left_as_they_are() -> None:
    parser = ConfigParser({"run_name": "$'a' + 'b'", "dataset": "@run_name", "amp": "$1 > 2"})
    settle_values(parser)
    assert [parser.get_parsed_content(key) for key in ("run_name", "dataset", "amp")] == ["ab", "ab", False]


@pytest.mark.parametrize("name", BUNDLES)
def test_every_configuration_has_values_of_the_right_kind(name: str) -> None:
    for path in (ROOT / "bundles" / name / "configs").glob("*.json"):
        written = json.loads(path.read_text())
        content = {key: value for key, value in written.items() if not str(value).startswith("$")}
        if path.name != "metadata.json":
            parser = ConfigParser(
                {key: content[key] for key in content.keys() & (TRUTHS | TEXTS | NULLABLE | MAPPINGS)}
            )
            before = dict(parser.get())
            settle_values(parser)
            assert parser.get() == before


def test_an_overlay_in_yaml_beside_the_others_is_known(tmp_path: Path) -> None:
    """As is a whole ``inference.json`` written as YAML under another name."""
    configs = ROOT / "bundles" / UNETR / "configs"
    content = json.loads((configs / "inference.json").read_text())
    (tmp_path / "mine.yaml").write_text(json.dumps(content))  # which YAML contains
    (tmp_path / "broken.json").write_text("{")
    bundle.checks.check_keys(content, tmp_path)
    with pytest.raises(ValueError, match="uses 'save_overlai'. Did you mean 'save_overlay'"):
        bundle.checks.check_keys({**content, "save_overlai": True}, tmp_path)


def test_a_run_gets_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path))
    given = {"save_overlay": "false", "dataset_dir": str(tmp_path / "a#b"), "save_summary": "true", "run_name": 42}
    workflow = workflow_for(UNETR, "inference", **given)
    folder = tmp_path / "a#b"
    folder.mkdir()
    (folder / "ct.nii.gz").touch()
    bundle.check_configuration(workflow)
    get = workflow.parser.get_parsed_content
    assert (get("save_overlay"), get("save_summary"), get("run_name")) == (False, True, "42")
    assert get("cases") == [{"image": str(folder / "ct.nii.gz"), "case": "ct"}]
    assert Path(get("output_dir")) == tmp_path / "runs" / UNETR / "42"
