from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.networks.utils import one_hot
from monai.transforms import AsDiscreted

from medcontext.metrics import LabelDice, case_metrics
from replay import dice_share

LABELS = {"spleen": 1, "right kidney": 2}


def hot(*voxels: int, classes: int = 3) -> torch.Tensor:
    """One-hot (C, 6, 1, 1) from six label ids."""
    return one_hot(torch.tensor(voxels).reshape(1, 1, 6, 1, 1), classes)[0]


def run(metric: LabelDice, pairs: list[tuple[Any, Any]], name: str = "val_mean_dice") -> dict[str, Any]:
    engine = Engine(lambda _, batch: batch)
    metric.attach(engine, name)
    return engine.run([([pred], [label]) for pred, label in pairs]).metrics


def test_means_by_label() -> None:
    metrics = run(
        LabelDice(LABELS),
        [(hot(1, 1, 0, 0, 2, 0), hot(1, 1, 0, 0, 2, 2)), (hot(1, 0, 0, 0, 2, 2), hot(1, 1, 1, 0, 2, 2))],
    )
    assert metrics == {
        "val_dice_spleen": pytest.approx((1 + 2 * 1 / (1 + 3)) / 2),
        "val_dice_right kidney": pytest.approx((2 / 3 + 1) / 2),
        "val_mean_dice": pytest.approx((0.75 + 5 / 6) / 2),
    }


@pytest.mark.parametrize(
    ("pred", "label", "dice"),
    [
        (hot(0, 0, 0, 0, 0, 0), hot(1, 0, 0, 0, 0, 0), 0.0),
        (hot(1, 0, 0, 0, 0, 0), hot(0, 0, 0, 0, 0, 0), 0.0),
        (hot(0, 0, 0, 0, 0, 0), hot(0, 0, 0, 0, 0, 0), math.nan),
    ],
    ids=["missed", "spurious", "absent"],
)
def test_counts_like_case_metrics(pred: torch.Tensor, label: torch.Tensor, dice: float) -> None:
    value = run(LabelDice({"spleen": 1}), [(pred, label)])["val_dice_spleen"]
    maps = (pred.argmax(dim=0), label.argmax(dim=0))
    assert value == pytest.approx(dice, nan_ok=True)
    assert value == pytest.approx(case_metrics(*maps, {"spleen": 1}, (1, 1, 1))[0]["dice"], nan_ok=True)


def test_case_without_the_label_is_left_out_of_its_mean() -> None:
    metrics = run(LabelDice(LABELS), [(hot(1, 1, 0, 0, 2, 2), hot(1, 1, 0, 0, 2, 2)), (hot(0, 0, 0, 0, 0, 0),) * 2])
    assert set(metrics.values()) == {1.0}


def test_region_is_a_union_of_channels() -> None:
    metrics = run(LabelDice({"both": [1, 2]}), [(hot(2, 1, 0, 0, 0, 0), hot(1, 2, 0, 0, 0, 0))])
    assert metrics == {"val_dice_both": 1.0, "val_mean_dice": 1.0}


def test_batched_meta_tensors_and_prefix() -> None:
    batch = MetaTensor(torch.stack([hot(1, 1, 0, 0, 2, 2)] * 2))
    engine = Engine(lambda _, items: items)
    LabelDice(LABELS, prefix="train_dice").attach(engine, "mean")
    metrics = engine.run([(batch, batch)]).metrics
    assert metrics == {"train_dice_spleen": 1.0, "train_dice_right kidney": 1.0, "mean": 1.0}


def test_details_hold_every_case() -> None:
    engine = Engine(lambda _, items: items)
    LabelDice(LABELS).attach(engine, "val_mean_dice")
    state = engine.run([([hot(1, 0, 0, 0, 0, 2)], [hot(1, 0, 0, 0, 0, 2)])] * 3)
    assert state.metric_details["val_mean_dice"].shape == (3, 2)


