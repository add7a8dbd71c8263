from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import config_reference
from bundle_runs import NNFORMER, ROOT, SWIN_UNETR, UNETR
from config_reference import configs_of, key_tables, main, read_configs, shown, with_key_tables

REFERENCE = (ROOT / "shared" / "docs" / "reference.md").read_text(encoding="utf-8")


def rows_of(text: str) -> dict[str, str]:
    return {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}


@pytest.fixture
def configs() -> dict[str, dict[str, Any]]:
    return copy.deepcopy(read_configs(ROOT / "bundles" / UNETR))


@pytest.fixture
def meanings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to change."""
    path = tmp_path / "config_keys.json"
    path.write_bytes(config_reference.MEANINGS.read_bytes())
    monkeypatch.setattr(config_reference, "MEANINGS", path)
    return path


def test_the_tables_are_what_the_configurations_give() -> None:
    main(check=True)


def test_every_key_has_a_row_with_its_values() -> None:
    rows = rows_of(REFERENCE.partition("## Values of")[0])
    for name, config in read_configs(ROOT / "bundles" / UNETR).items():
        if name != "metadata":
            assert config.keys() <= rows.keys()
    assert rows["cache_rate"].endswith("| `1.0`<br>brats: `0.0` |")
    assert rows["ckpt_path"].endswith("| evaluate, inference: `$@ckpt_dir + '/model.pt'` |")
    assert "| training, in parts: |  |" in rows["train"]
    assert rows["cell_size"].endswith("| `8` |")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([96, 96, 96.5], "[96, 96, 96.5]"),
        (None, "null"),
        ("@roi_size", "@roi_size"),
        ({"_target_": "UNETR", "_desc_": "small", "size": [1], "norm": "batch"}, "UNETR(size=[1], norm=batch)"),
        ({"liver": 1, "tumor": [2, 3]}, "{liver: 1, tumor: [2, 3]}"),
        ({"_target_": "Compose", "transforms": ["x" * 500]}, "Compose(…)"),
        ({"a": "x" * 500, "b": 1}, "a, b"),
        (["x" * 500], "…"),
    ],
)
def test_values_are_shown_as_one_writes_them(value: Any, text: str) -> None:
    assert shown(value) == text


def test_a_key_needs_a_meaning(configs: dict[str, dict[str, Any]]) -> None:
    configs["btcv"]["new_key"] = 1
    with pytest.raises(ValueError, match="medcontext_unetr has keys without a meaning in config_keys.json: new_key"):
        key_tables(UNETR, configs)


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        ("Records", "old_key", "lacks keys that config_keys.json explains: old_key"),
        ("Records", "seed", "has keys that config_keys.json explains twice: seed"),
    ],
)
def test_a_meaning_needs_a_key(
    configs: dict[str, dict[str, Any]], meanings: Path, section: str, key: str, message: str
) -> None:
    told = json.loads(meanings.read_text(encoding="utf-8"))
    told[section][key] = "what it was"
    meanings.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=message):
        key_tables(UNETR, configs)


def test_an_argument_needs_words(configs: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcontext.losses.ConsistencyLoss.__doc__", "A loss.\n\n    Args:\n        form: of it.\n")
    with pytest.raises(ValueError, match="ConsistencyLoss: its docstring does not explain the argument region"):
        key_tables(UNETR, configs)


def test_arguments_of_our_networks_are_explained(configs: dict[str, dict[str, Any]]) -> None:
    assert "## network_def" not in key_tables(UNETR, configs)
    text = key_tables(NNFORMER, read_configs(ROOT / "bundles" / NNFORMER))
    assert "## network_def\n\nArguments of `medcontext.networks.NNFormer`:" in text
    assert "see `medcontext.networks.window_attention.relative_position_index` | `'published'` |" in text


def test_other_bundles_have_a_row_where_their_value_differs(configs: dict[str, dict[str, Any]]) -> None:
    others = {name: read_configs(ROOT / "bundles" / name) for name in (SWIN_UNETR, NNFORMER)}
    own, swin, nnformer = key_tables(UNETR, configs, others).split("## Values of ")
    assert own.startswith(f"Values are those of `{UNETR}`; where other bundles differ,")
    assert own.endswith(f"give theirs.\n\n{key_tables(UNETR, configs)}\n")
    assert rows_of(swin).keys() == {"roi_size", "phantom", "token_masking", "network_def", "masking"}
    values, arguments = nnformer.split("### network_def of medcontext_nnformer")
    assert rows_of(values)["learning_rate"] == "| `learning_rate` | `0.01`<br>phantom: `0.002` |"
    assert "seed" not in rows_of(values)
    assert "Arguments of `medcontext.networks.NNFormer`:" in arguments


def test_configurations_of_a_package() -> None:
    files = {"configs/train.json": b'{"seed": 1}', "configs/logging.conf": b"", "docs/train.json": b"{}"}
    assert configs_of(files) == {"train": {"seed": 1}}


def test_a_document_needs_a_place_for_the_tables() -> None:
    with pytest.raises(ValueError, match="reference.md has no place for the tables; put the line <!-- keys: .* at its"):
        with_key_tables("# Keys\n", "## Records\n")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "reference.md"
    document.write_text(REFERENCE.replace("| `seed` |", "| `sead` |"), encoding="utf-8")
    monkeypatch.setattr(config_reference, "DOCUMENT", document)
    with pytest.raises(SystemExit) as end:
        main(check=True)
    assert end.value.code == 1
    assert capsys.readouterr().out == "reference.md differs from the configurations; --write mends it\n"
    main(write=True)
    assert capsys.readouterr().out == "reference.md (written)\n"
    assert document.read_text(encoding="utf-8") == REFERENCE
    main(check=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit, match="config_reference: give either --check or --write"):
        main()
