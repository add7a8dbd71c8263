"""Whole plans, of tiny cohorts, for all bundles."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle_runs import BUNDLES, NNFORMER, RESENC_UNET, ROOT, SWIN_UNETR, UNETR, UNETR_PLUS_PLUS, workflow_for
from cohorts import write_cohort
from medcontext.bundle import check_configuration, check_network
from medcontext.planning import bundle_choices, fingerprint, make_plans, write_plans
from medcontext.planning.cost import StepCost
from medcontext.storage import files


def cost(_: Any, crop: Sequence[int]) -> StepCost:
    return StepCost(activations=2000 * prod(crop), weights=10**8, operations=10**12)


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is built or timed to plan, and bundles are found whatever the working directory."""
    monkeypatch.setattr(bundle_choices, "step_seconds", lambda *_: 0.5)
    monkeypatch.setattr(bundle_choices, "step_cost", cost)
    monkeypatch.setattr(bundle_choices, "check_crop", lambda *_: None)
    monkeypatch.chdir(ROOT)


def planned(folder: Path, bundles: Sequence[str] = (UNETR,), gpu_memory: Any = "cpu") -> dict[str, dict[str, Any]]:
    """Overlays by bundle."""
    return {plan.bundle: plan.overlay for plan in make_plans(folder, gpu_memory, bundles)}


ONE = {"classes": 1, "spacing": (0.7, 1.3, 2.1)}
TWENTY = {"classes": 20, "shape": (14, 42, 6), "spacing": (1.1, 1.1, 7.0), "air": 0.0, "channels": 2}


@pytest.mark.parametrize(
    ("bundle", "cohort"),
    [
        (UNETR, TWENTY),
        (SWIN_UNETR, ONE),
        (NNFORMER, TWENTY),
        (UNETR_PLUS_PLUS, ONE),
        (RESENC_UNET, TWENTY),
        pytest.param(UNETR, ONE, marks=pytest.mark.slow),
        pytest.param(SWIN_UNETR, TWENTY, marks=pytest.mark.slow),
        pytest.param(NNFORMER, ONE, marks=pytest.mark.slow),
        pytest.param(UNETR_PLUS_PLUS, TWENTY, marks=pytest.mark.slow),
        pytest.param(RESENC_UNET, ONE, marks=pytest.mark.slow),
    ],
)
def test_training_takes_a_plan_and_nothing_else(bundle: str, cohort: dict[str, Any], tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "$mine #1", **cohort)
    (file,) = write_plans(make_plans(folder, "cpu", [bundle]), folder)
    assert file == folder / f"plan_{bundle}.json"
    workflow = workflow_for(bundle, "train", str(file), tiny=False)
    check_configuration(workflow)
    get = workflow.parser.get_parsed_content
    assert get("out_channels") == cohort["classes"] + 1
    assert len(get("cases")["training"]) == 2
    assert len(get("train#preprocessing").transforms) > 5
    check_network(get("network_def"), get("in_channels"), get("out_channels"), get("roi_size"))
    thick = cohort["spacing"][2] > 3 * cohort["spacing"][1]
    assert get("organ_dropout")["cell_size"][get("orientation").index("S")] == (1 if thick else 2)
    assert get("masking").dropout.cell_size == tuple(get("organ_dropout")["cell_size"])


def test_axes_follow_the_orientation_of_each_bundle(tmp_path: Path) -> None:
    plans = planned(write_cohort(tmp_path, spacing=(0.7, 1.3, 2.1)), BUNDLES)
    assert {plan["orientation"]: plan["spacing"] for plan in plans.values()} == {
        "RAS": [0.7, 1.3, 2.1],
        "SPL": [2.1, 1.3, 0.7],
    }


def test_files_of_any_orientation_give_the_same_plan(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "one", spacing=(0.7, 1.3, 2.1))
    expected = planned(folder)[UNETR]
    for path in folder.glob("*.nii.gz"):
        image = nib.load(path)
        turned = image.as_reoriented(nib.orientations.axcodes2ornt(("S", "L", "P")))
        nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    found = planned(folder)[UNETR]
    assert {**found, "plan": None} == {**expected, "plan": None}


