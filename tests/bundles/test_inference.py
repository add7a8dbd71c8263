"""Prediction: what it takes, what it writes, ensembles and mirrored views."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from highdicom.seg import segread

from bundle_runs import SWIN_UNETR, UNETR, for_bundles, read_json, run, workflow_for
from dicom_scans import OBLIQUE, write_series
from medcontext.bundle import check_configuration

THRESHOLD = {"_target_": "bundle_runs.Threshold", "out_channels": "@out_channels"}
VOXELS = OBLIQUE @ np.diag([3, 3.75, 1.5, 1])  # 4.5 × 4.5 × 6 mm


def volume() -> np.ndarray:
    """Soft tissue in fat: a block of 8 × 6 × 10 voxels that a threshold finds."""
    image = np.full((20, 24, 28), -150, np.int16)
    image[4:12, 10:16, 6:16] = 200
    return image


def predict(bundle: str, home: Path, *overlays: str, **overrides: Any) -> Path:
    run(bundle, "inferring", "inference", *overlays, predictions_dir=str(home / "out"), **overrides)
    return home / "out"


def weights(bundle: str, home: Path, *seeds: int) -> list[str]:
    """Checkpoints of the tiny network with random weights, one for each seed."""
    paths = []
    for seed in seeds:
        torch.manual_seed(seed)
        paths.append(str(home / f"model{seed}.pt"))
        network = workflow_for(bundle, "inference").network_def
        torch.save(
            {key: value + 0.1 * torch.randn_like(value.float()) for key, value in network.state_dict().items()},
            paths[-1],
        )
    return paths


def probabilities(folder: Path) -> np.ndarray:
    (path,) = folder.glob("*_probabilities.nii.gz")
    return nib.load(path).get_fdata()


@for_bundles(UNETR)
def test_a_dicom_series_gives_what_its_nifti_gives_and_a_segmentation(bundle: str, home: Path) -> None:
    write_series(home / "ct" / "deep", volume(), VOXELS, name="IM{}", description="Portal", order=[*range(27, -1, -1)])
    out = predict(bundle, home, dataset_dir=str(home / "ct"), network=THRESHOLD, save_dicom_seg=True)
    names = sorted(path.name for path in out.iterdir())
    case = names[0].removesuffix(".json")
    assert re.fullmatch(r"3_Portal_\w{8}", case)
    assert names == [f"{case}{end}" for end in (".json", "_overlay.png", "_seg.dcm", "_seg.nii.gz")]
    label_map = nib.load(out / f"{case}_seg.nii.gz")
    np.testing.assert_array_equal(label_map.dataobj, volume() > 0)
    np.testing.assert_allclose(label_map.affine, VOXELS, atol=1e-4)

    summary = read_json(out / f"{case}.json")
    assert summary["image"] == str(home / "ct" / "deep")
    # 8 · 6 · 10 voxels of 4.5 · 4.5 · 6 mm³ = 0.1215 ml
    assert summary["labels"]["spleen"] == {"id": 1, "voxels": 480, "volume_ml": pytest.approx(480 * 0.1215)}
    assert summary["labels"]["liver"]["volume_ml"] == 0
    assert summary["checkpoints"] == []  # the network was given by hand

    segmentation = segread(out / f"{case}_seg.dcm")
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == summary["series_instance_uid"]
    assert [segment.SegmentLabel for segment in segmentation.SegmentSequence][:2] == ["spleen", "right kidney"]
    assert segmentation.get_volume(segment_numbers=[1]).array.sum() == 480


@for_bundles(UNETR)
def test_checkpoints_and_mirrored_views_are_averaged(bundle: str, home: Path) -> None:
    nib.save(nib.Nifti1Image(volume(), VOXELS), home / "scan.nii.gz")
    paths = weights(bundle, home, 1, 2)
    settings = {"dataset_dir": str(home / "scan.nii.gz"), "save_probabilities": True, "save_overlay": False}
    alone = [probabilities(predict(bundle, home, ckpt_path=path, **settings)) for path in paths]
    assert alone[0].shape == (20, 24, 28, 14)
    np.testing.assert_allclose(alone[0].sum(axis=-1), 1, atol=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 0.01

    out = predict(bundle, home, ckpt_path=paths, **settings)
    np.testing.assert_allclose(probabilities(out), (alone[0] + alone[1]) / 2, atol=1e-5)
    label_map = np.asarray(nib.load(out / "scan_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(label_map, probabilities(out).argmax(axis=-1))
    digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    assert [entry["sha256"] for entry in read_json(out / "scan.json")["checkpoints"]] == digests

    mirrored = probabilities(predict(bundle, home, ckpt_path=paths[0], tta_flips=["A", "S"], **settings))
    assert np.abs(mirrored - alone[0]).max() > 1e-3
    np.testing.assert_allclose(mirrored.sum(axis=-1), 1, atol=1e-4)


@for_bundles(SWIN_UNETR)
@pytest.mark.parametrize(
    ("overlays", "overrides", "labels"),
    [
        (["btcv", "phantom"], {}, 13),
        (["acdc"], {}, 3),
        ([], {"labels": {"heart": 1, "lung": 2}}, 2),
        ([], {"organs": 8}, 8),
    ],
)
def test_labels_follow_the_dataset_and_set_the_channels(
    bundle: str, home: Path, overlays: list[str], overrides: dict[str, Any], labels: int
) -> None:
    workflow = workflow_for(bundle, "inference", *overlays, **overrides)
    get = workflow.parser.get_parsed_content
    assert len(get("labels")) == labels
    assert get("out_channels") == labels + 1


@for_bundles()
@pytest.mark.parametrize(
    "overlays",
    [["phantom"], ["btcv", "phantom"], ["acdc", "phantom"], ["brats", "small_gpu"], ["hippocampus", "phantom"]],
)
def test_overlays_of_the_training_run_are_taken(bundle: str, home: Path, overlays: list[str]) -> None:
    """Also where they set keys that prediction has no use for."""
    check_configuration(workflow_for(bundle, "inference", *overlays, tiny=False))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dataset_dir": "nowhere"}, "There is nothing to predict at nowhere; give a volume "),
        ({"labels": {"heart": 1}, "out_channels": 1}, "out_channels must be at least 2, got 1"),
        ({"out_channels": 3}, "labels go up to 13 but out_channels is 3; it must be at least 14"),
        (
            {"labels": {"kidneys": [2, 3]}, "out_channels": 4},
            r"labels gives 'kidneys' \[2, 3\]; each label needs one id",
        ),
        ({"tta_flips": ["X"]}, "tta_flips must hold axes of RAS, .*got 'X'"),
        ({"save_dicom_seg": True}, "save_dicom_seg needs DICOM, .*scan.nii.gz is not; give DICOM"),
        ({"save_dicom": True}, "Nothing in the configuration uses 'save_dicom'. Did you mean 'save_dicom_seg'"),
        ({"ckpt_path": ["a.pt", "a.pt"]}, "ckpt_path must name one checkpoint or several different ones"),
        (
            {"in_channels": 2},
            r".*scan.nii.gz has shape \(.*\); in_channels 2 asks for four axes, the last with 2 channels",
        ),
        ({"predictions_dir": "FILE/out"}, "Cannot write predictions to .*/out .*choose another predictions_dir"),
        ({"output_dir": "FILE/out"}, "Cannot write to output_dir .*/out, choose another: "),
    ],
)
def test_mistakes_are_reported_in_one_sentence_before_anything_is_predicted(
    home: Path, overrides: dict[str, Any], message: str
) -> None:
    nib.save(nib.Nifti1Image(volume(), VOXELS), home / "scan.nii.gz")
    (home / "file").touch()
    overrides = {key: str(home / "file/out") if value == "FILE/out" else value for key, value in overrides.items()}
    network = {} if "ckpt_path" in overrides else {"network": THRESHOLD}
    settings = {"dataset_dir": str(home / "scan.nii.gz"), **network, **overrides}
    with pytest.raises(SystemExit, match=f"medcontext: {message}") as refusal:
        run(UNETR, "inferring", "inference", **settings)
    assert "\n" not in str(refusal.value)
    assert not list(home.rglob("*_seg.nii.gz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: np.where(image == 200, np.nan, image), "scan.nii.gz has 480 voxels that are NaN or infinite"),
        (lambda image: (image + 1024).astype(np.uint16), "scan.nii.gz has values from 874 to 1224, which are no CT in"),
    ],
)
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_scans_that_would_be_predicted_wrongly(home: Path, change: Any, message: str, workers: int) -> None:
    nib.save(nib.Nifti1Image(change(volume()), VOXELS), home / "scan.nii.gz")
    settings = {"dataset_dir": str(home / "scan.nii.gz"), "network": THRESHOLD, "num_workers": workers}
    with pytest.raises(SystemExit, match=f"medcontext: .*{message}"):
        predict(UNETR, home, **settings)
    assert not list(home.rglob("*_seg.nii.gz"))
    if "HU" in message or "CT" in message:
        assert (predict(UNETR, home, **settings, intensity_check=False) / "scan_seg.nii.gz").is_file()


def test_a_fourth_axis_of_one(home: Path) -> None:
    nib.save(nib.Nifti1Image(volume()[..., None], VOXELS), home / "scan.nii.gz")
    out = predict(UNETR, home, dataset_dir=str(home / "scan.nii.gz"), network=THRESHOLD)
    assert np.count_nonzero(nib.load(out / "scan_seg.nii.gz").get_fdata()) == 480


def test_dicom_without_its_libraries_is_reported_in_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(home / "ct", volume(), VOXELS)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(SystemExit, match=r"medcontext: DICOM requires .*pip install pydicom highdicom$"):
        run(UNETR, "inferring", "inference", dataset_dir=str(home / "ct"), network=THRESHOLD)
