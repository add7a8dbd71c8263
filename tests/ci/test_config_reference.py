from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import config_reference
from bundle_runs import BUNDLES, NNFORMER, ROOT, UNETR
from config_reference import main, read_configs, reference, shown

REFERENCE = (ROOT / "bundles" / UNETR / "docs" / "reference.md").read_text(encoding="utf-8")


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


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_references_are_what_the_configurations_give(bundle: str) -> None:
    folder = ROOT / "bundles" / bundle
    assert reference(bundle, read_configs(folder)) == (folder / "docs" / "reference.md").read_text(encoding="utf-8")


def test_every_key_has_a_row_with_its_values() -> None:
    rows = {line.split("`")[1]: line for line in REFERENCE.splitlines() if line.startswith("| `")}
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
        reference(UNETR, configs)


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        ("Records", "old_key", "lacks keys that config_keys.json tells of: old_key"),
        ("Records", "seed", "has keys that config_keys.json tells of twice: seed"),
    ],
)
def test_a_meaning_needs_a_key(
    configs: dict[str, dict[str, Any]], meanings: Path, section: str, key: str, message: str
) -> None:
    told = json.loads(meanings.read_text(encoding="utf-8"))
    told[section][key] = "what it was"
    meanings.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=message):
        reference(UNETR, configs)


def test_an_argument_needs_words(configs: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcontext.losses.ConsistencyLoss.__doc__", "A loss.\n\n    Args:\n        form: of it.\n")
    with pytest.raises(ValueError, match="ConsistencyLoss: its docstring does not tell of the argument region"):
        reference(UNETR, configs)


def test_arguments_of_our_networks_are_told(configs: dict[str, dict[str, Any]]) -> None:
    assert "## network_def" not in reference(UNETR, configs)
    text = reference(NNFORMER, read_configs(ROOT / "bundles" / NNFORMER))
    assert "## network_def\n\nArguments of `medcontext.networks.NNFormer`:" in text
    assert "see `medcontext.networks.window_attention.relative_position_index` | `'published'` |" in text


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundles" / "some_bundle"
    (bundle / "docs").mkdir(parents=True)
    (bundle / "configs").symlink_to(ROOT / "bundles" / UNETR / "configs")
    monkeypatch.setattr(config_reference, "BUNDLES", tmp_path / "bundles")
    with pytest.raises(SystemExit) as end:
        main(check=True)
    assert end.value.code == 1
    document = Path("bundles", "some_bundle", "docs", "reference.md").as_posix()
    assert capsys.readouterr().out == f"{document} is not what the configurations give; --write mends it\n"
    main(write=True)
    assert capsys.readouterr().out == f"{document} (written)\n"
    main(check=True)
    assert (bundle / "docs" / "reference.md").read_text(encoding="utf-8") == REFERENCE
    with pytest.raises(SystemExit, match="config_reference: give either --check or --write"):
        main()