def test_the_budget_decides_the_crop(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path, shape=(70, 70, 70), cases=2)
    small, large = (planned(folder, gpu_memory=gib)[UNETR] for gib in (4, 40))
    assert large["roi_size"] == [80, 80, 80]
    assert np.prod(small["roi_size"]) < np.prod(large["roi_size"])
    assert large["network_def"]["feature_size"] == 32
    assert "optimizer" not in large
    assert (large["batch_size"] * large["max_epochs"], large["val_interval"]) == (75_000, 750)


def test_a_budget_that_no_crop_fits(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"gpu_memory 1 is too little for .*_unetr: .* 16 × 32 × 16, .* leave it out of"
    ):
        planned(write_cohort(tmp_path), gpu_memory=1)


@pytest.mark.parametrize("gpu_memory", [0, -1, "abc", True, float("nan"), float("inf")])
def test_what_is_no_budget(gpu_memory: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gpu_memory must be a number of GiB above 0, such as 10, or cpu, got"):
        make_plans(tmp_path, gpu_memory)


def test_voxels_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cohort(tmp_path)
    read: list[str] = []
    read_case = fingerprint._read_case
    monkeypatch.setattr(
        fingerprint, "_read_case", lambda case, **kw: (read.append(Path(case["image"]).name), read_case(case, **kw))[1]
    )
    first = planned(folder)
    assert sorted(read) == ["case0.nii.gz", "case1.nii.gz", "case2.nii.gz"]
    assert planned(folder) == first
    assert len(read) == 3
    label = nib.load(folder / "label1.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj)[::-1], label.affine), folder / "label1.nii.gz")
    planned(folder)
    assert read[3:] == ["case1.nii.gz"]


def test_a_healthy_case_is_planned_with(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path)
    whole = planned(folder)[UNETR]
    label = nib.load(folder / "label1.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), folder / "label1.nii.gz")
    overlay = planned(folder)[UNETR]
    for key in ("labels", "spacing", "roi_size", "validation_cases"):
        assert overlay[key] == whole[key]


def test_what_nobody_annotated_is_not_planned_with(tmp_path: Path) -> None:
    """The second structure of a cohort becomes an ignored region beside the first."""
    folder = write_cohort(tmp_path / "ignored", classes=2)
    alone = write_cohort(tmp_path / "alone", classes=2)
    for number in range(3):
        label = nib.load(alone / f"label{number}.nii.gz")
        values = np.asarray(label.dataobj)
        nib.save(nib.Nifti1Image(np.where(values == 2, 0, values), label.affine), alone / f"label{number}.nii.gz")
    edited(lambda content: content["labels"].update({"2": "ignore"}))(folder)
    plans = [planned(one)[UNETR] for one in (folder, alone)]
    assert len(plans[0]["labels"]) == 1
    for key in ("labels", "intensity", "organ_dropout", "roi_size"):
        assert plans[0][key] == plans[1][key]


# --- bad input ---


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / "dataset.json").read_text())
        change(content)
        (folder / "dataset.json").write_text(json.dumps(content))

    return edit


def volume(name: str, shape: Sequence[int], value: int = 1) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        nib.save(nib.Nifti1Image(np.full(shape, value, np.uint8), np.eye(4)), folder / name)

    return write


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ([lambda folder: (folder / "dataset.json").unlink()], "There is no .*dataset.json"),
        (
            [edited(lambda content: content.pop("labels"))],
            'names no labels; add them, such as "labels": {"1": "liver"}',
        ),
        (
            [edited(lambda content: content.update(test=content.pop("training")))],
            "lists no cases under 'training'; list there",
        ),
        (
            [volume("case1.nii.gz", (12, 16, 1)), volume("label1.nii.gz", (12, 16, 1))],
            r"case1 is one slice \(12 × 16 × 1 voxels\), .*; leave it out of .*dataset.json, or stack",
        ),
        (
            [volume("label1.nii.gz", (12, 16, 10), 7)],
            "label1.nii.gz holds the values 7, which .* --dataset_dir .* lists",
        ),
        (
            [volume("case1.nii.gz", (12, 16, 10, 2))],
            r"case1.nii.gz has shape \(12, 16, 10, 2\); in_channels 1 asks for three axes",
        ),
        (
            [volume("case1.nii.gz", (12, 16, 10), 3)],
            "Scans of several modalities are mixed: 2 fall below -200 .* 1 do not",
        ),
        (
            [edited(lambda content: content.update(modality={"0": "T1", "1": "T2"}))],
            r"names 2 channels \(T1, T2\), but case0 has 1; name one",
        ),
        (
            [edited(lambda content: content["labels"].update({"1": "$__import__('os').abort()"}))],
            r"names the label .*; rename it without \$, @, %, # and ::, for MONAI",
        ),
        ([lambda folder: (folder / "case0.nii.gz").write_bytes(b"")], "case0.nii.gz cannot be read .*; repair it, or"),
        ([lambda folder: (folder / "label2.nii.gz").unlink()], "label2.nii.gz is missing"),
    ],
)
def test_data_that_cannot_be_planned(spoil: list[Callable[[Path], Any]], message: str, tmp_path: Path) -> None:
    folder = write_cohort(tmp_path)
    for change in spoil:
        change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refusal:
        planned(folder)
    assert "\n" not in str(refusal.value)
    assert not list(folder.glob("plan_*"))


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no bundle 'unet'; name one of medcontext_nnformer, "):
        make_plans(write_cohort(tmp_path), "cpu", ["unet"])


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = make_plans(write_cohort(tmp_path), "cpu", [UNETR])

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(OSError, match=r"cannot be written to .* \(Permission denied\); give another .* --output_dir"):
        write_plans(plans, tmp_path)
    assert not list(tmp_path.glob("*plan_*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            edited(lambda content: content["training"].pop()),
            "lists other cases, or other files of these, than when it was",
        ),
        (
            edited(lambda content: content["labels"].update({"1": "spleen"})),
            "labels names 'organ 1', which dataset.json",
        ),
        (
            edited(lambda content: content["labels"].update({"2": "spleen"})),
            "names other labels than when it was planned; ",
        ),
    ],
)
def test_a_plan_of_other_data(change: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    (file,) = write_plans(make_plans(write_cohort(tmp_path, cases=4), "cpu", [UNETR]), tmp_path)
    change(tmp_path)
    with pytest.raises(SystemExit, match=f"medcontext: .*{message}"):
        check_configuration(workflow_for(UNETR, "train", str(file), tiny=False))


def test_a_plan_of_another_bundle(tmp_path: Path) -> None:
    (file,) = write_plans(make_plans(write_cohort(tmp_path), "cpu", [UNETR]), tmp_path)
    with pytest.raises(
        SystemExit, match=f"This plan is for {UNETR}, not for {SWIN_UNETR}; take plan_{SWIN_UNETR}.json"
    ):
        check_configuration(workflow_for(SWIN_UNETR, "train", str(file), tiny=False))


def test_evaluation_and_prediction_take_a_plan(tmp_path: Path) -> None:
    """Of other data, too."""
    folder = write_cohort(tmp_path / "mine", cases=4)
    (file,) = write_plans(make_plans(folder, "cpu", [UNETR]), tmp_path)
    edited(lambda content: content.update(test=[content["training"].pop()]))(folder)
    evaluating = workflow_for(UNETR, "train", str(file), "evaluate", tiny=False)
    check_configuration(evaluating)
    assert len(evaluating.parser.get_parsed_content("cases")["test"]) == 1
    predicting = workflow_for(UNETR, "inference", str(file), tiny=False, dataset_dir=str(folder / "case0.nii.gz"))
    check_configuration(predicting)
    plan = json.loads(file.read_text())
    assert {key: predicting.parser.get_parsed_content(key) for key in ("roi_size", "spacing", "labels")} == {
        key: plan[key] for key in ("roi_size", "spacing", "labels")
    }
