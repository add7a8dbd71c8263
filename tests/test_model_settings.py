"""Settings that belong to weights: what evaluation and prediction take from ``model.json``, and what they refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from bundle_runs import ROOT, TINY, UNETR, workflow_for
from medcontext.bundle import model_settings, model_to_log
from medcontext.bundle.model_settings import take_settings

TRAINED = TINY[UNETR] | {"labels": {"heart": 1, "left lung": 2, "right lung": 3}, "spacing": [6.0, 6.0, 6.0]}
KEYS = ("in_channels", "out_channels", "labels", "orientation", "spacing", "intensity", "roi_size", "network_def")


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """The settings of a training run of a tiny network on three labels."""
    return model_settings(workflow_for(UNETR, "train", tiny=False, **TRAINED, reported={"lungs": [2, 3]}))


@pytest.fixture
def ckpt_dir(tmp_path: Path, trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    (tmp_path / "model.pt").touch()
    (tmp_path / "model.json").write_text(json.dumps({"dataset": "mine", "settings": trained}))
    return str(tmp_path)


ENTRIES = pytest.mark.parametrize("entry", [("inference",), ("train", "evaluate")], ids=["inference", "evaluate"])


@pytest.mark.parametrize("overlays", [(), ("phantom",), ("acdc", "phantom")])
def test_what_training_writes_refers_to_nothing(overlays: tuple[str, ...]) -> None:
    workflow = workflow_for(UNETR, "train", *overlays, tiny=False)
    settings = model_settings(workflow)
    get = workflow.parser.get_parsed_content
    assert not re.findall(r'"[@$%]', json.dumps(settings))
    assert settings["network_def"]["_target_"] == "UNETR"
    assert settings["network_def"]["img_size"] == settings["roi_size"] == get("roi_size")
    assert settings["out_channels"] == len(settings["labels"]) + 1
    assert settings["reported"] == get("reported")
    assert settings["sided_labels"] == [list(pair) for pair in get("sided_labels")]
    assert model_to_log(workflow, True, "mine") == {
        "bundle_root": str(ROOT / "bundles" / UNETR),
        "registered_model_name": "mine",
    }


def test_a_network_of_ones_own_is_no_model_to_log() -> None:
    workflow = workflow_for(UNETR, "train", tiny=False, network_def={"_target_": "bundle_runs.Threshold"})
    with pytest.raises(ValueError, match="names 'bundle_runs.Threshold' in network_def"):
        model_to_log(workflow, True, None)


@ENTRIES
def test_what_is_not_given_is_taken(entry: tuple[str, ...], ckpt_dir: str, trained: dict[str, Any]) -> None:
    workflow = workflow_for(UNETR, *entry, tiny=False, ckpt_dir=ckpt_dir)
    take_settings(workflow, check=True)
    found = {key: workflow.parser[key] for key in KEYS}
    assert found == {key: trained[key] for key in KEYS}
    get = workflow.parser.get_parsed_content
    assert get("network_def").out.conv.conv.bias.shape == (4,)
    assert get("sided_labels") == [["left lung", "right lung"]]
    if "train" in entry:
        assert get("reported") == {"lungs": [2, 3]}
        assert get("dataset_dir") == f"{ckpt_dir}/data/mine"


def test_programs_that_parse_the_configuration_by_themselves_get_the_settings(
    ckpt_dir: str, trained: dict[str, Any]
) -> None:
    parser = ConfigParser()
    parser.read_config(f"bundles/{UNETR}/configs/inference.json")
    parser["ckpt_dir"] = ckpt_dir
    for key in ("in_channels", "out_channels", "labels", "orientation", "spacing", "roi_size"):
        assert parser.get_parsed_content(key) == trained[key]
    assert parser.get_parsed_content("preprocessing").transforms[-1].scaler.a_min == trained["intensity"]["a_min"]
    assert parser.get_parsed_content("network_def").out.conv.conv.bias.shape == (4,)


@ENTRIES
@pytest.mark.parametrize(
    "given", [{}, {"spacing": TRAINED["spacing"], "labels": TRAINED["labels"]}, {"network_def#feature_size": 4}]
)
def test_what_is_given_as_in_training_is_no_problem(
    entry: tuple[str, ...], given: dict[str, Any], ckpt_dir: str
) -> None:
    given = TRAINED if "network_def#feature_size" in given else given
    kept = {key: value for key, value in given.items() if key in KEYS or key.startswith("network_def#")}
    take_settings(workflow_for(UNETR, *entry, tiny=False, ckpt_dir=ckpt_dir, **kept), check=True)


OTHER = [
    (
        {"spacing": [3.0, 3.0, 3.0]},
        r"spacing is \[3.0, 3.0, 3.0\], but the weights were trained with \[6.0, 6.0, 6.0\]",
    ),
    ({"orientation": "LPS"}, "orientation is LPS, but the weights were trained with RAS"),
    ({"labels": {"a": 1, "b": 2, "c": 3}}, r"labels is {'a': 1, 'b': 2, 'c': 3}, but .* {'heart': 1, 'left lung': 2"),
    (
        {"labels": {"heart": 3, "left lung": 2, "right lung": 1}},
        "labels#heart is 3, but the weights were trained with 1",
    ),
    ({"organs": 8}, "labels is {'spleen': 1, .*but the weights were trained with {'heart': 1"),
    (
        {"intensity": {"_target_": "NormalizeIntensityd", "keys": "image"}},
        "intensity is {'_target_': 'NormalizeIntensityd', .* {'_target_': 'ScaleIntensityRanged'",
    ),
    ({"intensity#a_max": 300}, "intensity#a_max is 300, but the weights were trained with 250"),
    ({"in_channels": 2}, "in_channels is 2, but the weights were trained with 1"),
    ({"out_channels": 14}, "out_channels is 14, but the weights were trained with 4"),
    ({"roi_size": [64, 64, 64]}, r"roi_size is \[64, 64, 64\], but the weights were trained with \[32, 32, 32\]"),
    ({"network_def#num_heads": 3}, "network_def is .*, but the weights were trained with {'_target_': 'UNETR'"),
]


@ENTRIES
@pytest.mark.parametrize(("given", "message"), OTHER)
def test_what_is_given_otherwise_is_refused(
    entry: tuple[str, ...],
    given: dict[str, Any],
    message: str,
    ckpt_dir: str,
    trained: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    if "intensity#a_max" in given:
        given = {"intensity": {**trained["intensity"], "a_max": 300}}
    workflow = workflow_for(UNETR, *entry, tiny=False, ckpt_dir=ckpt_dir, **given)
    with pytest.raises(
        ValueError, match=f"{message}.*/model.json.*. Leave out what was given, or add --settings_check"
    ):
        take_settings(workflow, check=True)
    workflow = workflow_for(UNETR, *entry, tiny=False, ckpt_dir=ckpt_dir, **given)
    take_settings(workflow, check=False)
    assert any(re.search(f"settings_check is off: {message}", text) for text in caplog.messages)


def test_views_that_training_did_not_mirror_are_refused(ckpt_dir: str) -> None:
    for flips in (["A", "S"], [1]):
        workflow = workflow_for(UNETR, "inference", tiny=False, ckpt_dir=ckpt_dir, tta_flips=flips)
        message = "tta_flips mirrors along A.*, along which training did not mirror.*Leave out what was given"
        with pytest.raises(ValueError, match=message):
            take_settings(workflow, check=True)


def called(workflow: Any, config_file: Any = None, **override: Any) -> str:
    """What is said where MONAI's ``run``, which has these variables, started the workflow."""
    with pytest.raises(ValueError, match="but the weights were trained with") as refusal:
        take_settings(workflow, check=True)
    return str(refusal.value)


