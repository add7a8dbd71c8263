from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medcontext.report import preview_figure
from torso import LABELS, SPACING, case


def row(seed: int = 0, predictions: bool = False) -> dict[str, torch.Tensor]:
    image, label, prediction = (torch.as_tensor(np.ascontiguousarray(array))[None] for array in case(seed))
    mask = torch.zeros_like(image)
    mask[:, 8:24, 8:24, 16] = 1
    crop = {"image": image, "label": label, "context_mask": mask, "masked_image": image * (1 - mask)}
    if predictions:
        logits = torch.nn.functional.one_hot(prediction[0].long(), 4).permute(3, 0, 1, 2).float()
        crop |= {"masked_pred": logits, "teacher_pred": logits}
    return crop


def titles(figure: Any) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_columns_without_predictions() -> None:
    figure = preview_figure([row(), row(1)], LABELS, spacing=SPACING, titles=["one", "two"], title="crops")
    assert titles(figure) == ["image", "label", "dropped", "masked image"]
    assert len(figure.axes) == 8
    assert [figure.axes[i].get_ylabel() for i in (0, 4)] == ["one", "two"]


def test_predictions_get_columns_even_if_one_row_lacks_them() -> None:
    figure = preview_figure([row(predictions=True), row(1)], LABELS, spacing=SPACING)
    assert titles(figure)[4:] == ["student\n(masked image)", "teacher\n(masked image)"]
    assert [axis.axison for axis in figure.axes[6:]] == [True] * 4 + [False] * 2


def test_columns_can_be_chosen() -> None:
    crop = row()
    crop = {"image": crop["image"], "label": crop["label"], "pred": torch.zeros_like(crop["label"])}
    figure = preview_figure(
        [crop], LABELS, spacing=SPACING, headings={"image": "crop", "pred": "network", "label": "x"}
    )
    assert titles(figure) == ["crop", "network", "x"]
    crop_shown, network_shown = (np.asarray(figure.axes[i].images[0].get_array()) for i in (0, 1))
    np.testing.assert_array_equal(network_shown, crop_shown)
    assert "dropped" not in [text.get_text() for text in figure.legends[0].texts]


def test_slice_has_most_of_the_mask() -> None:
    figure = preview_figure([row()], LABELS, spacing=SPACING)
    tint = np.asarray(figure.axes[2].images[1].get_array())
    assert np.count_nonzero(tint[..., 3]) == 16 * 16
    rows, columns = np.nonzero(tint[..., 3])
    # x from 8 to 23 of 48 and y from 8 to 23 of 40, both running to the top left
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40 - 24, 40 - 9, 48 - 24, 48 - 9)


def test_without_a_mask_the_label_chooses() -> None:
    crop = row()
    crop["context_mask"] = torch.zeros_like(crop["image"])
    shown = preview_figure([crop], LABELS, spacing=SPACING).axes[1].images[1].get_array()
    label = np.asarray(crop["label"][0])
    assert np.count_nonzero(np.asarray(shown)[..., 3]) == np.count_nonzero(label, axis=(0, 1)).max()


def test_depth_first_arrays_look_the_same() -> None:
    ras = row()
    # SPL: S, P and L are the third axis, the second reversed and the first reversed
    spl = {key: value.permute(0, 3, 2, 1).flip(2, 3) for key, value in ras.items()}
    first = preview_figure([ras], LABELS, spacing=SPACING)
    second = preview_figure([spl], LABELS, spacing=SPACING[::-1], orientation="SPL")
    for a, b in zip(first.axes, second.axes, strict=True):
        assert a.get_aspect() == b.get_aspect()
        np.testing.assert_array_equal(np.asarray(a.images[0].get_array()), np.asarray(b.images[0].get_array()))


@pytest.mark.parametrize(("plane", "marks"), [("coronal", ["R", "L", "S", "I"]), ("sagittal", ["A", "P", "S", "I"])])
def test_other_planes(plane: str, marks: list[str]) -> None:
    figure = preview_figure([row()], LABELS, spacing=SPACING, plane=plane)
    assert [text.get_text() for text in figure.axes[0].texts] == marks


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "at least one crop"),
        ([{"image": torch.zeros(1, 4, 4, 4)}], {}, r"a row must have label, context_mask, masked_image.*RandOrgan"),
        ([row()], {"plane": "oblique"}, "plane must be one of 'axial', 'coronal', 'sagittal'"),
        ([row()], {"titles": ["a", "b"]}, "titles must name each of the 1 rows, got 2"),
        ([row() | {"label": torch.zeros(1, 4, 4, 4)}], {}, "must have the same spatial shape, got image"),
    ],
)
def test_refuses_unusable_arguments(rows: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preview_figure(rows, LABELS, **options)
