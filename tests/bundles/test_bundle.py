"""What every bundle does, whatever its network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mlflow
import nibabel as nib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from monai.bundle import ckpt_export, onnx_export, verify_metadata, verify_net_in_out
from monai.utils import path_to_sqlite_uri
from scipy.spatial.transform import Rotation

from bundle_runs import (
    NNFORMER,
    ROOT,
    SWIN_UNETR,
    TINY,
    UNETR,
    UNETR_PLUS_PLUS,
    command,
    config_files,
    for_bundles,
    read_json,
    run,
    run_trained,
    runs_of,
    snapshot,
    train,
    workflow_for,
)
from medcontext import __version__, cli
from medcontext.data import BTCV_LABELS
from medcontext.handlers import TeacherUpdate
from medcontext.networks.weights import save_checkpoint

SCHEMA = ROOT / "ci" / "meta_schema_20240725.json"
BTCV_IDS = {name: index for index, name in BTCV_LABELS.items()}
SYNAPSE = ["spleen", "right_kidney", "left_kidney", "gallbladder", "liver", "stomach", "aorta", "pancreas"]
ENTRIES = {"imports", "run", "training", "evaluating", "inferring", "initialize", "finalize"}


def history(home: Path, name: str) -> list[float]:
    client = mlflow.MlflowClient(path_to_sqlite_uri(str(home / "mlruns.db")))
    return [point.value for point in client.get_metric_history(runs_of(home)[0].info.run_id, name)]


def weights(folder: Path, name: str = "model.pt") -> dict[str, torch.Tensor]:
    return torch.load(folder / "models" / name, weights_only=True)


@for_bundles(UNETR)  # tests of the datasets train and evaluate the others, and predict
def test_train_evaluate_predict(bundle: str, home: Path) -> None:
    before = snapshot(ROOT)
    folder = train(bundle, home, preview_interval=2)
    models = folder / "models"
    assert {path.name for path in models.iterdir()} == {
        "model.pt",
        "model.json",
        "student.pt",
        "teacher.pt",
        "components.csv",
        "last.pt",
        "previous.pt",
        "history.csv",
        "run.json",
    }
    assert (folder / "tensorboard").is_dir()
    epochs = pd.read_csv(models / "history.csv")
    assert epochs["step"].tolist() == [2, 4]
    assert epochs[["train_loss", "learning_rate", "val_mean_dice", "val_mean_dice_ema"]].notna().all(axis=None)
    chosen = read_json(models / "model.json")
    dice = epochs[["val_mean_dice", "val_mean_dice_ema"]]
    assert dice.max(axis=None) == pytest.approx(max(chosen["val_mean_dice"], chosen["val_mean_dice_ema"]), rel=1e-4)
    assert chosen["weights"] in ("student", "teacher")
    torch.testing.assert_close(weights(folder), weights(folder, f"{chosen['weights']}.pt"), rtol=0, atol=0)
    assert {name: len(entry["cases"]) for name, entry in chosen["cases"].items()} == {"training": 3, "validation": 1}
    assert weights(folder).keys() == workflow_for(bundle, "train").network_def.state_dict().keys()

    run_trained(bundle, "evaluating", "train", "evaluate", ckpt_dir=str(models))
    table = pd.read_csv(folder / "evaluation" / "metrics.csv")
    assert len(table) == 2 * len(SYNAPSE)
    assert (folder / "evaluation" / "report.html").is_file()
    assert "<h2>Training</h2>" in (folder / "evaluation" / "report.html").read_text()
    assert list((folder / "evaluation").rglob("*.png"))

    (found,) = runs_of(home)
    client = mlflow.MlflowClient(path_to_sqlite_uri(str(home / "mlruns.db")))
    shared = Path(client.download_artifacts(found.info.run_id, "evaluation"))
    assert len(pd.read_csv(shared / "metrics.csv")) == len(table)
    assert not any(re.search(r"img\d{4}", (shared / name).read_text()) for name in ("metrics.csv", "report.html"))
    assert "img0" in (folder / "evaluation" / "report.html").read_text()

    logged = {tag.value: one.dataset for one in found.inputs.dataset_inputs for tag in one.tags}
    assert {section: json.loads(data.profile)["num_cases"] for section, data in logged.items()} == {
        "training": 3,
        "validation": 1,
        "test": 2,
    }
    listed = read_json(Path(client.download_artifacts(found.info.run_id, "cases/training.json")))
    assert listed["hash"] == logged["training"].digest
    info = read_json(folder / "evaluation" / "summary.json")["info"]
    assert info["data_hash"] == logged["test"].digest
    assert info["test_cases"] == 2
    assert info["bundle_version"] == read_json(ROOT / "bundles" / bundle / "configs" / "metadata.json")["version"]
    assert info["checkpoint_sha256"] == hashlib.sha256((models / "model.pt").read_bytes()).hexdigest()
    settings = {"dataset": "btcv", "mode": "medcontext", "seed": 0, "train_fraction": 1.0, "max_epochs": 2}
    assert info["training"] == settings
    assert all(re.fullmatch("[0-9a-f]{12}", name) for name in listed["cases"])

    assert found.info.status == "FINISHED"
    tags = {key: value for key, value in found.data.tags.items() if key.startswith("medcontext.")}
    version = read_json(ROOT / "bundles" / bundle / "configs" / "metadata.json")["version"]
    assert tags.pop("medcontext.data_hash")
    assert tags.pop("medcontext.unlabeled_hash") == ""
    assert tags.pop("medcontext.weights") == read_json(models / "model.json")["sha256"]["model.pt"]
    assert "--run_name" not in tags.pop("medcontext.command")  # this process's
    tags.pop("medcontext.gpu", None)
    assert tags == {
        "medcontext.version": __version__,
        "medcontext.bundle_version": version,
        "medcontext.bundle": bundle,
        "medcontext.dataset": "btcv",
        "medcontext.mode": "medcontext",
        "medcontext.train_fraction": "1.0",
        "medcontext.fold": "None",
        "medcontext.seed": "0",
        "medcontext.steps": "4",
    }
    configs = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert {"train_config.json", "metadata.json", "evaluate_config.json"} <= configs
    assert [item.path for item in client.list_artifacts(found.info.run_id, "previews")] == ["previews/epoch_0002.png"]
    expected = {"train_loss", "train_loss_supervised", "train_loss_context"}
    expected |= {"masked_fraction", "teacher_momentum", "learning_rate", "step_seconds"}
    expected |= {"dice/val_mean_dice", "dice/val_mean_dice_ema", "dice/test_mean_dice"}
    expected |= {f"val_dice{suffix}/{label}" for label in SYNAPSE for suffix in ("", "_ema")}
    expected |= {f"test_dice/{label}" for label in SYNAPSE} | {"system/cpu_utilization_percentage"}
    assert expected <= found.data.metrics.keys()
    assert "train_loss_consistency" not in found.data.metrics  # without weight, as by default
    assert found.data.params["max_epochs"] == "2"
    assert found.data.params["context_weight"] == "1.0"
    assert len(history(home, "train_loss")) == 4

    run_trained(bundle, "inferring", "inference", ckpt_dir=str(models), dataset_dir=str(home / "data" / "btcv"))
    predictions = sorted((folder / "predictions").glob("*.nii.gz"))
    images = [home / "data" / "btcv" / case["image"] for case in read_json(home / "data/btcv/dataset.json")["test"]]
    assert len(predictions) == len(images) == 2
    for prediction, image in zip(predictions, sorted(images), strict=True):
        predicted, original = nib.load(prediction), nib.load(image)
        assert predicted.shape == original.shape
        assert predicted.get_data_dtype() == np.uint8
        np.testing.assert_allclose(predicted.affine, original.affine, atol=1e-4)
    assert snapshot(ROOT) == before


@pytest.mark.usefixtures("blank_pictures")
@for_bundles(UNETR)
def test_evaluations_of_other_data_or_weights_replace_nothing(bundle: str, home: Path) -> None:
    folder = train(bundle, home, max_epochs=1)
    other = home / "data" / "other"
    shutil.copytree(home / "data" / "btcv", other)
    content = read_json(other / "dataset.json")
    (other / "dataset.json").write_text(json.dumps({**content, "test": content["test"][:1]}))

    def evaluate(**overrides: Any) -> None:
        run(bundle, "evaluating", "train", "evaluate", ckpt_dir=str(folder / "models"), **overrides)

    evaluate()
    first = (folder / "evaluation" / "metrics.csv").read_bytes()
    (joined,) = runs_of(home)
    evaluate(dataset="elsewhere", dataset_dir=str(other))  # a second dataset
    evaluate(dataset_dir=str(other))  # other cases under the same name
    evaluate(ckpt_path=str(folder / "models" / "teacher.pt"))
    evaluate()
    folders = {path.name: path for path in folder.glob("evaluation*")}
    hashes = {name: read_json(path / "summary.json")["info"]["data_hash"] for name, path in folders.items()}
    other_hash = hashes["evaluation_elsewhere"]
    assert set(folders) == {"evaluation", "evaluation_elsewhere", f"evaluation_{other_hash}", "evaluation_teacher"}
    assert (folder / "evaluation" / "metrics.csv").read_bytes() == first
    assert all((path / "anonymous" / "report.html").is_file() for path in folders.values())

    found = {one.info.run_name: one for one in runs_of(home)}
    assert set(found) == {"one", "one-elsewhere", f"one-{other_hash}", "one-teacher"}
    names = [name for name in joined.data.metrics if name.startswith("test_")]
    assert {name: found["one"].data.metrics[name] for name in names} == {n: joined.data.metrics[n] for n in names}
    assert [found[name].data.tags["medcontext.dataset"] for name in ("one", "one-elsewhere")] == ["btcv", "elsewhere"]
    (logged,) = found["one-elsewhere"].inputs.dataset_inputs
    assert logged.dataset.digest == other_hash != hashes["evaluation"]


TURNED = nib.affines.from_matvec(Rotation.from_euler("xyz", (12, -7, 20), degrees=True).as_matrix(), (9, -80, 300))


def write_scans(folder: Path, channels: int = 1) -> dict[str, nib.Nifti1Image]:
    """One noisy volume in several geometries, by name; further channels follow as a fourth axis and are empty."""
    volume = (np.random.default_rng(0).random((20, 24, 28)) > 0.5).astype(np.int16) * 400 - 200
    scans = {"oblique": nib.Nifti1Image(volume, TURNED @ np.diag([-4.5, 4.5, 6.0, 1]))}
    for axes in ("RAS", "LPS", "SLA"):
        codes = [nib.orientations.axcodes2ornt(code) for code in ("RAS", axes)]
        plain = nib.Nifti1Image(volume, np.diag([4.5, 4.5, 6.0, 1]))
        scans[axes.lower()] = plain.as_reoriented(nib.orientations.ornt_transform(*codes))
    folder.mkdir()
    for name, scan in scans.items():
        stacked = np.stack([scan.get_fdata(), *[0 * scan.get_fdata()] * (channels - 1)], axis=-1)
        nib.save(nib.Nifti1Image(stacked.squeeze(), scan.affine), folder / f"{name}.nii.gz")
    return scans


@for_bundles(NNFORMER)
def test_predictions_are_those_of_the_network_in_the_original_geometry(bundle: str, home: Path) -> None:
    """A network that copies a threshold of the image must come back exactly, from flipped and oblique affines too."""
    scans = write_scans(home / "scans")
    run(
        bundle,
        "inferring",
        "inference",
        dataset_dir=str(home / "scans"),
        predictions_dir=str(home / "predictions"),
        network={"_target_": "bundle_runs.Threshold", "out_channels": "@out_channels"},
    )
    for name, original in scans.items():
        predicted = nib.load(home / "predictions" / f"{name}_seg.nii.gz")
        np.testing.assert_array_equal(np.asarray(predicted.dataobj), np.asarray(original.dataobj) > 0)
        np.testing.assert_allclose(predicted.affine, original.affine, atol=1e-4)
        assert predicted.get_data_dtype() == np.uint8


@pytest.mark.usefixtures("blank_pictures")
@for_bundles(UNETR_PLUS_PLUS)
@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_evaluation_measures_in_the_original_geometry(bundle: str, channels: int, home: Path) -> None:
    """The same network, on labels of its own threshold, is perfect whatever the affine; one file or several."""
    folder = home / "scans"
    scans = write_scans(folder, channels)
    cases = []
    for name, scan in scans.items():
        label = nib.Nifti1Image((scan.get_fdata() > 0).astype(np.uint8) * 7, scan.affine)
        nib.save(label, folder / f"{name}_label.nii.gz")
        image: str | list[str] = f"{name}.nii.gz"
        if channels > 1 and name != "ras":
            whole = nib.load(folder / f"{name}.nii.gz")
            image = [f"{name}_{channel}.nii.gz" for channel in range(channels)]
            for channel, file in enumerate(image):
                nib.save(nib.Nifti1Image(whole.get_fdata()[..., channel], whole.affine), folder / file)
        cases.append({"image": image, "label": f"{name}_label.nii.gz"})
    content = {"labels": {"0": "background", "7": "bone"}, "test": cases}
    (folder / "dataset.json").write_text(json.dumps(content))
    run(
        bundle,
        "evaluating",
        "train",
        "evaluate",
        dataset_dir=str(folder),
        output_dir=str(home / "out"),
        in_channels=channels,
        labels={"bone": 1},
        network={"_target_": "bundle_runs.Threshold", "out_channels": "@out_channels"},
    )
    table = pd.read_csv(home / "out" / "evaluation" / "metrics.csv")
    assert len(table) == len(scans)
    assert (table["dice"] == 1).all()


@for_bundles(UNETR)
@pytest.mark.parametrize("where", ["root", "bundle", "elsewhere"])
def test_from_any_working_directory(
    bundle: str, home: Path, where: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDCONTEXT_HOME")
    folders = {"root": ROOT, "bundle": ROOT / "bundles" / bundle, "elsewhere": tmp_path_factory.mktemp("cwd")}
    config = ROOT / "bundles" / bundle / "configs" / "train.json"
    monkeypatch.chdir(folders[where])
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(os.path.relpath(config), logging_file=False)
    workflow.initialize()
    assert workflow.bundle_root == str(ROOT / "bundles" / bundle)
    get = workflow.parser.get_parsed_content
    assert get("dataset_dir") == str(ROOT / "data" / "btcv")
    assert Path(get("output_dir")).parent == ROOT / "runs" / bundle
    assert get("ckpt_dir") == get("output_dir") + "/models"
    assert get("output_dir") == get("output_dir")


@for_bundles()
def test_a_bundle_away_from_its_repository_is_its_own_home(
    bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDCONTEXT_HOME", raising=False)
    shutil.copytree(ROOT / "bundles" / bundle, tmp_path / bundle)
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(str(tmp_path / bundle / "configs" / "train.json"), logging_file=False)
    workflow.initialize()
    assert workflow.bundle_root == str(tmp_path / bundle)
    assert workflow.parser.get_parsed_content("home") == str(tmp_path / bundle)


@for_bundles(UNETR)
def test_the_bundle_root_can_be_given(bundle: str, home: Path) -> None:
    workflow = workflow_for(bundle, "train", bundle_root=str(home / "elsewhere"))
    assert workflow.parser.get_parsed_content("bundle") == "elsewhere"


@for_bundles(UNETR)
def test_controls_take_the_same_steps_and_keep_the_average_too(bundle: str, home: Path) -> None:
    """No control has the teacher's terms, whatever their weight, and each is validated by the same two networks."""
    controls = ("baseline", "patch_dropout", "masking_only")
    for mode in controls:
        folder = train(
            bundle, home, mode, run_name=mode, consistency_weight=0.5, masked_share=1.0, teacher_momentum=0.9
        )
        average, state = weights(folder, "teacher.pt"), torch.load(folder / "models" / "last.pt", weights_only=True)
        assert average.keys() == state["network"].keys()
        assert any(not torch.equal(state["teacher"][name], state["network"][name]) for name in average)
        assert read_json(folder / "models" / "model.json").keys() >= {"val_mean_dice", "val_mean_dice_ema"}
    found = {r.info.run_name: r.data for r in runs_of(home)}
    assert {name: data.tags["medcontext.mode"] for name, data in found.items()} == {n: n for n in found}
    assert {data.tags["medcontext.steps"] for data in found.values()} == {"4"}
    assert len({data.tags["medcontext.data_hash"] for data in found.values()}) == 1
    assert not any("train_loss_consistency" in data.metrics for data in found.values())
    assert "train_loss_context" not in found["baseline"].metrics
    assert "masked_fraction" not in found["baseline"].metrics
    for mode in controls[1:]:
        assert 0 < found[mode].metrics["masked_fraction"] < 1
        assert found[mode].metrics["train_loss_context"] == found[mode].metrics["train_loss"]  # every crop is masked


