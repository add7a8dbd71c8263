from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from medpy.metric import binary
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    Spacingd,
)
from torch import nn

from medcontext.handlers import EvaluationReport
from medcontext.metrics import case_metrics
from replay import AFFINE, Replay, evaluate_share, output
from torso import LABELS, SPACING, case

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but for `evaluated`, which is made before


class Thresholds(nn.Module):
    """Segments by intensity: the torso's organs are 70, 90 and 110 HU on 30."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        centres = torch.tensor([30.0, 70.0, 90.0, 110.0]).view(1, 4, 1, 1, 1)
        return -((image - centres) ** 2)


def write_cases(folder: Path, axcodes: tuple[str, ...] = ("RAS", "LPS")) -> list[dict[str, str]]:
    """Volumes on disk in several orientations, all showing the same torso."""
    items = []
    for i, code in enumerate(axcodes):
        image, label, _ = case(0)
        files = {}
        for key, array in {"image": image, "label": label}.items():
            stored = nib.Nifti1Image(array, AFFINE).as_reoriented(
                nib.orientations.ornt_transform(
                    nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(code)
                )
            )
            files[key] = str(folder / f"{key}{i:04d}.nii.gz")
            nib.save(stored, files[key])
        items.append(files)
    return items


def evaluator(
    items: list[dict[str, str]], handlers: list[Any], invert: tuple[str, ...] = ("pred", "image"), **options: Any
) -> SupervisedEvaluator:
    preprocessing = Compose(
        [
            LoadImaged(["image", "label"]),
            EnsureChannelFirstd(["image", "label"]),
            Orientationd("image", axcodes="SPL", labels=None),
            Spacingd("image", pixdim=(2.5, 3.0, 3.0), mode="bilinear"),
        ]
    )
    postprocessing = Compose(
        [
            Invertd(invert, transform=preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True),
            AsDiscreted("pred", argmax=True),
        ]
    )
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, preprocessing), batch_size=1),
        network=Thresholds(),
        postprocessing=postprocessing,
        val_handlers=handlers,
        **options,
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SupervisedEvaluator]:
    folder = tmp_path_factory.mktemp("cases")
    handler = EvaluationReport(folder / "evaluation", LABELS, info={"bundle": "unetr", "date": "yesterday"})
    engine = evaluator(write_cases(folder), [handler])
    engine.run()
    return folder / "evaluation", engine


def test_metrics_are_there_under_their_names(evaluated: tuple[Path, SupervisedEvaluator]) -> None:
    metrics = evaluated[1].state.metrics
    assert set(metrics) == {
        "test_failed_cases",
        "test_mean_dice",
        "test_missed",
        "test_spurious",
        *(
            f"test_{metric}_{label}"
            for metric in ("dice", "surface_dice", "hd95", "missed", "spurious")
            for label in LABELS
        ),
    }
    assert all(isinstance(value, float) for value in metrics.values())
    assert metrics["test_dice_liver"] > 0.5


def test_rows_are_in_the_original_geometry(evaluated: tuple[Path, SupervisedEvaluator]) -> None:
    table = pd.read_csv(evaluated[0] / "metrics.csv")
    truth = np.bincount(case(0)[1].ravel(), minlength=4)
    assert list(table["case"].unique()) == ["image0000", "image0001"]
    for i, label in enumerate(LABELS):
        volumes = table.loc[table["label"] == label, "label_volume_ml"]
        np.testing.assert_allclose(volumes, truth[i + 1] * np.prod(SPACING) / 1000, rtol=1e-5)


def test_orientation_on_disk_does_not_change_the_result(evaluated: tuple[Path, SupervisedEvaluator]) -> None:
    table = pd.read_csv(evaluated[0] / "metrics.csv")
    first, second = (rows.drop(columns="case").reset_index(drop=True) for _, rows in table.groupby("case"))
    pd.testing.assert_frame_equal(first, second, rtol=0.02)


def test_report_is_written_with_its_circumstances(evaluated: tuple[Path, SupervisedEvaluator]) -> None:
    info = json.loads((evaluated[0] / "summary.json").read_text())["info"]
    assert list(info) == ["bundle", "date", "metrics", "device", "duration", "command", "versions"]
    assert info["date"] == "yesterday"
    assert info["device"].startswith("cpu (")
    assert {"medcontext", "monai", "torch", "python"} <= info["versions"].keys()
    total, each = map(float, re.fullmatch(r"([\d.]+) s, ([\d.]+) s a case", info["duration"]).groups())
    assert total == pytest.approx(2 * each, abs=0.15)
    assert info["metrics"] == {"protocol": "default", "surface_tolerance_mm": 2.0}
    assert (evaluated[0] / "report.html").stat().st_size > 100_000
    assert {path.name for path in evaluated[0].glob("*.png")} == {"overlay_best.png", "overlay_worst.png"}


@pytest.mark.parametrize(("content", "curves"), [("epoch,train_loss\n1,0.5\n", 1), (None, 0)])
def test_curves_of_the_training_run_are_shown_where_they_are_known(
    tmp_path: Path, content: str | None, curves: int
) -> None:
    if content is not None:
        (tmp_path / "history.csv").write_text(content)
    handler = EvaluationReport(
        tmp_path / "open", LABELS, history=tmp_path / "history.csv", anonymous_dir=tmp_path / "hidden"
    )
    Replay(handler, [[output(0, "name.nii")]]).run()
    pages = {name: (tmp_path / name / "report.html").read_text() for name in ("open", "hidden")}
    assert [page.count("<h2>Training</h2>") for page in pages.values()] == [curves, curves]
    assert "<span>name</span>" in pages["open"]
    assert "name<" not in pages["hidden"]


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    handler = EvaluationReport(tmp_path, LABELS, info={"training": {}, "bundle_version": None, "seed": 0, "run": ""})
    Replay(handler, [[output()]]).run()
    info = json.loads((tmp_path / "summary.json").read_text())["info"]
    assert list(info)[:2] == ["seed", "run"]
    assert "training" not in info


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SPL"])
@pytest.mark.parametrize("invert", [("pred", "image"), ("pred",)], ids=["inverted image", "preprocessed image"])
def test_pictures_are_upright_and_aligned(tmp_path: Path, axcodes: str, invert: tuple[str, ...]) -> None:
    handler = EvaluationReport(tmp_path / "evaluation", LABELS, window=(-100, 200))
    evaluator(write_cases(tmp_path, (axcodes,)), [handler], invert).run()
    ((axial, coronal, _),) = handler._planes.values()
    rows, columns = np.nonzero(coronal.label == LABELS["liver"])
    assert columns.mean() < coronal.label.shape[1] / 2  # the patient's right is on the viewer's left
    assert rows.mean() < coronal.label.shape[0] / 2  # and this liver is high up
    assert coronal.pixel_mm == pytest.approx((5.0, 3.0))
    grey = axial.image.astype(float)
    assert grey[axial.label > 0].mean() > grey[(axial.label == 0) & (grey > 60)].mean() + 20
    assert (axial.label == axial.prediction).mean() > 0.9


def test_metrics_precede_handlers_that_log_them(tmp_path: Path) -> None:
    seen: dict[Any, Any] = {}

    class Logger:
        def attach(self, engine: Engine) -> None:
            for event in (Events.EPOCH_COMPLETED, Events.COMPLETED):
                engine.add_event_handler(event, self.log, event)

        def log(self, engine: Engine, event: Any) -> None:
            seen[event] = ("test_mean_dice" in engine.state.metrics, (tmp_path / "out" / "report.html").exists())

    handlers = [EvaluationReport(tmp_path / "out", LABELS), Logger()]
    evaluator(write_cases(tmp_path, ("RAS",)), handlers).run()
    assert seen == {Events.EPOCH_COMPLETED: (True, False), Events.COMPLETED: (True, True)}


def cases_of(folder: Path) -> list[str]:
    return list(pd.read_csv(folder / "metrics.csv")["case"].unique())


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["/d/img0001.nii.gz", "/d/img0002.nii"], ["img0001", "img0002"]),
        (["/d/a.1.nii.gz", "/d/1.2.840.113"], ["a.1", "1.2.840.113"]),
        (["/d/one/ct.nii.gz", "/d/two/ct.nii.gz"], ["one/ct", "two/ct"]),
        (["/d/one/x/ct.mha", "/d/two/x/ct.mha"], ["one/x/ct", "two/x/ct"]),
        (["", ""], ["case_0000", "case_0001"]),
        (["/d/ct.nii.gz", "/d/ct.nii.gz"], ["ct#0", "ct#1"]),
    ],
)
def test_names_of_cases(tmp_path: Path, files: list[str], names: list[str]) -> None:
    Replay(EvaluationReport(tmp_path, LABELS), [[output(i, file)] for i, file in enumerate(files)]).run()
    assert cases_of(tmp_path) == names


def test_several_cases_in_a_batch_and_one_hot_predictions(tmp_path: Path) -> None:
    metrics = Replay(EvaluationReport(tmp_path, LABELS), [[output(0), output(2, one_hot=True)]]).run()
    _, label, prediction = case(2)
    expected = case_metrics(torch.as_tensor(prediction.copy()), torch.as_tensor(label), LABELS, SPACING)
    assert metrics["test_dice_spleen"] == pytest.approx((1 + float(expected[1]["dice"])) / 2)
    assert metrics["test_hd95_spleen"] == pytest.approx(float(expected[1]["hd95_mm"]) / 2)


def test_label_in_no_case_is_nan(tmp_path: Path) -> None:
    metrics = Replay(EvaluationReport(tmp_path, {**LABELS, "tail": 9}), [[output()]]).run()
    assert math.isnan(metrics["test_dice_tail"])
    assert metrics["test_mean_dice"] == 1.0


def without(label: str, where: str) -> dict[str, Any]:
    """A case in which a label is taken out of the prediction or the label map."""
    item = output(1)
    item[where] = torch.where(item[where] == LABELS[label], 0, item[where])
    return item


def test_organ_that_is_never_found_is_counted_where_it_has_no_distance(tmp_path: Path) -> None:
    batches = [[without("spleen", "pred")], [without("spleen", "pred")], [without("spleen", "label")]]
    metrics = Replay(EvaluationReport(tmp_path, LABELS), batches).run()
    assert math.isnan(metrics["test_hd95_spleen"])
    assert (metrics["test_missed_spleen"], metrics["test_spurious_spleen"]) == (2, 1)
    assert (metrics["test_missed_liver"], metrics["test_spurious_liver"]) == (0, 0)
    assert (metrics["test_dice_spleen"], metrics["test_surface_dice_spleen"]) == (0, 0)


@pytest.mark.parametrize(("protocol", "absent"), [("paper", 1.0), ("paper_unetr", 0.0)])
def test_published_means_leave_nothing_out(tmp_path: Path, protocol: str, absent: float) -> None:
    batches = [[output(0)], [without("spleen", "pred")]]
    labels = {"spleen": LABELS["spleen"], "tail": 9}
    metrics = Replay(EvaluationReport(tmp_path, labels, protocol=protocol), batches).run()
    assert metrics["test_paper_dice_spleen"] == pytest.approx((1 + 0) / 2)
    assert metrics["test_paper_dice_tail"] == absent
    assert metrics["test_paper_mean_dice"] == pytest.approx((0.5 + absent) / 2)
    assert (metrics["test_paper_hd95_spleen"], metrics["test_paper_hd95_tail"]) == (0, 0)
    assert metrics["test_paper_mean_hd95"] == 0
    assert metrics["test_mean_dice"] == pytest.approx(0.5)
    assert json.loads((tmp_path / "summary.json").read_text())["info"]["metrics"]["protocol"] == protocol


def test_published_distances_are_in_voxels(tmp_path: Path) -> None:
    metrics = Replay(EvaluationReport(tmp_path, LABELS, protocol="paper"), [[output(2)]]).run()
    _, label, prediction = case(2)
    hd95 = [binary.hd95(prediction == number, label == number) for number in LABELS.values()]
    assert [metrics[f"test_paper_hd95_{name}"] for name in LABELS] == pytest.approx(hd95)
    assert metrics["test_paper_mean_hd95"] == pytest.approx(sum(hd95) / len(hd95))


def test_tolerance_reaches_the_surface_dice(tmp_path: Path) -> None:
    values = [
        Replay(EvaluationReport(tmp_path, LABELS, surface_tolerance_mm=mm), [[output(1)]]).run()
        for mm in (0.0, 50.0, {**dict.fromkeys(LABELS, 0.0), "liver": 50.0})
    ]
    strict, loose, mixed = ([v[f"test_surface_dice_{name}"] for name in ("liver", "spleen")] for v in values)
    assert max(strict) < 1
    assert loose == [1, 1]
    assert mixed == [loose[0], strict[1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "nnformer"}, "protocol must be one of 'default', 'paper', 'paper_unetr', got 'nnformer'"),
        ({"surface_tolerance_mm": -1.0}, "must be a number of mm, 0 or more, got -1.0"),
        ({"surface_tolerance_mm": {"liver": 1.0}}, "must name every label"),
    ],
)
def test_refuses_unusable_rules_before_anything_is_measured(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationReport(tmp_path, LABELS, **options)


def test_prefix_and_second_run(tmp_path: Path) -> None:
    replay = Replay(EvaluationReport(tmp_path, LABELS, metric_prefix="external"), [[output(1, "a.nii")]])
    first = dict(replay.run())
    assert first["external_mean_dice"] < 1
    assert dict(replay.run()) == first
    assert cases_of(tmp_path) == ["a"]


def test_plain_image_and_channel(tmp_path: Path) -> None:
    item = output()
    item["image"] = torch.cat([torch.zeros_like(item["image"].as_tensor()), item["image"].as_tensor()])
    handler = EvaluationReport(tmp_path, LABELS, image_channel=1)
    Replay(handler, [[item]]).run()
    assert handler._planes["case_0000"][0].image.std() > 10


def test_table_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="medcontext"):
        Replay(EvaluationReport(tmp_path, LABELS), [[output(1)]]).run()
    assert "left_kidney" in caplog.text
    assert str(tmp_path / "report.html") in caplog.text


def test_only_the_drawn_slices_are_kept(tmp_path: Path) -> None:
    handler = EvaluationReport(tmp_path, LABELS)
    Replay(handler, [[output()]]).run()
    (planes,) = handler._planes.values()
    size = sum(array.nbytes for plane in planes for array in (plane.image, plane.label, plane.prediction))
    assert size <= 3 * (48 * 40 + 48 * 24 + 40 * 24)


def test_needs_decollated_output(tmp_path: Path) -> None:
    engine = Engine(lambda _, batch: batch)
    EvaluationReport(tmp_path, LABELS).attach(engine)
    with pytest.raises(ValueError, match="decollate=True"):
        engine.run([{"image": torch.zeros(1)}])


def test_needs_a_geometry(tmp_path: Path) -> None:
    item = output()
    item["pred"] = item["pred"].as_tensor()
    with pytest.raises(ValueError, match="must be a MetaTensor.*got Tensor.*track_meta"):
        Replay(EvaluationReport(tmp_path, LABELS), [[item]]).run()


def test_needs_one_geometry(tmp_path: Path) -> None:
    item = output()
    item["pred"] = item["pred"][..., :-1]
    with pytest.raises(ValueError, match="must have the same shape.*Invertd"):
        Replay(EvaluationReport(tmp_path, LABELS), [[item]]).run()


def test_refuses_labels_by_id(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="id of label 'spleen'"):
        EvaluationReport(tmp_path, {"spleen": "1"})  # type: ignore[dict-item]


@pytest.mark.slow
def test_processes_share_the_cases(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(evaluate_share, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"metrics{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert sorted(cases_of(tmp_path / "from0")) == ["a", "b", "c"]
    assert first["test_failed_cases"] == 2
    assert list(pd.read_csv(tmp_path / "from0" / "failures.csv")["case"]) == ["d", "e"]
    assert not (tmp_path / "from1").exists()
