from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image
from torch import nn

import medcontext
from dicom_scans import OBLIQUE
from medcontext.handlers import PredictionWriteError, PredictionWriter
from medcontext.networks import load_networks

LABELS = {"liver": 6, "spleen": 1}
SHAPE = (11, 9, 7)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "scans").mkdir()
    for name in "abc":
        image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), OBLIQUE)
        image.header.set_xyzt_units("mm")
        image.header.set_qform(OBLIQUE, code=1)
        nib.save(image, folder / "scans" / f"{name}.nii.gz")
    return folder


@pytest.fixture(autouse=True)
def _beside_the_scans(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scans)


def output(name: str = "a", affine: np.ndarray = OBLIQUE) -> dict[str, Any]:
    """What postprocessing gives for a case; ``pred`` and ``image`` have come back with a rounded affine."""
    label_map = torch.zeros(1, *SHAPE)
    label_map[0, 2:5, 3:6, 1:4], label_map[0, 7, 7, 6] = 6, 1
    meta = {"filename_or_obj": f"scans/{name}.nii.gz", "original_affine": torch.as_tensor(affine)}
    rounded = torch.as_tensor(np.round(affine, 2))
    image = MetaTensor(torch.randn(1, *SHAPE), affine=rounded, meta=meta)
    probabilities = torch.rand(7, *SHAPE).softmax(0)
    return {"image": image, "pred": MetaTensor(label_map, affine=rounded), "probabilities": probabilities}


def write(folder: Path, *outputs: dict[str, Any], **options: Any) -> None:
    cases = [{"image": f"scans/{name}.nii.gz", "case": f"case_{name}"} for name in "abc"]
    engine = Engine(lambda _, item: [item])
    PredictionWriter(folder, cases, options.pop("labels", LABELS), **options).attach(engine)
    engine.run(outputs or [output()])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_label_map_and_probabilities_lie_where_the_image_does(tmp_path: Path) -> None:
    item = output()
    write(tmp_path, item, save_probabilities=True)
    expected = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), OBLIQUE).affine
    label_map, probabilities = (nib.load(tmp_path / f"case_a_{kind}.nii.gz") for kind in ("seg", "probabilities"))
    for file, dtype in ((label_map, np.uint8), (probabilities, np.float32)):
        np.testing.assert_array_equal(file.affine, expected.astype(np.float32))
        assert file.get_data_dtype() == dtype
        assert file.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(file.header.get_qform(), OBLIQUE, atol=1e-4)
        assert [int(file.header[f"{form}_code"]) for form in ("qform", "sform")] == [1, 2]
    np.testing.assert_array_equal(label_map.dataobj, item["pred"][0])
    np.testing.assert_array_equal(probabilities.dataobj, item["probabilities"].movedim(0, -1))


