from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from medcontext.report import label_colours, prediction_figure
from torso import LABELS, SPACING, case


def test_three_planes_to_one_scale_with_the_outlines_of_what_is_there() -> None:
    image, label, _ = case()
    shown = np.where(label == LABELS["left_kidney"], 0, label)
    figure = prediction_figure(image, shown, LABELS, spacing=SPACING, title="img $1$", margin=None)
    assert [axis.get_title() for axis in figure.axes] == ["axial", "coronal", "sagittal"]
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [
        list("RLAP"),
        list("RLSI"),
        list("APSI"),
    ]
    assert [axis.get_aspect() for axis in figure.axes] == pytest.approx([1, 5 / 3, 5 / 3])
    assert [text.get_text() for box in figure.legends for text in box.get_texts()] == ["liver", "spleen"]
    colours = label_colours(LABELS)
    lines = {to_hex(line.get_edgecolor()[0]) for line in figure.axes[0].collections}
    assert lines <= {colours["liver"].lower(), colours["spleen"].lower()}
    assert colours["liver"].lower() in lines
    figure.draw_without_rendering()
    # 48 × 40 × 24 voxels of 3 × 3 × 5 mm: 144 mm from right to left in two planes, 120 mm from front to back in one
    widths = [axis.get_window_extent().width for axis in figure.axes]
    assert widths[0] == pytest.approx(widths[1], rel=0.02)
    assert widths[2] / widths[0] == pytest.approx(120 / 144, rel=0.02)


def test_nothing_predicted() -> None:
    image, label, _ = case()
    figure = prediction_figure(image, np.zeros_like(label), LABELS, spacing=SPACING)
    assert not figure.legends
    assert not any(axis.collections for axis in figure.axes)