def test_a_default_that_was_given_is_distinguished_from_one_that_was_not(tmp_path: Path, ckpt_dir: str) -> None:
    """Evaluation starts from ``train.json``, whose values are the same as these."""
    keys = {"ckpt_dir": ckpt_dir, "spacing": [1.5, 1.5, 2.0]}
    said = called(workflow_for(UNETR, "train", "evaluate", tiny=False, **keys), **keys)
    assert said.startswith(
        "spacing is [1.5, 1.5, 2.0] (--spacing), but the weights were trained with [6.0, 6.0, 6.0] ("
    )
    files = [f"bundles/{UNETR}/configs/{name}.json" for name in ("train", "btcv", "evaluate")]
    said = called(workflow_for(UNETR, "train", "btcv", "evaluate", tiny=False, ckpt_dir=ckpt_dir), files)
    assert "roi_size is [96, 96, 96] (btcv.json), but the weights were trained with [32, 32, 32]" in said


@ENTRIES
@pytest.mark.parametrize("content", [None, {"weights": "student", "epoch": 3}])
def test_weights_of_which_nothing_is_known_take_the_settings_of_the_call(
    entry: tuple[str, ...], content: Any, ckpt_dir: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = Path(ckpt_dir, "model.json")
    file.unlink()
    if content:
        file.write_text(json.dumps(content))
    workflow = workflow_for(UNETR, *entry, tiny=False, ckpt_dir=ckpt_dir, spacing=[2.0, 2.0, 2.0])
    take_settings(workflow, check=True)
    assert workflow.parser.get_parsed_content("spacing") == [2.0, 2.0, 2.0]
    assert len(workflow.parser.get_parsed_content("labels")) == 13
    (said,) = [text for text in caplog.messages if "model.json" in text]
    assert re.match("No model.json beside .*/model.pt says what the weights need, .*spacing .2.0, 2.0, 2.0.", said)


@ENTRIES
def test_a_network_that_may_not_be_built_has_to_be_given(entry: tuple[str, ...], ckpt_dir: str) -> None:
    own = {"_target_": "bundle_runs.Threshold", "out_channels": 4}
    file = Path(ckpt_dir, "model.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({"settings": content["settings"] | {"network_def": own}}))
    with pytest.raises(ValueError, match="names 'bundle_runs.Threshold' in network_def.*; give network_def as in"):
        take_settings(workflow_for(UNETR, *entry, tiny=False, ckpt_dir=ckpt_dir), check=True)
    take_settings(workflow_for(UNETR, *entry, tiny=False, ckpt_dir=ckpt_dir, network_def=own), check=True)
