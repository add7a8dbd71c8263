from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from bundle_runs import ROOT
from draw_method import DROPPED, draw, main, slices


def test_organs_are_dropped_from_the_slice_with_most_of_them() -> None:
    grey, masked, label = slices(seed=0)
    assert grey.shape == masked.shape == label.shape
    kept = masked == grey
    shown = [organ for organ in DROPPED if (label == organ).any()]
    assert shown
    assert all(np.all(masked[label == organ] == 0) for organ in shown)
    assert np.mean(kept[grey > 0]) > 0.4
    assert np.any(~kept & ~np.isin(label, DROPPED))  # coarser than the organs


def test_the_figure_shows_networks_and_terms() -> None:
    figure = draw()
    words = "\n".join(text.get_text() for axis in figure.axes for text in axis.texts)
    for term in ("teacher", "student", "L_\\mathrm{cons}", "L_\\mathrm{seg}(p, y)", "L_\\mathrm{seg}(\\tilde{p}, y)"):
        assert term in words
    assert [axis.get_title() for axis in figure.axes[1:]] == ["image $x$", r"organs dropped: $\tilde{x}$", "label $y$"]
    grey, masked, _ = slices(seed=0)
    for axis, image in zip(figure.axes[1:], (grey, masked, grey), strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), image)


def test_the_documents_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(output=str(tmp_path / "method.png"))
    assert capsys.readouterr().out == f"{tmp_path / 'method.png'}\n"
    drawn = matplotlib.image.imread(tmp_path / "method.png")
    kept = matplotlib.image.imread(ROOT / "shared" / "docs" / "method.png")
    assert kept.shape == drawn.shape
    panels = np.abs(kept - drawn)[250:440, :660]  # image and masked image, without the words, whose fonts may differ
    assert panels.mean() < 0.01