@for_bundles(UNETR_PLUS_PLUS)
def test_modes_start_from_the_same_weights_and_see_the_same_crops(bundle: str, home: Path) -> None:
    crops, networks = [], []
    for overlays in ([], ["baseline"], ["masking_only"]):
        workflow = workflow_for(bundle, "train", *overlays, run_name="x")
        crops.append(next(iter(workflow.parser.get_parsed_content("train#dataloader")))["image"])
        networks.append(
            train(bundle, home, *overlays, run_name=f"first{len(networks)}", max_epochs=1, learning_rate=1e-30)
        )
    learned = [name for name, _ in workflow.network_def.named_parameters()]
    first, *others = (weights(folder) for folder in networks)
    for other in others:  # with a rate of almost nothing the weights are still those of the start
        for name in learned:
            torch.testing.assert_close(other[name], first[name], rtol=0, atol=1e-12)
    torch.testing.assert_close(crops[0], crops[1], rtol=0, atol=0)
    torch.testing.assert_close(crops[0], crops[2], rtol=0, atol=0)


@for_bundles(NNFORMER)
def test_paper_mode_masks_tokens_and_takes_the_last_state(bundle: str, home: Path) -> None:
    folder = train(bundle, home, "paper", validation_cases=0)
    state = torch.load(folder / "models" / "last.pt", weights_only=True)
    assert state["token_masking"]["mask_token"].abs().sum() > 0
    torch.testing.assert_close(weights(folder), dict(state["network"]))
    (found,) = runs_of(home)
    ratio = 0.6 if bundle in (UNETR, SWIN_UNETR) else 0.4
    assert found.data.metrics["masked_fraction"] == pytest.approx(ratio, abs=0.15)
    assert "dice/val_mean_dice" not in found.data.metrics
    assert found.data.metrics["train_loss_consistency"] < 0.05


