"""Final models: ensembles of folds, networks trained on all cases, and the postprocessing that belongs to weights."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bundle_runs import TINY, UNETR, read_json, run, run_trained, train, workflow_for
from forks import ForkedCommand
from medcontext import cli

pytestmark = pytest.mark.usefixtures("blank_pictures")

THRESHOLD = {"_target_": "bundle_runs.Threshold", "out_channels": "@out_channels"}
SETTINGS = {"labels": {"spleen": 1}}


def scan_with_an_island(folder: Path) -> Path:
    """Soft tissue in fat, a block and three voxels beside it, which a threshold finds."""
    folder.mkdir()
    image = np.full((20, 24, 28), -150, np.int16)
    image[4:12, 10:16, 6:16] = image[16:19, 2, 2] = 200
    label = np.zeros_like(image, np.uint8)
    label[4:12, 10:16, 6:16] = 1
    affine = np.diag([-4.5, -4.5, 6.0, 1.0])
    nib.save(nib.Nifti1Image(image, affine), folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image(label, affine), folder / "label.nii.gz")
    case = {"image": "scan.nii.gz", "label": "label.nii.gz"}
    content = {"labels": {"0": "background", "1": "spleen"}, "training": [], "test": [case]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def described(folder: Path, **content: Any) -> Path:
    folder.mkdir()
    (folder / "model.pt").touch()
    (folder / "model.json").write_text(json.dumps({"dataset": "mine", **content}))
    return folder


@pytest.mark.parametrize(("choice", "voxels"), [({}, 480), ({"largest_components": []}, 483)])
def test_the_largest_component_is_kept_as_the_weights_say(home: Path, choice: dict[str, Any], voxels: int) -> None:
    data = scan_with_an_island(home / "scans")
    models = described(home / "models", settings=SETTINGS, postprocessing={"largest_components": ["spleen"]})
    keys = {"network": THRESHOLD, "ckpt_dir": str(models), "dataset_dir": str(data), "labels": {"spleen": 1}, **choice}
    run(UNETR, "inferring", "inference", predictions_dir=str(home / "out"), save_overlay=False, **keys)
    summary = read_json(home / "out" / "scan.json")
    assert summary["labels"]["spleen"]["voxels"] == voxels
    assert summary["largest_components"] == (["spleen"] if voxels == 480 else [])
    assert np.asarray(nib.load(home / "out" / "scan_seg.nii.gz").dataobj).sum() == voxels

    run(UNETR, "evaluating", "train", "evaluate", evaluation_dir=str(home / "evaluation"), **keys)
    (row,) = pd.read_csv(home / "evaluation" / "metrics.csv").to_dict("records")
    assert row["dice"] == pytest.approx(2 * 480 / (480 + voxels), abs=1e-5)
    info = read_json(home / "evaluation" / "summary.json")["info"]
    assert info.get("largest_component_kept") == ("spleen" if voxels == 480 else None)


@pytest.mark.parametrize(
    ("postprocessing", "given", "message"),
    [
        ({"largest_components": ["liver"]}, {}, r"model\.json has an impossible postprocessing: .*names 'liver'"),
        ({"largest_components": "$print()"}, {}, "model.json has an impossible postprocessing: .*must be a list"),
        ("spleen", {}, "model.json has an impossible postprocessing: .*must be a list"),
        ({}, {"largest_components": ["splen"]}, "names 'splen', which labels does not have. Did you mean 'spleen'"),
        ({}, {"largest_components": "spleen"}, r"must be a list of labels, such as \['spleen'\], got 'spleen'"),
    ],
)
def test_impossible_postprocessing(home: Path, postprocessing: Any, given: dict[str, Any], message: str) -> None:
    data = scan_with_an_island(home / "scans")
    models = described(home / "models", settings=SETTINGS, postprocessing=postprocessing)
    keys = {"network": THRESHOLD, "ckpt_dir": str(models), "dataset_dir": str(data), "labels": {"spleen": 1}, **given}
    with pytest.raises(SystemExit, match=message):
        run(UNETR, "inferring", "inference", predictions_dir=str(home / "out"), **keys)
    assert not (home / "out").exists()


def test_a_training_run_records_its_choice(home: Path) -> None:
    folder = train(UNETR, home)
    content = read_json(folder / "models" / "model.json")["postprocessing"]
    assert content["cases"] == 1
    assert content["dice"].keys() == read_json(folder / "models" / "model.json")["settings"]["labels"].keys()
    assert len(pd.read_csv(folder / "models" / "components.csv")["case"].unique()) == 1
    parser = workflow_for(UNETR, "train", validation_cases=0).parser
    targets = [handler.get("_target_") if isinstance(handler, dict) else None for handler in parser["train#handlers"]]
    place = targets.index("medcontext.handlers.ComponentChoice")
    assert parser.get_parsed_content(f"train#handlers#{place}#_disabled_") is True


@pytest.mark.slow
@pytest.mark.xdist_group("forks")
def test_from_folds_to_final_models(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = subprocess.Popen

    def started(words: list[str], **options: Any) -> Any:
        return (ForkedCommand if "monai.bundle" in words else real)(words, **options)

    monkeypatch.setattr(subprocess, "Popen", started)
    tiny = {**TINY[UNETR], "max_epochs": 3}
    cli.experiment(UNETR, seeds=0, modes="baseline", experiment_name="mine", folds=2, **tiny)
    assert capsys.readouterr().out.endswith("python -m medcontext finalize --experiment_name mine\n")
    for method in ("ensemble", "retrain"):
        cli.finalize("mine", method)
        sentence, postprocessing, models = capsys.readouterr().out.splitlines()
        assert re.match(r"mine-.*-2folds: mean Dice 0\.\d+ \(95 % interval .*\) over 4 cases in 2 folds", sentence)
        assert "validation cases" in postprocessing
        assert Path(models) == home / "runs" / UNETR / f"mine-{UNETR}-btcv-baseline-f1-s0-2folds-{method}" / "models"
        info = read_json(Path(models) / "model.json")
        assert info["postprocessing"]["cases"] == 4
        assert info["cross_validation"]["cases"] == 4
        run_trained(UNETR, "evaluating", "train", "evaluate", ckpt_dir=models)
        assert read_json(Path(models).parent / "evaluation" / "summary.json")["cases"] == 2
        run_trained(UNETR, "inferring", "inference", ckpt_dir=models, dataset_dir=str(home / "data/btcv/Training/img"))
        assert len(list((Path(models).parent / "predictions").glob("*_seg.nii.gz"))) == 6
