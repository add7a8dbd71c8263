from __future__ import annotations

import pytest

from medcontext.tracking.presentation import chart_name, describe_run


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_dice_left kidney", "test_dice/left kidney"),
        ("val_dice_tumor_core", "val_dice/tumor_core"),
        ("val_dice_tumor_core_ema", "val_dice_ema/tumor_core"),
        ("test_paper_hd95_liver", "test_paper_hd95/liver"),
        ("test_surface_dice_liver", "test_surface_dice/liver"),
        ("test_missed_liver", "test_missed/liver"),
        ("val_mean_dice_ema", "dice/val_mean_dice_ema"),
        ("test_paper_mean_dice", "dice/test_paper_mean_dice"),
        *((name, name) for name in ("test_missed", "test_paper_mean_hd95", "train_loss_context")),
    ],
)
def test_charts_of_labels_have_sections(name: str, expected: str) -> None:
    assert chart_name(name) == expected


def test_a_description_says_what_is_known() -> None:
    tags = {"medcontext.bundle": "medcontext_unetr", "medcontext.mode": "baseline", "medcontext.dataset": "btcv"}
    tags |= {"medcontext.seed": 3, "other": 1}
    metrics = {"dice/val_mean_dice": 0.5, "dice/val_mean_dice_ema": 0.25, "dice/test_mean_dice": 0.75}
    assert describe_run(tags, {"training": 3, "test": 2}, metrics, "/runs/one/evaluation") == (
        "**medcontext_unetr**, mode `baseline`, on btcv (3 training, 2 test cases), seed 3.\n\n"
        "Mean Dice: validation 0.500, validation (average weights) 0.250, test 0.750.\n\n"
        "Report: `evaluation/report.html` under Artifacts, and `/runs/one/evaluation`."
    )
    assert describe_run({}, {}, {}) == "**Network**, mode `unknown`."