def test_the_summary_counts_millilitres(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pt"
    network = nn.Linear(2, 2)
    torch.save(network.state_dict(), checkpoint)
    chosen = {"network": load_networks(network, checkpoint), "flips": ["R"], "largest_components": ["liver"]}
    write(tmp_path / "out", model="net", **chosen)
    summary = json.loads((tmp_path / "out" / "case_a.json").read_text())
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert summary == {
        "case": "case_a",
        "image": "scans/a.nii.gz",
        "model": "net",
        "medcontext_version": medcontext.__version__,
        "checkpoints": [{"file": str(checkpoint), "sha256": digest}],
        "tta_flips": ["R"],
        "largest_components": ["liver"],
        "shape": [11, 9, 7],
        "spacing_mm": [1.5, 1.2, 4.0],
        # 27 voxels and one of 1.5 × 1.2 × 4 mm = 7.2 mm³
        "labels": {
            "liver": {"id": 6, "voxels": 27, "volume_ml": 0.1944},
            "spleen": {"id": 1, "voxels": 1, "volume_ml": 0.0072},
        },
        "files": ["case_a_seg.nii.gz", "case_a_overlay.png", "case_a.json"],
        "note": "Research use only. Not a medical device.",
    }


def test_the_picture(tmp_path: Path) -> None:
    write(tmp_path)
    picture = np.asarray(Image.open(tmp_path / "case_a_overlay.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize(
    ("options", "endings"),
    [
        ({}, ["a.json", "a_overlay.png", "a_seg.nii.gz"]),
        ({"save_overlay": False, "save_summary": False}, ["a_seg.nii.gz"]),
        ({"save_overlay": False, "save_probabilities": True}, ["a.json", "a_probabilities.nii.gz", "a_seg.nii.gz"]),
    ],
)
def test_a_call_leaves_what_it_was_asked_for_and_nothing_older(
    tmp_path: Path, options: dict[str, bool], endings: list[str]
) -> None:
    write(tmp_path, output("a"), output("b"), save_probabilities=True)
    assert len(names(tmp_path)) == 8
    others = [name for name in names(tmp_path) if name.startswith("case_b")]
    write(tmp_path, **options)
    assert names(tmp_path) == [f"case_{ending}" for ending in endings] + others


def test_the_same_prediction_is_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name)
    first, second = ((tmp_path / name / "case_a_seg.nii.gz").read_bytes() for name in ("one", "two"))
    assert first == second


def test_an_interrupted_case_has_no_half_files_and_no_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    before = (tmp_path / "case_a_seg.nii.gz").read_bytes()

    def interrupted(image: Any, stream: Any) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    assert names(tmp_path) == ["case_a_overlay.png", "case_a_seg.nii.gz"]
    assert (tmp_path / "case_a_seg.nii.gz").read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_reported_before_anything_is_predicted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = Engine(lambda *_: pytest.fail("predicted"))
    PredictionWriter(tmp_path / "file" / "out", [], LABELS).attach(engine)
    with pytest.raises(
        PredictionWriteError, match="Cannot write predictions to .*out .*choose another predictions_dir"
    ):
        engine.run([0])


OTHER = "ct.json is not of {}, whose predictions would replace it .*; choose another predictions_dir .*, or move those"


@pytest.mark.parametrize(
    ("earlier", "image"),
    [
        ('{"image": "/A/ct.nii.gz"}', "/B/ct.nii.gz"),
        ('{"image": ["/A/t1.nii", "/A/t2.nii"]}', ["/A/t1.nii", "/B/t2.nii"]),
        ('{"image": "/A", "series_instance_uid": "1.2"}', "/B/ct.nii.gz"),
        ('{"EchoTime": 0.05}', "/B/ct.nii.gz"),
        ("[]", "/B/ct.nii.gz"),
        ("no summary", "/B/ct.nii.gz"),
    ],
)
def test_predictions_of_another_image_are_not_replaced(tmp_path: Path, earlier: str, image: str | list[str]) -> None:
    (tmp_path / "ct.json").write_text(earlier)
    engine = Engine(lambda *_: pytest.fail("predicted"))
    PredictionWriter(tmp_path, [{"image": image, "case": "ct"}], LABELS).attach(engine)
    with pytest.raises(PredictionWriteError, match=OTHER.format(re.escape(str(image)))):
        engine.run([0])
    assert (tmp_path / "ct.json").read_text() == earlier


@pytest.mark.parametrize(
    ("earlier", "case"),
    [
        ({"image": "/A/ct.nii.gz"}, {"image": "/A/../A/ct.nii.gz"}),
        ({"image": ["/A/t1.nii", "/A/t2.nii"]}, {"image": ["/A/t1.nii", "/A/t2.nii"]}),
        (
            {"image": "/A", "series_instance_uid": "1.2"},
            {"image": ["/moved/1", "/moved/2"], "series_instance_uid": "1.2"},
        ),
    ],
)
def test_predictions_of_the_same_image_are_replaced(
    tmp_path: Path, earlier: dict[str, Any], case: dict[str, Any]
) -> None:
    (tmp_path / "ct.json").write_text(json.dumps(earlier))
    engine = Engine(lambda *_: [])
    PredictionWriter(tmp_path, [{**case, "case": "ct"}], LABELS).attach(engine)
    assert engine.run([0]).iteration == 1


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", full)
    with pytest.raises(PredictionWriteError, match=r"\(No space left on device\); free space"):
        write(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {"a": 1, "b": 1}}, "labels must map each name to an id of its own"),
        ({"labels": {"kidneys": [2, 3]}}, r"labels gives 'kidneys' \[2, 3\]; each label needs one id"),
        ({"save_dicom_seg": True}, "save_dicom_seg needs DICOM, .*and scans/a.nii.gz is not; give DICOM series"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path, **options)


def test_dicom_seg_without_its_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    case = {"image": ["/ct/1", "/ct/2"], "case": "ct", "series_instance_uid": "1.2"}
    with pytest.raises(ImportError, match="pip install pydicom highdicom"):
        PredictionWriter(tmp_path, [case], LABELS, save_dicom_seg=True)
