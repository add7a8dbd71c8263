"""Bundles with scans that nobody labelled, and with sided labels."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from bundle_runs import (
    NNFORMER,
    UNETR,
    UNETR_PLUS_PLUS,
    command,
    for_bundles,
    read_json,
    run,
    runs_of,
    train,
    workflow_for,
)
from dicom_scans import write_series
from medcontext.data import load_cases

REST = {"unlabeled": "rest", "train_cases": 2, "burn_in": 0.0, "confidence": 0.0}
ALLOWED = {"masked_share": 1.0, **REST}


def copy_of(data: Path, to: Path) -> Path:
    """A dataset that may be spoiled."""
    shutil.copytree(data, to)
    return to


@for_bundles(NNFORMER)
def test_the_rest_is_used_without_its_labels(bundle: str, home: Path) -> None:
    """The label maps of the cases that are left out need not even exist; and the run pairs with its control."""
    data = copy_of(home / "data" / "btcv", home / "mine")
    rest = load_cases(data / "dataset.json", "rest", num_validation=1, train_cases=2)
    assert len(rest) == 2
    for case in rest:
        Path(case["label"]).unlink()
    train(bundle, home, run_name="unlabeled", dataset_dir=str(data), **ALLOWED)
    train(bundle, home, run_name="control", dataset_dir=str(data), train_cases=2)
    found = {one.info.run_name: one.data for one in runs_of(home)}
    assert found["unlabeled"].tags["medcontext.mode"] == "medcontext_unlabeled"
    assert found["control"].tags["medcontext.mode"] == "medcontext"
    hashes = {name: data.tags["medcontext.unlabeled_hash"] for name, data in found.items()}
    assert hashes["control"] == "" != hashes["unlabeled"]
    assert len({data.tags["medcontext.data_hash"] for data in found.values()}) == 1
    metrics = found["unlabeled"].metrics
    assert np.isfinite([metrics["train_loss_unlabeled"], metrics["dice/val_mean_dice"]]).all()
    assert metrics["confident_fraction"] == 1
    assert "train_loss_unlabeled" not in found["control"].metrics


@for_bundles(UNETR_PLUS_PLUS)
def test_the_control_drops_no_organs_from_unlabelled_crops(bundle: str, home: Path) -> None:
    seen: dict[str, list[bool]] = {}
    for mode in ("pseudo_labels", "medcontext_unlabeled"):
        workflow = workflow_for(bundle, "train", mode, **{**ALLOWED, "run_name": mode, "max_epochs": 1})
        get, trainer = workflow.parser.get_parsed_content, workflow.trainer
        assert (get("mode"), get("unlabeled")) == (mode, "rest")
        crops: list[tuple[torch.Tensor, int]] = []
        trainer.student.register_forward_pre_hook(lambda module, args, into=crops: into.append((args[0].clone(), 0)))
        strong: list[torch.Tensor] = []
        view = trainer._unlabeled_crops

        def watch(batch: Any, view: Any = view, strong: list[torch.Tensor] = strong) -> Any:
            strong.append(batch.strong)
            return view(batch)

        trainer._unlabeled_crops = watch
        trainer.run()
        images = [image for image, _ in crops if len(image) == 2]  # validation has one crop more
        seen[mode] = [torch.equal(image[1:], whole) for image, whole in zip(images, strong, strict=False)]
        assert seen[mode]
    assert all(seen["pseudo_labels"])
    assert not all(seen["medcontext_unlabeled"])


@for_bundles(UNETR)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resuming_is_exact_with_unlabelled_scans_and_a_schedule(bundle: str, home: Path, workers: int) -> None:
    keys = {**ALLOWED, "burn_in": 0.25, "context_ramp": 0.5, "context_end": 0.75, "num_workers": workers}
    keys |= {"consistency_weight": 0.5, "max_epochs": 4}
    whole = train(bundle, home, run_name="whole", **keys)
    from medcontext.engines import MedContextTrainer

    step = MedContextTrainer._optimizer_step

    def cut(trainer: MedContextTrainer) -> None:
        if trainer.state.iteration == 3:
            raise KeyboardInterrupt
        step(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MedContextTrainer, "_optimizer_step", cut)
        with pytest.raises(KeyboardInterrupt):
            train(bundle, home, run_name="cut", **keys)
    train(bundle, home, "resume", run_name="cut", **keys)
    folders = whole, home / "runs" / bundle / "cut"
    for name in ("network", "teacher", "optimizer", "best_model"):
        expected, found = (torch.load(f / "models" / "last.pt", weights_only=True)[name] for f in folders)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    histories = [
        pd.read_csv(folder / "models" / "history.csv").drop(columns="train_processor_seconds") for folder in folders
    ]
    pd.testing.assert_frame_equal(*histories)
    # one step an epoch: the masks of the first are empty, unlabelled crops join after a quarter, whole crops end it
    masked = histories[0]["masked_fraction"].tolist()
    assert (masked[0], masked[3]) == (0, 0)
    assert masked[2] > 0
    assert histories[0]["train_loss_unlabeled"].notna().tolist() == [False, False, True, True]


@for_bundles(UNETR)
def test_a_folder_of_series_in_dicom(bundle: str, home: Path) -> None:
    volume = np.random.default_rng(0).integers(-1000, 1000, (24, 24, 12)).astype(np.int16)
    for number in range(2):
        write_series(home / "scans" / str(number), volume + number, np.diag([-4.5, -4.5, 6.0, 1.0]))
    train(bundle, home, unlabeled_dir=str(home / "scans"), max_epochs=1, burn_in=0.0, num_samples=2)
    (found,) = runs_of(home)
    assert found.data.tags["medcontext.mode"] == "medcontext_unlabeled"
    assert math.isfinite(found.data.metrics["train_loss_unlabeled"])


@pytest.mark.slow
@for_bundles(UNETR_PLUS_PLUS)
def test_two_processes_with_unlabelled_scans(bundle: str, home: Path) -> None:
    names = ("train", "multi_gpu_train")
    words = command(bundle, "training", *names, processes=2, run_name="two", batch_size=1, **{**REST, "train_cases": 3})
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    (found,) = runs_of(home)
    assert math.isfinite(found.data.metrics["train_loss_unlabeled"])
    assert math.isfinite(found.data.metrics["dice/val_mean_dice_ema"])


# --- one sentence before the first step ---


def listed(data: Path, scans: list[str]) -> None:
    """Let a dataset list unlabelled scans."""
    content = read_json(data / "dataset.json")
    (data / "dataset.json").write_text(json.dumps({**content, "unlabeled": scans}))


def scan(path: Path, lowest: float = -1000, channels: int = 1) -> None:
    values = np.random.default_rng(1).integers(lowest, lowest + 1500, (24, 24, 24, channels)).astype(np.int16)
    nib.save(nib.Nifti1Image(values.squeeze(), np.diag([-4.5, -4.5, 6.0, 1.0])), path)


@pytest.mark.parametrize(
    ("overlays", "overrides", "message"),
    [
        ([], {"unlabeled": "dataset"}, ".*lists no scans under 'unlabeled'; add them there, or give unlabeled_dir"),
        ([], {"unlabeled": "all"}, "unlabeled must be 'dataset', 'rest' or null, got 'all'"),
        ([], {"unlabeled": "rest"}, "unlabeled rest needs training cases that are left out, but all are labelled"),
        ([], {"unlabeled_dir": "{home}/empty"}, "There is nothing to predict at .*empty"),
        ([], {"unlabeled_dir": "{home}/nowhere"}, ".*nowhere"),
        ([], {"unlabeled_dir": "{home}/scans/leak.nii.gz"}, r".*leak.nii.gz has the same contents as .*\(test\)"),
        ([], {"unlabeled_dir": "{home}/scans/label.nii.gz"}, ".*label.nii.gz has the same contents as .*img0005"),
        ([], {"unlabeled_dir": "{home}/scans/channels.nii.gz"}, ".*channels.nii.gz .*2"),
        ([], {"unlabeled_dir": "{home}/scans/mr.nii.gz"}, ".*mr.nii.gz is no CT in Hounsfield units"),
        (["baseline"], REST, "mode 'baseline' uses no unlabelled scans; leave unlabeled and unlabeled_dir out"),
        (["masking_only"], REST, "mode 'masking_only' uses no unlabelled scans"),
        ([], {"mode": "pseudo_labels"}, "mode 'pseudo_labels' needs unlabelled scans; give --unlabeled dataset"),
        (["pseudo_labels"], {}, ".*lists no scans under 'unlabeled'"),
        ([], {**REST, "confidence": [0.5, 0.9]}, "confidence .*2.*14"),
        ([], {**REST, "passes": "separate"}, "mode 'medcontext_unlabeled' has a single pass, got passes 'separate'"),
    ],
)
def test_mistakes_are_reported_before_the_first_step(
    home: Path, overlays: list[str], overrides: dict[str, Any], message: str
) -> None:
    (home / "empty").mkdir()
    (home / "scans").mkdir()
    cases = {name: load_cases(home / "data" / "btcv" / "dataset.json", name) for name in ("training", "test")}
    labelled = next(case["image"] for case in cases["training"] if "0005" in case["image"])
    shutil.copy(cases["test"][0]["image"], home / "scans" / "leak.nii.gz")
    shutil.copy(labelled, home / "scans" / "label.nii.gz")
    scan(home / "scans" / "channels.nii.gz", channels=2)
    scan(home / "scans" / "mr.nii.gz", lowest=0)
    overrides = {k: v.format(home=home) if isinstance(v, str) else v for k, v in overrides.items()}
    with pytest.raises(SystemExit, match=f"medcontext: {message}") as refusal:
        train(UNETR, home, *overlays, **overrides)
    assert "\n" not in str(refusal.value)
    assert not runs_of(home)
    assert not list((home / "runs").glob("*/*"))


# --- sided labels ---

MIRRORING = {"spatial": [{"_target_": "RandFlipd", "keys": ["image", "label"], "spatial_axis": 0}], "intensity": []}


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"augmentation": MIRRORING}, marks=pytest.mark.slow),
        {"orientation": "LPI", "augmentation": MIRRORING},
        pytest.param({"mirrored_axes": ["R"]}, marks=pytest.mark.slow),
    ],
)
def test_mirroring_of_labels_with_sides_is_refused(home: Path, overrides: dict[str, Any]) -> None:
    axis = overrides.get("orientation", "RAS")[0]
    message = (
        rf"medcontext: augmentation mirrors along {axis}, which would swap sided labels, such as "
        "right_kidney and left_kidney; do not mirror that axis, change sided_labels, or set sided_mirroring"
    )
    with pytest.raises(SystemExit, match=message):
        train(UNETR, home, **overrides)
    assert not runs_of(home)
    for allowed in ({"sided_mirroring": "allow"}, {"sided_labels": []}):
        train(UNETR, home, run_name=next(iter(allowed)), max_epochs=1, **overrides, **allowed)


@pytest.mark.parametrize(("flips", "refused"), [(["L"], True), ([0], True), (["A", "S"], False), ([], False)])
def test_averaging_over_mirrored_views_is_refused_too(home: Path, flips: list[str | int], refused: bool) -> None:
    keys = {
        "dataset_dir": str(home / "data" / "btcv"),
        "predictions_dir": str(home / "predictions"),
        "network": {"_target_": "bundle_runs.Threshold", "out_channels": "@out_channels"},
        "tta_flips": flips,
    }
    if refused:
        message = "medcontext: tta_flips mirrors along R, which would swap sided labels, such as"
        with pytest.raises(SystemExit, match=message):
            run(UNETR, "inferring", "inference", **keys)
        assert not (home / "predictions").exists()
        keys["sided_mirroring"] = "allow"
    run(UNETR, "inferring", "inference", **keys)
    assert len(list((home / "predictions").glob("*.nii.gz"))) == 2


@for_bundles()
def test_training_mirrors_the_axes_that_are_asked_for(bundle: str, home: Path) -> None:
    from medcontext.transforms import mirrored_axes

    keys = {"dataset_dir": str(home / "data" / "btcv")}
    for asked, expected in (([], set()), (["A", "S"], {"A", "S"}), ([0], None)):
        get = workflow_for(bundle, "train", tiny=False, mirrored_axes=asked, **keys).parser.get_parsed_content
        axes = {axis for axis, end in enumerate(get("orientation")) if {"P": "A", "I": "S"}.get(end, end) in asked}
        assert mirrored_axes(get("augmentation"), 3) == ({0} if expected is None else axes)
        assert expected is None or len(axes) == len(expected)
    published = workflow_for(bundle, "train", "paper", tiny=False, **keys).parser.get_parsed_content
    assert mirrored_axes(published("augmentation"), 3) == {0, 1, 2}
