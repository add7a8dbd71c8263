"""Draw the method for the documents, around the slice of a generated case.

python ci/draw_method.py --output shared/docs/method.png
"""

from __future__ import annotations

from collections.abc import Mapping

import fire
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage

from medcontext.data import btcv_labels
from medcontext.phantoms.cohort import PHANTOM_DATASETS
from medcontext.report.figures import draw_labels, show_slice
from medcontext.report.planes import take_plane, to_grey
from medcontext.transforms import RandOrganDropout

Array = npt.NDArray[np.generic]

WIDTH, HEIGHT = 100.0, 46.0
SIDE = 18.0  # of a picture
TEACHER, MASKED, SEGMENTED, WHOLE = 41.0, 23.0, 14.0, 4.5  # heights of the rows
SOFT_TISSUE = (-160.0, 260.0)  # HU
CELL = 6
DROPPED = (1, 2, 7)  # spleen, right kidney, stomach, and as many cells elsewhere
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"


def slices(seed: int) -> tuple[Array, Array, Array]:
    """Grey values, the same with organs dropped, and label ids of an axial slice (rows, columns)."""
    btcv = PHANTOM_DATASETS["btcv"]
    phantom = btcv.make(seed, "0001", btcv.size, btcv.spacing)
    grey = to_grey(phantom.image, *SOFT_TISSUE)
    drop = RandOrganDropout(cell_size=CELL, organs=DROPPED, num_organs=len(DROPPED), extent="organ", fill="zero")
    drop.set_random_state(seed)
    masked, _ = drop(grey[None], phantom.label[None])
    index = int((phantom.label > 0).sum(axis=(0, 1)).argmax())
    shown = [take_plane(np.asarray(volume), "axial", index) for volume in (grey, masked[0], phantom.label)]
    body = ndimage.find_objects((shown[0] > 0).astype(int))[0]
    return shown[0][body], shown[1][body], shown[2][body]


def draw(seed: int = 0) -> Figure:
    """The figure: both networks, what they see, and the three terms of the loss."""
    figure = Figure(figsize=(10, 10 * HEIGHT / WIDTH), dpi=150)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axis.set_axis_off()
    grey, masked, label = slices(seed)
    _picture(figure, (10, MASKED), grey, "image $x$")
    _picture(figure, (34, MASKED), masked, r"organs dropped: $\tilde{x}$")
    _picture(figure, (90, (WHOLE + SEGMENTED) / 2), grey, "label $y$", label)
    _box(axis, (52, TEACHER), "teacher $T$\nweights $\\theta'$", GREY)
    for y in (MASKED, WHOLE):
        _box(axis, (52, y), "student $S$\nweights $\\theta$", BLUE)
    for y in (TEACHER, WHOLE):
        _arrow(axis, [(10, MASKED), (10, y), (46.5, y)])
    _arrow(axis, [(19.5, MASKED), (25, MASKED)])
    _arrow(axis, [(43, MASKED), (46.5, MASKED)])
    _losses(axis)
    _weights(axis)
    return figure


def _losses(axis: Axes) -> None:
    _box(axis, (73, 32), r"$\beta \cdot L_\mathrm{cons}(t, \tilde{p})$", ORANGE)
    _box(axis, (73, SEGMENTED), r"$w \cdot L_\mathrm{seg}(\tilde{p}, y)$", ORANGE)
    _box(axis, (73, WHOLE), r"$L_\mathrm{seg}(p, y)$", ORANGE)
    _arrow(axis, [(57.5, TEACHER), (73, TEACHER), (73, 34.3)], "$t$")
    _arrow(axis, [(57.5, MASKED), (73, MASKED), (73, 29.7)], r"$\tilde{p}$")
    _arrow(axis, [(73, MASKED), (73, SEGMENTED + 2.3)])
    _arrow(axis, [(57.5, WHOLE), (68.3, WHOLE)], "$p$")
    _arrow(axis, [(81, SEGMENTED), (78.8, SEGMENTED)])
    _arrow(axis, [(81, WHOLE), (77.7, WHOLE)])


def _weights(axis: Axes) -> None:
    style = {"color": GREY, "linestyle": "dashed", "linewidth": 1.2}
    axis.annotate("", (52, TEACHER - 3.2), (52, MASKED + 3.2), arrowprops={"arrowstyle": "->", **style})
    axis.text(53, 32, "after each step\n$\\theta' \\leftarrow m\\,\\theta' + (1-m)\\,\\theta$", va="center", color=GREY)
    axis.plot([52, 52], [WHOLE + 2.8, MASKED - 2.8], **style)
    axis.text(53, 13.5, "the same\nnetwork", va="center", color=GREY)


def _picture(figure: Figure, centre: tuple[float, float], grey: Array, title: str, label: Array | None = None) -> None:
    x, y = centre
    tall = SIDE * grey.shape[0] / grey.shape[1]
    panel = figure.add_axes(((x - SIDE / 2) / WIDTH, (y - tall / 2) / HEIGHT, SIDE / WIDTH, tall / HEIGHT), zorder=2)
    show_slice(panel, grey, (1.0, 1.0))
    if label is not None:
        draw_labels(panel, label, btcv_labels(13))
    style = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    panel.set_title(title, fontsize=11, bbox=style)


def _box(axis: Axes, centre: tuple[float, float], text: str, colour: str) -> None:
    style = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colour, "linewidth": 1.8}
    axis.text(*centre, text, ha="center", va="center", fontsize=11, bbox=style, zorder=3)


def _arrow(axis: Axes, points: list[tuple[float, float]], name: str = "") -> None:
    """A line through points that ends in an arrow head, with a name above its beginning."""
    style: Mapping[str, object] = {"color": "black", "linewidth": 1.2}
    xs, ys = zip(*points[:-1], strict=True)
    axis.plot(xs, ys, **style)
    axis.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **style})
    if name:
        axis.text(points[0][0] + 1.5, points[0][1] + 0.8, name, fontsize=12)


def main(output: str = "method.png", seed: int = 0) -> None:
    """Write the figure.

    Args:
        output: the PNG to write.
        seed: of the generated case and of what is dropped.
    """
    draw(seed).savefig(output)
    print(output)


if __name__ == "__main__":
    fire.Fire(main)