@pytest.mark.usefixtures("blank_pictures")
@for_bundles(NNFORMER)
def test_evaluation_follows_the_chosen_protocol(bundle: str, home: Path) -> None:
    models = train(bundle, home, "baseline") / "models"
    tolerance = {**dict.fromkeys(SYNAPSE, 0.0), "liver": 1000.0}
    run(bundle, "evaluating", "train", "paper", "evaluate", ckpt_dir=str(models), surface_tolerance=tolerance)
    table = pd.read_csv(models.parent / "evaluation" / "metrics.csv")
    assert list(table.columns[2:6]) == ["dice", "surface_dice", "hd95_mm", "assd_mm"]
    assert not table[["paper_dice", "paper_hd95_voxels"]].isna().any(axis=None)
    liver = table[(table["label"] == "liver") & table["hd95_mm"].notna()]
    assert (liver["surface_dice"] == 1).all()
    info = read_json(models.parent / "evaluation" / "summary.json")["info"]["metrics"]
    assert info == {
        "protocol": "paper_unetr" if bundle in (UNETR, SWIN_UNETR) else "paper",
        "surface_tolerance_mm": tolerance,
    }
    (found,) = runs_of(home)
    assert found.data.metrics["dice/test_paper_mean_dice"] == pytest.approx(table["paper_dice"].mean(), abs=1e-5)
    for label, rows in table.groupby("label"):
        assert found.data.metrics[f"test_missed/{label}"] == rows["missed"].sum()
        assert found.data.metrics[f"test_paper_hd95/{label}"] == pytest.approx(
            rows["paper_hd95_voxels"].mean(), abs=1e-3
        )


