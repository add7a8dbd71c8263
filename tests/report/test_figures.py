from __future__ import annotations

import io
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from medcontext.report import (
    curves_figure,
    draw_planes,
    label_colours,
    label_planes,
    metrics_boxplot,
    overlay_figure,
)
from torso import LABELS, SPACING, case


def pixels(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def test_overlay_shows_three_planes_of_truth_and_prediction() -> None:
    figure = overlay_figure(*case(2), LABELS, spacing=SPACING, title="img $1$")
    assert len(figure.axes) == 6
    assert [axis.get_title() for axis in figure.axes[:2]] == ["truth", "prediction (dotted: truth)"]
    assert [figure.axes[i].get_ylabel() for i in (0, 2, 4)] == ["axial", "coronal", "sagittal"]
    assert legend(figure) == ["liver", "spleen", "left kidney"]
    assert len(np.unique(pixels(figure).reshape(-1, 3), axis=0)) > 50


def test_overlay_marks_sides_and_keeps_proportions() -> None:
    figure = overlay_figure(*case(), LABELS, spacing=SPACING)
    assert [text.get_text() for text in figure.axes[0].texts] == ["R", "L", "A", "P"]
    assert [text.get_text() for text in figure.axes[4].texts] == ["A", "P", "S", "I"]
    assert [figure.axes[i].get_aspect() for i in (0, 2, 4)] == pytest.approx([1, 5 / 3, 5 / 3])


def test_right_sided_organ_is_drawn_on_the_left() -> None:
    image, label, _ = case()
    only_liver = np.where(label == LABELS["liver"], 1, 0)
    axial = label_planes(image, only_liver, only_liver, LABELS, spacing=SPACING, margin=None)[0]
    assert np.argwhere(axial.label)[:, 1].mean() < axial.label.shape[1] / 2


def test_legend_names_what_is_shown_only() -> None:
    image, label, _ = case()
    label = np.where(label == LABELS["spleen"], 2, 0)
    assert legend(overlay_figure(image, label, np.zeros_like(label), LABELS, spacing=SPACING)) == ["spleen"]


def test_later_region_is_drawn_over_the_earlier() -> None:
    regions = {"whole": [1, 2], "core": 2}
    image = np.zeros((20, 20, 20))
    label = np.zeros((20, 20, 20), dtype=np.uint8)
    label[4:16, 4:16, 4:16] = 1
    label[8:12, 8:12, 8:12] = 2
    figure = overlay_figure(image, label, label, regions, spacing=(1, 1, 1), margin=None)
    colours = label_colours(regions)
    overlay = np.asarray(figure.axes[0].images[1].get_array())
    np.testing.assert_allclose(overlay[5, 5, :3], to_rgb(colours["whole"]))
    np.testing.assert_allclose(overlay[10, 10, :3], to_rgb(colours["core"]))


def test_labels_without_voxels() -> None:
    image, label, _ = case()
    assert legend(overlay_figure(image, 0 * label, 0 * label, LABELS, spacing=SPACING)) == []


def test_no_planes() -> None:
    with pytest.raises(ValueError, match="planes must hold at least one slice"):
        draw_planes([], LABELS)


def test_colours_are_fixed_and_distinct() -> None:
    names = [f"label{i}" for i in range(16)]
    colours = label_colours(names)
    assert len(set(colours.values())) == 16
    assert label_colours(names[:3]) == {name: colours[name] for name in names[:3]}
    assert len(label_colours([f"label{i}" for i in range(40)])) == 40


METRICS = pd.DataFrame(
    [(f"case{i}", name, dice, dice == 0, False) for i in range(5) for name, dice in (("liver", 0.9), ("a_b", 0.1 * i))],
    columns=["case", "label", "dice", "missed", "spurious"],
)


def test_boxplot_has_a_row_per_label_and_marks_the_missed() -> None:
    figure = metrics_boxplot(METRICS)
    (axis,) = figure.axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["liver", "a b"]
    assert legend(figure) == ["missed"]
    assert pixels(figure).shape[1] > 600


def test_boxplot_of_one_case_and_of_a_label_in_no_case() -> None:
    metrics = METRICS.iloc[:2].assign(dice=[0.5, float("nan")], missed=False)
    figure = metrics_boxplot(metrics)
    assert "in no case" in [text.get_text() for text in figure.axes[0].texts]
    assert legend(figure) == []
    pixels(figure)


def test_boxplot_needs_rows() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        metrics_boxplot(METRICS.iloc[:0])


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


def test_curves_of_one_kind_and_an_index_of_epochs() -> None:
    (axis,) = curves_figure(history().set_index("epoch")[["train_loss"]]).axes
    assert axis.get_ylabel() == "loss"
    assert list(axis.lines[0].get_xdata()) == [1, 2, 3, 4, 5, 6]


def test_curves_need_a_known_column() -> None:
    with pytest.raises(ValueError, match=r"history must have columns .* got \['learning_rate'\]"):
        curves_figure(history()[["epoch", "learning_rate"]])


def test_no_pyplot() -> None:
    for figure in (metrics_boxplot(METRICS), overlay_figure(*case(1), LABELS, spacing=SPACING)):
        pixels(figure)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
