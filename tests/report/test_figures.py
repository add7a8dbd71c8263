from __future__ import annotations

import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from drawn import legend, pixels
from medcontext.report import (
    draw_planes,
    label_colours,
    label_planes,
    overlay_figure,
)
from medcontext.report.figures import label_text
from torso import LABELS, SPACING, case


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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("left_kidney", "left kidney"),
        ("$x$", r"\$x\$"),
        ("two\nlines", "two lines"),
        ("a" * 26, "a" * 26),
        ("b" * 27, "b" * 25 + "…"),
    ],
)
def test_labels_as_text_of_a_figure(name: str, text: str) -> None:
    assert label_text(name) == text


def test_no_pyplot() -> None:
    pixels(overlay_figure(*case(1), LABELS, spacing=SPACING))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