@for_bundles(UNETR)
@pytest.mark.parametrize(
    ("choice", "message"),
    [({"protocol": "papers"}, "protocol must be one of"), ({"surface_tolerance": -1}, "number of mm, 0 or more")],
)
def test_evaluation_refuses_unknown_protocols_and_bad_tolerances(
    bundle: str, home: Path, choice: dict[str, Any], message: str
) -> None:
    network = {"_target_": "bundle_runs.Threshold", "out_channels": "@out_channels"}
    with pytest.raises(SystemExit, match=message):
        run(bundle, "evaluating", "train", "evaluate", output_dir=str(home / "out"), network=network, **choice)


@for_bundles()
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["medcontext", "baseline", "masking_only", "paper"])
@pytest.mark.parametrize("passes", ["single", "batched"])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("select_checkpoint", ["best", "last"])
def test_all_combinations_train_and_evaluate(
    bundle: str, home: Path, mode: str, passes: str, accumulation_steps: int, select_checkpoint: str
) -> None:
    settings = {"passes": passes, "accumulation_steps": accumulation_steps, "masked_share": 1.0}
    overlays = [] if mode == "medcontext" else [mode]
    folder = train(bundle, home, *overlays, **settings, select_checkpoint=select_checkpoint)
    run(bundle, "evaluating", "train", *overlays, "evaluate", ckpt_dir=str(folder / "models"))
    (found,) = runs_of(home)
    assert np.isfinite([found.data.metrics[name] for name in ("train_loss", "dice/test_mean_dice")]).all()
    assert ("train_loss_context" in found.data.metrics) == (mode != "baseline")


