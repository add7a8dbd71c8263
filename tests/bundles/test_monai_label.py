"""MONAI Label's server trains every bundle, predicts with it, and offers scans by the bundle's ranking."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle_runs import BUNDLES, UNETR
from medcontext.data import load_cases
from monailabel_server import ENVIRONMENT, LIMIT, LabelServer, label_server, require_monai_label, tiny_bundle
from waiting import until

pytestmark = pytest.mark.slow

EPOCHS = {"max_epochs": 2, "val_split": 0.25}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, cohort: Path) -> Path:
    """MONAI Label's app for bundles with all bundles in it, without weights, and six scans, of which none is labelled.

    ``ranking`` beside it is an app with the same bundles.
    """
    require_monai_label()
    folder = tmp_path_factory.mktemp("label")
    shutil.copytree(ENVIRONMENT / "monailabel" / "sample-apps" / "monaibundle", folder / "app")
    for bundle in BUNDLES:
        tiny_bundle(bundle, folder / "app" / "model" / bundle)
    (folder / "ranking").mkdir()
    (folder / "ranking" / "main.py").write_text("from medcontext.ranking.monai_label import RankingApp\n")
    (folder / "ranking" / "model").symlink_to(folder / "app" / "model")
    (folder / "studies").mkdir()
    for section in ("training", "test"):
        for case in load_cases(cohort / "dataset.json", section):
            shutil.copy(case["image"], folder / "studies")
    return folder


@pytest.fixture(scope="module")
def trained(workspace: Path, cohort: Path) -> Path:
    """The same after the scans of the training cases were labelled, and every bundle was trained on them."""
    with label_server(workspace / "app", workspace / "studies", BUNDLES, workspace) as server:
        assert not server.json("GET", "/info/")["models"]
        assert f"Ignore {workspace}/app/model/{UNETR} as neither model.pt nor model.ts exists" in server.log.read_text()
        server.json("POST", f"/train/{UNETR}", EPOCHS)
        refused = server.finished("train")
        assert refused["status"] == "ERROR"
        assert "medcontext: There are no labelled cases to train on" in refused["details"][-1]
        assert not (workspace / "runs").exists()
        for case in load_cases(cohort / "dataset.json", "training"):
            server.save_label(Path(case["image"]).name.removesuffix(".nii.gz"), Path(case["label"]))
        for bundle in BUNDLES:
            assert server.json("POST", f"/train/{bundle}", EPOCHS)["status"] in ("SUBMITTED", "RUNNING")
            task = server.finished("train")
            assert task["status"] == "DONE", task["details"]
            assert any("epoch=2/2" in line for line in task["details"])  # the progress that plugins show
    return workspace


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[LabelServer]:
    with label_server(trained / "ranking", trained / "studies", BUNDLES, trained) as server:
        yield server


def test_every_bundle_predicts_in_the_geometry_of_the_scan(server: LabelServer, trained: Path, tmp_path: Path) -> None:
    models = server.json("GET", "/info/")["models"]
    assert sorted(models) == BUNDLES
    scan = next((trained / "studies").glob("*.nii.gz"))
    for bundle in BUNDLES:
        assert models[bundle]["labels"]["spleen"] == 1
        path = tmp_path / f"{bundle}.nii.gz"
        path.write_bytes(server.infer(bundle, scan.name.removesuffix(".nii.gz")))
        prediction, image = nib.load(path), nib.load(scan)
        assert prediction.shape == image.shape
        assert np.allclose(prediction.affine, image.affine, atol=1e-4)
        assert set(np.unique(prediction.get_fdata())) <= set(range(14))


def test_the_next_scan_is_the_one_that_is_worth_most(server: LabelServer) -> None:
    scored = server.finished("scoring")
    assert scored["status"] == "DONE", scored["details"]
    offered = [server.json("POST", "/activelearning/rank", {}) for _ in range(2)]
    assert len({scan["id"] for scan in offered}) == 2  # the two scans without a label
    assert offered[0]["rank_score"] >= offered[1]["rank_score"] > 0


def test_a_stopped_training_run_leaves_the_bundle_as_it_was(server: LabelServer, trained: Path) -> None:
    own = trained / "app" / "model" / UNETR / "models"
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    assert sorted(before) == ["model.json", "model.pt", "student.pt", "teacher.pt"]
    server.json("POST", f"/train/{UNETR}", {"max_epochs": 1000})
    until(lambda: any("epoch=" in line for line in server.json("GET", "/train/").get("details", ())), LIMIT)
    assert server.json("DELETE", "/train/")["status"] == "STOPPED"
    assert server.json("GET", "/train/")["status"] == "STOPPED"
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
