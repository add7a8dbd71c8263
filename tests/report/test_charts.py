from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from drawn import legend, pixels
from medcontext.report import curves_figure, metrics_boxplot, read_history

NAN = math.nan
METRICS = pd.DataFrame(
    [
        (f"case{i}", name, dice, 10 * (1 - dice) if dice else NAN, dice == 0, False)
        for i in range(5)
        for name, dice in (("liver", 0.9), ("a_b", 0.1 * i))
    ],
    columns=["case", "label", "dice", "hd95_mm", "missed", "spurious"],
)


def points(axis: Axes) -> list[list[float]]:
    """What lies across the axis: for each label the hits, the missed and the spurious."""
    return [[round(float(x), 6) for x in np.asarray(group.get_offsets())[:, 0]] for group in axis.collections]


def test_boxplot_has_a_row_per_label_and_marks_the_missed() -> None:
    figure = metrics_boxplot(METRICS)
    (axis,) = figure.axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["liver", "a b"]
    assert axis.get_xlabel() == "Dice"
    assert points(axis) == [[0.9] * 5, [], [], [0.1, 0.2, 0.3, 0.4], [0.0], []]
    assert legend(figure) == ["missed"]
    assert pixels(figure).shape[1] > 600


def test_distances_of_what_was_missed_lie_beyond_the_scale() -> None:
    figure = metrics_boxplot(METRICS, "hd95_mm")
    (axis,) = figure.axes
    assert axis.get_xlabel() == "HD95 (mm)"
    assert axis.get_xscale() == "symlog"
    hits, missed = points(axis)[3:5]
    assert hits == [9.0, 8.0, 7.0, 6.0]
    (beyond,) = missed
    assert 9.0 < beyond < axis.get_xlim()[1]
    ticks = dict(zip([tick.get_text() for tick in axis.get_xticklabels()], axis.get_xticks(), strict=True))
    assert ticks.pop("none") == beyond
    assert ticks == {"0": 0, "1": 1, "3": 3}
    assert legend(figure) == ["missed"]
    pixels(figure)


def test_distances_without_failures_need_no_place_beyond() -> None:
    metrics = METRICS[~METRICS["missed"]].assign(hd95_mm=lambda table: 40 * table["hd95_mm"])
    (axis,) = metrics_boxplot(metrics, "hd95_mm").axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "1", "3", "10", "30", "100"]
    assert axis.get_xlim()[1] == pytest.approx(1.15 * 360)


@pytest.mark.parametrize("column", ["dice", "hd95_mm"])
def test_boxplot_of_one_case_and_of_a_label_in_no_case(column: str) -> None:
    metrics = METRICS.iloc[:2].assign(dice=[0.5, NAN], hd95_mm=[3.0, NAN], missed=False)
    figure = metrics_boxplot(metrics, column)
    assert "in no case" in [text.get_text() for text in figure.axes[0].texts]
    assert legend(figure) == []
    pixels(figure)


def test_boxplot_of_a_label_that_was_always_missed() -> None:
    metrics = METRICS[METRICS["label"] == "liver"].assign(dice=0.0, hd95_mm=NAN, missed=True)
    figure = metrics_boxplot(metrics, "hd95_mm")
    assert len(points(figure.axes[0])[1]) == 5
    pixels(figure)


def test_boxplot_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        metrics_boxplot(METRICS.iloc[:0])
    with pytest.raises(ValueError, match=r"column must be one of 'dice', .*, got 'volume'"):
        metrics_boxplot(METRICS, "volume")


def history(epochs: int = 6) -> pd.DataFrame:
    steps = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": steps,
            "train_loss": 1 / steps,
            "train_loss_context": 0.5 / steps,
            "val_mean_dice": np.where(steps % 2 == 0, 0.1 * steps, np.nan),
            "val_dice_left_kidney": np.where(steps % 2 == 0, 0.05 * steps, np.nan),
            "learning_rate": 1e-4,
        }
    )


def test_curves_of_losses_and_dice() -> None:
    losses, dice = curves_figure(history()).axes
    assert [line.get_label() for line in losses.lines] == ["total", "context"]
    assert [line.get_label() for line in dice.lines] == ["mean", "left kidney"]
    assert list(dice.lines[0].get_xdata()) == [2, 4, 6]  # validated every other epoch
    assert (losses.get_ylabel(), dice.get_ylabel()) == ("loss", "validation Dice")


def test_curves_of_one_kind_and_an_index_of_epochs() -> None:
    (axis,) = curves_figure(history().set_index("epoch")[["train_loss"]]).axes
    assert axis.get_ylabel() == "loss"
    assert list(axis.lines[0].get_xdata()) == [1, 2, 3, 4, 5, 6]


def test_thousands_of_epochs_are_drawn_as_means() -> None:
    """5000 losses by 25, and 250 validations by 2."""
    table = history(5000)
    table["train_loss"] = table["epoch"] % 25  # each 25 of them hold 0 to 24 once
    table["val_mean_dice"] = np.where(table["epoch"] % 20 == 0, 0.5, np.nan)
    losses, dice = curves_figure(table[["epoch", "train_loss", "val_mean_dice"]]).axes
    assert (losses.get_ylabel(), dice.get_ylabel()) == ("loss (means of 25)", "validation Dice (means of 2)")
    np.testing.assert_allclose(losses.lines[0].get_ydata(), [12.0] * 200)
    assert list(losses.lines[0].get_xdata()[:2]) == [13, 38]
    assert list(dice.lines[0].get_xdata()[:2]) == [30, 70]


def test_curves_of_one_epoch_are_points() -> None:
    figure = curves_figure(history(2)[1:])
    assert [list(axis.lines[0].get_xdata()) for axis in figure.axes] == [[2], [2]]
    assert list(figure.axes[1].get_xticks()) == [1, 2, 3]  # no fractions of epochs
    assert {line.get_marker() for axis in figure.axes for line in axis.lines} == {"o"}
    pixels(figure)


def test_curves_need_a_known_column() -> None:
    with pytest.raises(ValueError, match=r"history must have columns .* got \['learning_rate'\]"):
        curves_figure(history()[["epoch", "learning_rate"]])


def test_history_is_read(tmp_path: Path) -> None:
    history().to_csv(tmp_path / "history.csv", index=False)
    table = read_history(tmp_path / "history.csv")
    assert table is not None
    pd.testing.assert_frame_equal(table, history())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, False),
        ("", True),
        ('"half a', True),
        ("epoch,learning_rate\n1,0.1\n", False),
        ("train_loss\n1\n", False),
        ("epoch,train_loss\n1,\n", False),
        ("epoch,train_loss\n1,low\n", False),
    ],
)
def test_no_history(tmp_path: Path, content: str | None, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    if content is not None:
        (tmp_path / "history.csv").write_text(content)
    assert read_history(tmp_path / "history.csv") is None
    assert ("holds no history" in caplog.text) == told


def test_no_pyplot() -> None:
    for figure in (metrics_boxplot(METRICS), curves_figure(history())):
        pixels(figure)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