@for_bundles(UNETR, UNETR_PLUS_PLUS)
def test_resuming_ends_where_an_uninterrupted_run_does_in_the_same_mlflow_run(bundle: str, home: Path) -> None:
    whole = train(bundle, home, run_name="whole", max_epochs=3)
    from medcontext.engines import MedContextTrainer

    stop = MedContextTrainer._optimizer_step

    def cut(trainer: MedContextTrainer) -> None:
        if trainer.state.iteration == 4:
            raise KeyboardInterrupt
        stop(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MedContextTrainer, "_optimizer_step", cut)
        with pytest.raises(KeyboardInterrupt):
            train(bundle, home, "auto_resume", run_name="cut", max_epochs=3)
    assert {r.info.run_name: r.info.status for r in runs_of(home)}["cut"] == "KILLED"
    if bundle == UNETR:
        run(bundle, "training", "train", "resume", max_epochs=3)  # the latest run is the one that was cut
    else:
        run(bundle, "training", "train", "auto_resume", run_name="cut", max_epochs=3)
    cut_folder = home / "runs" / bundle / "cut"
    for name in ("network", "teacher", "optimizer"):
        expected, got = (torch.load(f / "models" / "last.pt", weights_only=True)[name] for f in (whole, cut_folder))
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(weights(cut_folder), weights(whole), rtol=0, atol=0)
    histories = [pd.read_csv(folder / "models" / "history.csv") for folder in (whole, cut_folder)]
    pd.testing.assert_frame_equal(*(table.drop(columns="train_processor_seconds") for table in histories))
    statuses = {r.info.run_name: r.info.status for r in runs_of(home)}
    assert statuses == {"whole": "FINISHED", "cut": "FINISHED"}


def test_a_training_run_that_stops_early_is_done(home: Path) -> None:
    """A learning rate of almost nothing never improves on the first validation."""
    settings = {
        "run_name": "early",
        "max_epochs": 9,
        "early_stopping": 1,
        "learning_rate": 1e-30,
        "checkpoint_interval": 5,
    }
    folder = train(UNETR, home, "auto_resume", **settings)
    done = torch.load(folder / "models" / "last.pt", weights_only=True)["trainer"]["iteration"]
    assert list(pd.read_csv(folder / "models" / "history.csv")["epoch"]) == [1, 2]
    train(UNETR, home, "auto_resume", **settings)
    assert torch.load(folder / "models" / "last.pt", weights_only=True)["trainer"]["iteration"] == done
    (found,) = runs_of(home)
    assert found.info.status == "FINISHED"


@for_bundles(UNETR)
def test_a_training_run_that_is_done_is_completed_again(bundle: str, home: Path) -> None:
    """A scheduler may start a job again whose process ended before its node said so."""
    folder = train(bundle, home, "auto_resume", max_epochs=1, select_checkpoint="last")
    before = weights(folder), weights(folder, "teacher.pt"), (folder / "models" / "history.csv").read_text()
    (folder / "models" / "model.pt").unlink()  # killed just before it was written
    train(bundle, home, "auto_resume", max_epochs=1, select_checkpoint="last")
    after = weights(folder), weights(folder, "teacher.pt"), (folder / "models" / "history.csv").read_text()
    torch.testing.assert_close(after[:2], before[:2], rtol=0, atol=0)
    assert after[2] == before[2]
    (found,) = runs_of(home)
    assert found.info.status == "FINISHED"
    assert len(history(home, "train_loss")) == 2
    for other, message in (
        ({"seed": 1}, "seed was 0 and is 1 now; resume with the overlays and overrides"),
        ({"validation_cases": 2}, "other training cases and validation cases than before"),
    ):
        with pytest.raises(SystemExit, match=f"^medcontext: {message}"):
            train(bundle, home, "auto_resume", max_epochs=2, select_checkpoint="last", **other)


@for_bundles(UNETR)
def test_monai_tracking_makes_no_second_run(bundle: str, home: Path) -> None:
    train(bundle, home, tracking="mlflow", max_epochs=1)
    (found,) = runs_of(home)
    assert found.info.run_name == "one"
    assert found.info.status == "FINISHED"


@for_bundles()
def test_every_hyperparameter_is_read_by_something(bundle: str) -> None:
    """An override of a key that nothing refers to would be accepted and ignored."""
    for name in ("train", "inference"):
        config = read_json(ROOT / "bundles" / bundle / "configs" / f"{name}.json")
        overlays = ("phantom.json", "evaluate.json")
        text = json.dumps(config) + "".join(
            (ROOT / "bundles" / bundle / "configs" / file).read_text() for file in overlays
        )
        read = set(re.findall(r"@(\w+)", text)) | ENTRIES | {"train", "validate", "evaluator", "dataset"}
        read |= {"plan", "sided_labels", "sided_mirroring"}  # by checks before the run
        read |= {"ensemble_def"}  # by MONAI's exports
        assert config.keys() <= read


