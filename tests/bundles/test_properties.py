"""Training on what another program hands over by MONAI's properties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundle_runs import ROOT, UNETR, for_bundles, overrides_for, run, workflow_for
from medcontext.bundle.properties import take_properties
from medcontext.data import load_cases


def handed_over(cohort: Path, validation: int = 1) -> dict[str, Any]:
    """What MONAI Label overrides, with the cohort's training cases and the last of them for validation."""
    cases = [{key: case[key] for key in ("image", "label")} for case in load_cases(cohort / "dataset.json", "training")]
    held_out = len(cases) - validation
    return {
        "train#dataset#data": cases[:held_out],
        "validate#dataset#data": cases[held_out:],
        "train#trainer#max_epochs": 3,
    }


def test_cases_epochs_and_labels_reach_every_key(home: Path, cohort: Path) -> None:
    given = handed_over(cohort)
    workflow = workflow_for(UNETR, "train", **given)
    take_properties(workflow)
    values = {key: workflow.parser.get_parsed_content(key) for key in ("cases", "max_epochs", "label_map", "dataset")}
    assert values["cases"] == {"training": given["train#dataset#data"], "validation": given["validate#dataset#data"]}
    assert values["max_epochs"] == 3
    assert values["label_map"][0] == values["label_map"][1]  # the ids are those of the network
    assert values["dataset"] == "img"
    assert workflow.parser.get_parsed_content("train#dataset#data") == given["train#dataset#data"]
    assert workflow.parser.get_parsed_content("install_dir") == str(ROOT / "bundles" / UNETR / "models")
    assert Path(workflow.parser.get_parsed_content("datalist")).parent == home / "listed"


def test_the_names_are_those_of_the_metadata_unless_labels_are_given(home: Path, cohort: Path) -> None:
    metadata = json.loads((ROOT / "bundles" / UNETR / "configs" / "metadata.json").read_text())
    channels = {"0": "background", "1": "left lung", "2": "right lung"}
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = channels
    for given, expected in (({}, {"left_lung": 1, "right_lung": 2}), ({"labels": {"heart": 1}}, {"heart": 1})):
        workflow = workflow_for(UNETR, "train", **handed_over(cohort), **given)
        workflow.parser["_meta_"] = metadata
        take_properties(workflow)
        assert workflow.parser.get_parsed_content("labels") == expected
        assert workflow.parser.get_parsed_content("out_channels") == len(expected) + 1


def test_nothing_is_held_out_where_the_list_for_validation_is_empty(home: Path, cohort: Path) -> None:
    workflow = workflow_for(UNETR, "train", **handed_over(cohort, validation=0))
    take_properties(workflow)
    assert [len(cases) for cases in workflow.parser.get_parsed_content("cases").values()] == [4, 0]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"train#dataset#data": []}, "There are no labelled cases to train on; label some"),
        ({"train#dataset#data": [{"image": "a.nii.gz"}]}, ".*a.nii.gz has no label; add one"),
        ({"train#trainer#max_epochs": 0}, "max_epochs must be"),
    ],
)
def test_what_cannot_be_trained_on_leaves_nothing(
    home: Path, cohort: Path, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SystemExit, match=f"medcontext: {sentence}"):
        run(UNETR, "training", "train", **{**handed_over(cohort), **given, "install_dir": str(home / "own")})
    assert not (home / "runs").exists()
    assert not (home / "own").exists()


@pytest.mark.slow
@for_bundles()
def test_the_trained_weights_become_those_of_the_bundle(bundle: str, home: Path, cohort: Path) -> None:
    own = home / "own"
    run(bundle, "training", "train", **handed_over(cohort), install_dir=str(own))
    (folder,) = (home / "runs" / bundle).iterdir()
    assert folder.name.startswith("img-medcontext-")
    for name in ("model.pt", "student.pt", "teacher.pt"):
        assert (own / name).read_bytes() == (folder / "models" / name).read_bytes()
    assert len((folder / "models" / "history.csv").read_text().splitlines()) == 4  # three epochs and a heading
    config = json.loads((folder / "train_config.json").read_text())
    assert config["max_epochs"] == 3
    kept = overrides_for(bundle, "inference", dataset_dir=str(cohort), ckpt_dir=str(own))
    assert workflow_for(bundle, "inference", tiny=False, **kept).parser.get_parsed_content("trained")["labels"]
