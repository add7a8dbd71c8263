from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medcontext.handlers import PreviewFigure, preview_figure
from tiny import trainer

LABELS = {"liver": 1, "spleen": 2}


def handler(folder: Path, **kwargs: Any) -> PreviewFigure:
    return PreviewFigure(str(folder / "previews"), LABELS, spacing=(1.0, 1.0, 1.0), **kwargs)


@pytest.mark.parametrize(
    ("mode", "passes", "headings"),
    [
        (
            "medcontext",
            "separate",
            ["image", "label", "dropped", "masked image", "student\n(masked image)", "teacher\n(whole image)"],
        ),
        ("medcontext", "single", ["image", "label", "dropped", "masked image", "network\n(masked image)"]),
        ("masking_only", "single", ["image", "label", "dropped", "masked image", "network\n(masked image)"]),
        ("baseline", "single", ["image", "label", "network"]),
    ],
)
def test_what_is_drawn_in_each_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, passes: str, headings: list[str]
) -> None:
    drawn: list[Any] = []
    draw = preview_figure.preview_figure

    def kept(rows: Any, *args: Any, **kwargs: Any) -> Any:
        drawn.append((rows, draw(rows, *args, **kwargs)))
        return drawn[-1][1]

    monkeypatch.setattr(preview_figure, "preview_figure", kept)
    engine = trainer(mode=mode, passes=passes, train_handlers=[handler(tmp_path, num_crops=1)])
    engine.run()
    ((rows, figure),) = drawn
    assert [axis.get_title() for axis in figure.axes] == headings
    output = engine.state.output[0]
    expected = {"pred": output["pred"]} if mode == "baseline" else {"masked_pred": output["pred"]}
    if passes == "separate":
        expected = {"masked_pred": output["masked_pred"], "pred": output["teacher_pred"]}
    assert len(rows) == 1
    assert {key for key in rows[0] if "pred" in key} == expected.keys()
    for key, logits in expected.items():
        torch.testing.assert_close(rows[0][key], logits.argmax(0, keepdim=True))
    if mode != "baseline":
        torch.testing.assert_close(rows[0]["masked_image"], output["image"] * (1 - rows[0]["context_mask"]))


def test_pictures_come_at_intervals_and_at_the_end(tmp_path: Path) -> None:
    trainer(epochs=5, train_handlers=[handler(tmp_path, interval=2, log_dir=str(tmp_path / "tensorboard"))]).run()
    names = [f"epoch_{epoch:04}.png" for epoch in (2, 4, 5)]
    assert sorted(path.name for path in (tmp_path / "previews").iterdir()) == names
    assert imread(tmp_path / "previews" / names[0]).std() > 0.05
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [image.step for image in events.Images("preview")] == [8, 16, 20]


def test_a_picture_that_cannot_be_drawn_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "previews").write_text("a file where the folder should be")
    engine = trainer(epochs=2, train_handlers=[handler(tmp_path)])
    engine.run()
    assert engine.state.epoch == 2
    assert "The preview of epoch 1 could not be drawn" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"interval": 0}, "preview_interval must be 1 or more, got 0"), ({"num_crops": 0}, "num_crops must .* got 0")],
)
def test_refuses_unusable_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        handler(tmp_path, **arguments)