@for_bundles(NNFORMER)
def test_overrides_reach_what_they_name(bundle: str, home: Path) -> None:
    workflow = workflow_for(
        bundle,
        "train",
        learning_rate=0.5,
        context_weight=0.3,
        consistency_weight=0.2,
        teacher_momentum=0.5,
        accumulation_steps=3,
        max_grad_norm=2.0,
        train_fraction=0.5,
        select_checkpoint="last",
        organ_dropout={"shape": "box", "prob": 0.25},
        passes="batched",
        overlap=0.75,
        run_name="overridden",
    )
    get = workflow.parser.get_parsed_content
    trainer = workflow.trainer
    assert get("optimizer").param_groups[0]["initial_lr"] == 0.5
    assert (trainer.loss_function.context_weight, trainer.loss_function.consistency_weight) == (0.3, 0.2)
    assert (trainer.accumulation_steps, trainer.max_grad_norm, trainer.passes) == (3, 2.0, "batched")
    assert len(workflow.train_dataset_data) == 2  # half of the three that are left of four
    teacher = next(h for h in get("train#handlers") if isinstance(h, TeacherUpdate))
    assert teacher.momentum == 0.5
    assert (get("masking").dropout.shape, get("masking").dropout.prob) == ("box", 0.25)
    assert get("best_model").select == "last"
    assert get("validate#inferer").overlap == 0.75
    assert get("output_dir").endswith("/overridden")


@for_bundles()
def test_every_overlay_sets_top_level_keys_that_exist(bundle: str) -> None:
    configs = ROOT / "bundles" / bundle / "configs"
    train_keys = read_json(configs / "train.json").keys()
    for name in (
        "btcv",
        "acdc",
        "brats",
        "hippocampus",
        "phantom",
        "small_gpu",
        "baseline",
        "patch_dropout",
        "masking_only",
        "pseudo_labels",
        "medcontext_unlabeled",
        "paper",
        "resume",
        "auto_resume",
    ):
        assert read_json(configs / f"{name}.json").keys() <= train_keys, name


@for_bundles()
def test_overlays_in_their_order(bundle: str, home: Path) -> None:
    workflow = workflow_for(bundle, "train", "btcv", "phantom", "baseline", "resume", run_name="x", max_epochs=7)
    get = workflow.parser.get_parsed_content
    assert (get("mode"), get("resume"), get("teacher_momentum"), get("max_epochs")) == ("baseline", True, 0.98, 7)
    small = workflow_for(bundle, "train", "small_gpu", cache_rate=0.0)
    assert small.parser.get_parsed_content("sw_batch_size") == 2  # the command line wins over the overlay


@for_bundles(UNETR)
@pytest.mark.parametrize(("name", "kind"), [("train", "train"), ("inference", "infer")])
def test_properties(bundle: str, home: Path, name: str, kind: str) -> None:
    extra = {"ckpt_dir": str(train(bundle, home, max_epochs=1) / "models")} if kind == "infer" else {}
    assert workflow_for(bundle, name, **extra).check_properties() == []


@for_bundles()
def test_metadata_follows_the_schema(bundle: str) -> None:
    verify_metadata(meta_file=str(ROOT / "bundles" / bundle / "configs" / "metadata.json"), filepath=str(SCHEMA))


@for_bundles()
def test_metadata_speaks_of_this_version(bundle: str) -> None:
    metadata = read_json(ROOT / "bundles" / bundle / "configs" / "metadata.json")
    assert metadata["version"] == __version__
    assert metadata["version"] in metadata["changelog"]


@for_bundles()
@pytest.mark.parametrize("name", ["train", pytest.param("inference", marks=pytest.mark.slow)])
def test_declared_shapes(bundle: str, name: str) -> None:
    configs = ROOT / "bundles" / bundle / "configs"
    small = {key: value for key, value in TINY[bundle].items() if key.startswith("network_def#")}
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / f"{name}.json"),
        **small,
    )


@pytest.fixture
def exportable(bundle: str, home: Path) -> tuple[dict[str, Any], torch.nn.Module, torch.Tensor]:
    """What MONAI's exports are told of a network, the network, and an image for it."""
    configs = ROOT / "bundles" / bundle / "configs"
    network = workflow_for(bundle, "train").network_def.eval()
    save_checkpoint(network.state_dict(), home / "model.pt")  # as a training run does
    size = TINY[bundle]["roi_size"]
    arguments = {
        "net_id": "network_def",
        "ckpt_file": str(home / "model.pt"),
        "meta_file": str(configs / "metadata.json"),
        "config_file": str(configs / "inference.json"),
        "input_shape": [1, 1, *size],
        "roi_size": size,
    }
    small = {key: value for key, value in TINY[bundle].items() if key.startswith("network_def#")}
    return {**arguments, **small}, network, torch.randn(1, 1, *size)