def test_second_run_starts_afresh() -> None:
    engine = Engine(lambda _, items: items)
    LabelDice(LABELS).attach(engine, "val_mean_dice")
    engine.run([([hot(0, 0, 0, 0, 0, 0)], [hot(1, 1, 0, 0, 2, 2)])])
    assert set(engine.run([([hot(1, 1, 0, 0, 2, 2)],) * 2]).metrics.values()) == {1.0}


def test_in_a_config_of_an_evaluator(tmp_path: Path) -> None:
    config = {
        "labels": LABELS,
        "metric": {
            "_target_": "medcontext.metrics.LabelDice",
            "labels": "@labels",
            "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
        },
        "imports": ["$import monai"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "config.json"))
    label = torch.randint(0, 3, (1, 8, 8, 8))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([{"image": label.float(), "label": label}] * 2), batch_size=1),
        network=torch.nn.Identity(),
        postprocessing=AsDiscreted(keys=["pred", "label"], to_onehot=3),
        key_val_metric={"val_mean_dice": parser.get_parsed_content("metric")},
    )
    evaluator.run()
    assert evaluator.state.metrics == {"val_mean_dice": 1.0, "val_dice_spleen": 1.0, "val_dice_right kidney": 1.0}


def test_name_must_not_be_a_results_name() -> None:
    with pytest.raises(ValueError, match=r"must differ from its results' names.*Attach it as 'val_mean_dice'"):
        LabelDice(LABELS).attach(Engine(lambda _, items: items), "val_dice_spleen")


def test_needs_enough_channels() -> None:
    with pytest.raises(ValueError, match=r"at least 3 channels, got 2 on axis 0.*to_onehot"):
        LabelDice(LABELS).update(([hot(0, 1, 0, 0, 0, 1, classes=2)],) * 2)


def test_needs_a_pair() -> None:
    with pytest.raises(ValueError, match="must be a pair .* got 3 items"):
        LabelDice(LABELS).update(([], [], []))


@pytest.mark.slow
def test_processes_share_the_cases(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(dice_share, (str(tmp_path),), nprocs=2)
    shares = [json.loads((tmp_path / f"metrics{rank}.json").read_text()) for rank in (0, 1)]
    assert shares == [{"val_dice_organ": pytest.approx(2 / 3), "val_mean_dice": pytest.approx(2 / 3)}] * 2


def test_a_label_map_is_as_good_as_its_channels() -> None:
    pred, label = hot(1, 1, 0, 2, 2, 0), hot(1, 0, 1, 2, 0, 0)
    maps = label.argmax(0, keepdim=True).float()
    assert run(LabelDice(LABELS), [(pred, maps)]) == run(LabelDice(LABELS), [(pred, label)])


def test_what_nobody_annotated_does_not_count() -> None:
    unannotated = [[1, 2], [2]]  # -1 ignored, -2 perhaps a kidney
    ids = [torch.tensor(ids).reshape(1, 6, 1, 1) for ids in ((1, 0, -1, -1, 2, 0), (1, -2, -2, -2, -1, -2))]
    pred = hot(1, 0, 1, 2, 2, 1)
    labels = {**LABELS, "both": [1, 2]}
    metrics = run(LabelDice(labels, unannotated=unannotated), [(pred, label) for label in ids])
    # the second case: one voxel of the spleen, of three predicted; its kidney is not annotated, so neither are both
    assert metrics["val_dice_spleen"] == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert metrics["val_dice_right kidney"] == 1
    assert metrics["val_dice_both"] == pytest.approx(4 / 5)
    for label, missing in zip(ids, ([], [2]), strict=True):
        rows = case_metrics(pred.argmax(0), label, LABELS, (1, 1, 1), unannotated=missing)
        single = run(LabelDice(LABELS, unannotated=unannotated), [(pred, label)])
        assert [single[f"val_dice_{name}"] for name in LABELS] == pytest.approx(
            [row["dice"] for row in rows], nan_ok=True
        )
