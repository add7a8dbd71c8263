"""Pictures of training crops with the predictions of the networks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Events
from matplotlib.image import imread
from monai.utils import CommonKeys
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from medcontext.engines.trainer import MedContextTrainer
from medcontext.keys import MedContextKeys
from medcontext.labels import Labels
from medcontext.report import preview_figure

__all__ = ["PreviewFigure"]

logger = logging.getLogger(__name__)

_DROPPED = {
    CommonKeys.IMAGE: "image",
    CommonKeys.LABEL: "label",
    MedContextKeys.CONTEXT_MASK: "dropped",
    MedContextKeys.MASKED_IMAGE: "masked image",
}
_WHOLE = {CommonKeys.IMAGE: "image", CommonKeys.LABEL: "label", CommonKeys.PRED: "network"}
_ONE_PASS = {**_DROPPED, MedContextKeys.MASKED_PRED: "network\n(masked image)"}
_TWO_PASSES = {
    **_DROPPED,
    MedContextKeys.MASKED_PRED: "student\n(masked image)",
    CommonKeys.PRED: "teacher\n(whole image)",
}


class PreviewFigure:
    """Draw some crops of the last step of an epoch, as ``epoch_0012.png``.

    Shown are image, label, dropped voxels, and the predictions of the step: the network's for its input or, in the
    two-pass forms, the student's for the masked image and the teacher's for the whole one.

    Args:
        output_dir: folder of the pictures.
        labels: foreground names with their id or ids.
        spacing: size of a voxel in mm along the arrays' axes.
        orientation: directions of the arrays' axes, such as ``"RAS"`` or ``"SPL"``.
        interval: number of epochs between two pictures; the last epoch is always drawn.
        num_crops: maximum number of crops in a picture.
        log_dir: folder of TensorBoard's files, to which the pictures are added.

    Raises:
        ValueError: If ``interval`` or ``num_crops`` is below 1.
    """

    def __init__(
        self,
        output_dir: str,
        labels: Labels,
        *,
        spacing: Sequence[float],
        orientation: str = "RAS",
        interval: int = 1,
        num_crops: int = 3,
        log_dir: str | None = None,
    ) -> None:
        for name, value in (("preview_interval", interval), ("num_crops", num_crops)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        self.output_dir = Path(output_dir)
        self.labels = labels
        self.spacing = tuple(spacing)
        self.orientation = orientation
        self.interval = interval
        self.num_crops = num_crops
        self.log_dir = log_dir

    def attach(self, engine: MedContextTrainer) -> None:
        """Subscribe to the end of steps."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: MedContextTrainer) -> None:
        """Draw crops if this is the last step of an epoch that is to be drawn."""
        epoch = engine.state.epoch
        due = epoch % self.interval == 0 or epoch == engine.state.max_epochs
        if not due or engine.state.iteration % engine.state.epoch_length:
            return
        try:
            self._draw(engine)
        except (OSError, ValueError) as error:  # a missing picture must not end training
            logger.warning("The preview of epoch %d could not be drawn: %s", epoch, error)

    def _draw(self, engine: MedContextTrainer) -> None:
        rows = [
            _row(*crop) for crop in list(zip(engine.state.batch, engine.state.output, strict=True))[: self.num_crops]
        ]
        masked = all(MedContextKeys.CONTEXT_MASK in row for row in rows)
        figure = preview_figure(
            rows,
            self.labels,
            spacing=self.spacing,
            orientation=self.orientation,
            title=f"epoch {engine.state.epoch}",
            headings=(_TWO_PASSES if CommonKeys.PRED in rows[0] else _ONE_PASS) if masked else _WHOLE,
        )
        self.output_dir.mkdir(parents=True, exist_ok=True)
        path = self.output_dir / f"epoch_{engine.state.epoch:04}.png"
        figure.savefig(path)
        if self.log_dir is not None:
            with SummaryWriter(self.log_dir) as writer:
                writer.add_image("preview", imread(path), engine.state.iteration, dataformats="HWC")


def _row(batch: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the volumes to draw of one crop, predictions as label maps, computed on their device."""
    row: dict[str, Tensor] = {}
    if MedContextKeys.MASKED_FRACTION in output:
        row |= {key: batch[key] for key in (MedContextKeys.MASKED_IMAGE, MedContextKeys.CONTEXT_MASK)}
    row |= {key: output[key] for key in (CommonKeys.IMAGE, CommonKeys.LABEL)}
    if MedContextKeys.MASKED_PRED in output:
        shown = {MedContextKeys.MASKED_PRED: output[MedContextKeys.MASKED_PRED]}
        if MedContextKeys.TEACHER_PRED in output:
            shown[CommonKeys.PRED] = output[MedContextKeys.TEACHER_PRED]
    else:
        shown = {
            MedContextKeys.MASKED_PRED if MedContextKeys.CONTEXT_MASK in row else CommonKeys.PRED: output[
                CommonKeys.PRED
            ]
        }
    return row | {key: prediction.argmax(dim=0, keepdim=True) for key, prediction in shown.items()}