@for_bundles(UNETR_PLUS_PLUS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript_export(exportable: tuple[dict[str, Any], torch.nn.Module, torch.Tensor], home: Path) -> None:
    arguments, network, image = exportable
    ckpt_export(filepath=str(home / "model.ts"), use_trace=True, **arguments)
    torch.testing.assert_close(torch.jit.load(home / "model.ts")(image), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@for_bundles(UNETR)
def test_onnx_export(exportable: tuple[dict[str, Any], torch.nn.Module, torch.Tensor], home: Path) -> None:
    arguments, network, image = exportable
    onnx_export(filepath=str(home / "model.onnx"), **arguments)
    session = onnxruntime.InferenceSession(home / "model.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), network(image).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@for_bundles(NNFORMER)
def test_from_the_command_line_inside_the_bundle_without_an_entry(bundle: str, home: Path) -> None:
    words = command(bundle, None, "train", run_name="cli")
    words[words.index("--config_file") + 1] = "configs/train.json"
    inside = ROOT / "bundles" / bundle
    before = snapshot(inside)
    result = subprocess.run(words, cwd=inside, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert snapshot(inside) == before
    assert (home / "runs" / bundle / "cli" / "models" / "model.pt").is_file()
    assert f"outputs: {home / 'runs' / bundle / 'cli'}" in result.stderr
    assert "loss_supervised=" in result.stderr


@pytest.mark.slow  # the documents' tests train in two processes too
@for_bundles(UNETR_PLUS_PLUS)
@pytest.mark.parametrize("overlays", [(), ("paper",)])
def test_two_processes_train_as_one(bundle: str, home: Path, overlays: tuple[str, ...]) -> None:
    names = ("train", *overlays, "multi_gpu_train")
    words = command(bundle, "training", *names, processes=2, run_name="two", batch_size=1)
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    (folder,) = (home / "runs" / bundle).iterdir()
    assert weights(folder).keys() == workflow_for(bundle, "train").network_def.state_dict().keys()
    (found,) = runs_of(home)
    assert found.data.tags["medcontext.steps"] == "4"  # three cases on two processes, padded to two steps each
    assert "dice/val_mean_dice" in found.data.metrics
    assert result.stderr.count("outputs: ") == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"max_epoch": 2}, "Nothing in the configuration uses 'max_epoch'. Did you mean 'max_epochs'"),
        ({"zzz": 2}, "Nothing in the configuration uses 'zzz'. Remove it"),
        ({"organ_dropout": {"shape": "blob"}}, "shape must be .*'blob'"),
        ({"organ_dropout": {"prob": 1.5}}, "prob must .*1.5"),
        ({"train_fraction": 0.0}, r"train_fraction must lie in \(0, 1\], got 0"),
        ({"train_cases": 5}, r"train_cases must be from 2 to 4, .*, 1 of them for validation .*, got 5"),
        ({"train_cases": 1}, r"train_cases must be from 2 to 4, .*, 1 of them for validation .*, got 1"),
        ({"train_cases": 2, "train_fraction": 0.5}, "train_cases 2 and train_fraction 0.5 both choose"),
        ({"labels": {"livver": 6}}, "labels names 'livver', which dataset.json does not have. Did you mean 'liver'"),
        (
            {"labels": {"liver": 6, "kidneys": [2, 3]}},
            r"labels gives 'kidneys' \[2, 3\]; .* Put regions in reported",
        ),
        ({"organs": 12}, "organs must be 13, or 8 for those that are reported for Synapse, got 12"),
        (
            {"reported": {"hand": [14]}},
            r"reported has 'hand' = \(14,\), but labels has only the ids \[1, 2, .* 13\]",
        ),
        ({"train_fraction": 1.5}, r"train_fraction must lie in \[0, 1\], got 1.5"),
        ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
        ({"batch_size": "two"}, "batch_size must be an integer, got 'two'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"roi_size": 32}, "roi_size must be a list, got 32: give a list of whole numbers of voxels"),
        ({"context_weight": -1}, "context_weight must be 0 or more and finite, got -1"),
        ({"consistency_weight": -0.5}, "consistency_weight must be 0 or more and finite, got -0.5"),
        ({"teacher_momentum": 1.5}, r"teacher_momentum must lie in \[0, 1\], got 1.5"),
        (
            {"teacher_momentum": [0.9, 0.95, 1.0]},
            "teacher_momentum must be one number, or the first and the last of two",
        ),
        ({"mode": "pretraining"}, "mode must be one of .*got 'pretraining'"),
        ({"passes": "seperate"}, "passes must be one of .*got 'seperate'. Did you mean 'separate'"),
        ({"select_checkpoint": "students_best"}, "select_checkpoint must be one of .* Did you mean 'student_best'"),
        ({"masked_share": 50}, r"masked_share must lie in \[0, 1\], got 50"),
        ({"context_ramp": -0.1}, r"context_ramp must lie in \[0, 1\], got -0.1"),
        ({"context_end": 2}, r"context_end must lie in \[0, 1\], got 2"),
        ({"burn_in": 1.2}, r"burn_in must lie in \[0, 1\], got 1.2"),
        ({"confidence": 1.2}, r"confidence must lie in \[0, 1\], got 1.2"),
        ({"confidence": [0.5, -0.1]}, r"confidence must lie in \[0, 1\], got -0.1"),
        ({"unlabeled_weight": -1}, "unlabeled_weight must be 0 or more and finite, got -1"),
        ({"sided_mirroring": "never"}, "sided_mirroring must be one of 'refuse', 'allow', got 'never'"),
        ({"sided_labels": ["left_kidney", "right_kidney"]}, "sided_labels must be pairs of names, such as"),
        ({"consistency#form": "cosine"}, "form must be one of .*'cosine'"),
        (
            {"roi_size": [30, 32, 32], "network_def#img_size": [30, 32, 32]},
            r"network_def: roi_size \[30, 32, 32\].*UNETR: .*axis 0 must be a multiple of 16 .* size is 32",
        ),
        (
            {"network_def#img_size": [48, 32, 32]},
            r"network_def: roi_size \[32, 32, 32\] with 1 channels does not suit UNETR: .* takes \(48, 32, 32\) only",
        ),
        ({"network_def#out_channels": 5}, r"network_def: .*\(1, 5, 32, 32, 32\), expected \(1, 14, 32, 32, 32\)"),
        ({"out_channels": 5}, "labels go up to 13 but out_channels is 5; it must be at least 14"),
        ({"overlap": 1.0}, "overlap must be below 1"),
        ({"early_stopping": 0}, "early_stopping must be at least 1, got 0: give a number of validations, or null"),
        ({"early_stopping": 2, "validation_cases": 0}, "early_stopping needs cases to validate on; hold some out by"),
        ({"spacing": [1.0]}, "roi_size .* and spacing .* must have one number for each axis"),
        ({"context_weight": "much"}, "context_weight must be a number, got 'much'"),
        ({"ckpt_path": "pretrained.pt"}, "Nothing in the configuration uses 'ckpt_path'"),
        ({"dataset_dir": "nowhere"}, "There is no dataset at nowhere .*medcontext prepare .*medcontext phantoms"),
        ({"resume": True}, "There is no checkpoint .*last.pt"),
    ],
)
def test_mistakes_are_reported_in_one_sentence_before_the_first_step(
    home: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=f"medcontext: {message}") as refusal:
        train("medcontext_unetr", home, **overrides)
    assert "\n" not in str(refusal.value)
    assert not runs_of(home)
    assert not list((home / "runs").glob("*/*"))


def test_images_and_labels_of_different_shape(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    spoiled = tmp_path_factory.mktemp("spoiled") / "btcv"
    shutil.copytree(home / "data" / "btcv", spoiled)
    label = spoiled / "Training" / "label" / "label0005.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4)), label)
    with pytest.raises(SystemExit, match=r"label\d+.nii.gz has shape \(3, 4, 5\), its image \(32, 32, 32\)"):
        train("medcontext_unetr", home, dataset_dir=str(spoiled))


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize(
    ("choice", "reported", "channels"),
    [
        ({"labels": {"liver": 1, "spleen": 2}}, ["liver", "spleen"], 3),
        pytest.param({"organs": 8}, SYNAPSE, 9, marks=pytest.mark.slow),
        pytest.param({}, SYNAPSE, 14, marks=pytest.mark.slow),
    ],
)
def test_labels_are_learned_by_name_under_ids_of_their_own(
    home: Path, choice: dict[str, Any], reported: list[str], channels: int
) -> None:
    folder = train(UNETR, home, max_epochs=1, **choice)
    run(UNETR, "evaluating", "train", "evaluate", ckpt_dir=str(folder / "models"), **choice)
    table = pd.read_csv(folder / "evaluation" / "metrics.csv")
    assert sorted(table["label"].unique()) == sorted(reported)
    workflow = workflow_for(UNETR, "train", **choice)
    get = workflow.parser.get_parsed_content
    assert get("out_channels") == channels
    case = get("cases#training")[0]
    stored = np.asarray(nib.load(case["label"]).dataobj)
    volumes = {name: (stored == BTCV_IDS[name]).sum() for name in get("labels")}
    learned = get("validate#preprocessing")(case)["label"]
    assert learned.max() < channels
    assert {name: int((learned == index).sum()) for name, index in get("labels").items()} == volumes


def test_all_problems_are_shown_in_a_table(
    home: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled = tmp_path_factory.mktemp("spoiled") / "btcv"
    shutil.copytree(home / "data" / "btcv", spoiled)
    for label in (spoiled / "Training" / "label").iterdir():
        label.unlink()
    with pytest.raises(SystemExit, match=r"label\d+.nii.gz is missing\. \| .*label\d+.nii.gz is missing"):
        train("medcontext_unetr", home, dataset_dir=str(spoiled))
    table = [line.split() for line in capsys.readouterr().err.splitlines() if "is missing." in line]
    assert [row[:2] for row in table if row[0] == "img0005"] in ([["img0005", "training"]], [["img0005", "validation"]])
    assert len(table) == 4  # the cases that training uses
    assert not runs_of(home)


def test_a_run_is_never_written_over(home: Path) -> None:
    folder = train("medcontext_unetr", home, max_epochs=1)
    before = weights(folder)
    with pytest.raises(SystemExit, match="already holds a training run; add resume.json"):
        train("medcontext_unetr", home)
    torch.testing.assert_close(weights(folder), before, rtol=0, atol=0)


def test_a_longer_run_or_another_learning_rate_follows_the_new_curve(home: Path) -> None:
    train("medcontext_unetr", home, run_name="longer", max_epochs=2, learning_rate=1e-3)
    run("medcontext_unetr", "training", "train", "resume", max_epochs=4, learning_rate=1e-4, warmup_fraction=0.0)
    client = mlflow.MlflowClient(path_to_sqlite_uri(str(home / "mlruns.db")))
    rates = [point.value for point in client.get_metric_history(runs_of(home)[0].info.run_id, "learning_rate")]
    # eight steps in all: after resuming at step 4, half-way down the cosine of the new curve
    assert rates[4:] == pytest.approx([1e-4 * (1 + np.cos(np.pi * step / 8)) / 2 for step in (4, 5, 6, 7)])


def test_a_loss_that_is_not_finite_is_reported_in_one_sentence(home: Path) -> None:
    with pytest.raises(SystemExit, match="medcontext: .*not finite at step 1; .*learning_rate"):
        train("medcontext_unetr", home, segmentation_loss="$lambda pred, label: pred.mean() * float('nan')")
    assert runs_of(home)[0].info.status == "FAILED"


def test_preview_without_data(home: Path) -> None:
    with pytest.raises(SystemExit, match="medcontext: There is no dataset at nowhere"):
        cli.preview(config_files("medcontext_unetr", "train"), dataset_dir="nowhere")


def test_weights_of_another_network(home: Path) -> None:
    folder = train("medcontext_unetr", home, max_epochs=1)
    with pytest.raises(SystemExit, match="feature_size is 8 .--network_def., but the weights were trained with 4"):
        run(
            "medcontext_unetr",
            "evaluating",
            "train",
            "evaluate",
            ckpt_dir=str(folder / "models"),
            **{"network_def#feature_size": 8},
        )
