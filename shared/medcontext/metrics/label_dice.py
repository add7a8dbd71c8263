"""Validation Dice by label name, for a MONAI evaluator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler
from monai.metrics import DiceMetric

from medcontext.labels import IGNORED, Labels, label_ids, unannotated_ids

__all__ = ["LabelDice"]


class LabelDice(IgniteMetricHandler):
    """Mean Dice of every label, as ``engine.state.metrics["<prefix>_<label>"]``.

    It counts as :func:`medcontext.metrics.case_metrics` does, so that validation and test agree: a label that is
    missed, or predicted where there is none, scores 0; a label absent from both is not counted. (MONAI's ``DiceMetric``
    leaves out labels that are predicted where there is none.) Ignored voxels count in no label, and a label that is not
    annotated in a case is not counted there. A label that counts in no case is NaN and keeps its name,
    so the names are the same in every epoch.

    The average over the labels is stored under the name of the attached metric, which can be the key metric::

        "key_metric": {
            "val_mean_dice": {
                "_target_": "medcontext.metrics.LabelDice",
                "labels": "@labels",
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])"
            }
        }

    Across processes, MONAI's cumulative buffers gather the cases before they are averaged.

    Args:
        labels: foreground names with their channel in the one-hot tensors, or with several channels for a region.
        output_transform: returns ``(pred, label)`` from the engine's output, as
            ``monai.handlers.from_engine(["pred", "label"])`` does: lists with an entry for each case or tensors with a
            batch axis; the prediction one-hot (0 and 1), (C, *spatial), the label too, or a label map (1, *spatial).
        prefix: beginning of the results' names.
        save_details: keep the Dice of every case and label in ``engine.state.metric_details`` under the attached name.
        unannotated: what negative values of label maps stand for, from :func:`medcontext.data.unannotated_labels`.

    Raises:
        ValueError: If ``labels`` does not map names to ids above 0.

    Example:
        >>> one_hot = torch.zeros(1, 3, 4, 4, 4)
        >>> one_hot[:, 1, :2] = one_hot[:, 0, 2:] = 1  # spleen and background
        >>> evaluator = Engine(lambda engine, batch: (batch, batch))
        >>> LabelDice({"spleen": 1, "liver": 2}).attach(evaluator, "val_mean_dice")
        >>> evaluator.run([one_hot]).metrics
        {'val_dice_spleen': 1.0, 'val_dice_liver': nan, 'val_mean_dice': 1.0}
    """

    def __init__(
        self,
        labels: Labels,
        output_transform: Callable[[Any], Any] = lambda output: output,
        prefix: str = "val_dice",
        save_details: bool = True,
        unannotated: Sequence[Sequence[int]] = (),
    ) -> None:
        self.labels = label_ids(labels)
        self.prefix = prefix
        self.unannotated = unannotated
        metric_fn = _SpuriousCountsDice(include_background=True, reduction="none")
        super().__init__(metric_fn=metric_fn, output_transform=output_transform, save_details=save_details)

    def attach(self, engine: Engine, name: str) -> None:
        """Compute the metric in every epoch of ``engine``.

        Args:
            engine: evaluator whose output ``output_transform`` takes.
            name: key in ``engine.state.metric_details``.

        Raises:
            ValueError: If a result has this name too.
        """
        if name in self._result_names():
            raise ValueError(
                f"the metric's name must differ from its results' names, got {name!r}. Attach it as 'val_mean_dice'."
            )
        super().attach(engine, name)

    def update(self, output: Sequence[Any]) -> None:
        """Add the cases of one iteration.

        Args:
            output: ``(pred, label)``, see ``output_transform``.

        Raises:
            ValueError: If ``output`` is not a pair, or has too few channels for the labels.
        """
        if len(output) != 2:
            raise ValueError(f"output must be a pair (pred, label), got {len(output)} items. Set output_transform.")
        masks = [self._masks(*case) for case in zip(*output, strict=True)]
        super().update(tuple(map(list, zip(*masks, strict=True))))

    def compute(self) -> dict[str, float]:
        """Return the mean Dice of every label over the cases in which it counts, NaN where there is none."""
        dice = torch.as_tensor(super().compute()).reshape(-1, len(self.labels))  # MONAI squeezes, to a number if it can
        return dict(zip(self._result_names(), dice.nanmean(dim=0).tolist(), strict=True))

    def completed(self, engine: Engine, name: str) -> None:
        """Store the labels' results in ``engine.state.metrics``, and their average under ``name``."""
        super().completed(engine, name)
        values = torch.tensor([engine.state.metrics[label] for label in self._result_names()])
        engine.state.metrics[name] = values.nanmean().item()

    def _result_names(self) -> list[str]:
        return [f"{self.prefix}_{label}" for label in self.labels]

    def _masks(self, pred: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return boolean masks (labels, *spatial) of a prediction and a label, empty where a label does not count."""
        predicted = self._label_masks(pred)
        if len(label) > 1:
            return predicted, self._label_masks(label)
        label = label.as_tensor() if isinstance(label, MetaTensor) else label
        true = torch.stack([torch.isin(label[0], label.new_tensor(ids)) for ids in self.labels.values()])
        if self.unannotated:
            left_out = set(unannotated_ids(float(label.min()), self.unannotated))
            counts = torch.tensor([not left_out & set(ids) for ids in self.labels.values()], device=label.device)
            counts = counts.view(-1, *[1] * (label.ndim - 1))
            predicted, true = predicted & counts & (label != IGNORED), true & counts
        return predicted, true

    def _label_masks(self, one_hot: torch.Tensor) -> torch.Tensor:
        """Return boolean masks of the labels, (labels, *spatial), from one-hot (C, *spatial)."""
        needed = max(max(ids) for ids in self.labels.values()) + 1
        if one_hot.shape[0] < needed:
            raise ValueError(
                f"prediction and label must be one-hot with at least {needed} channels, got {one_hot.shape[0]} on axis "
                "0. Put monai.transforms.AsDiscreted with to_onehot on both keys into the postprocessing."
            )
        if isinstance(one_hot, MetaTensor):
            one_hot = one_hot.as_tensor()
        return torch.stack([one_hot[list(ids)].bool().any(dim=0) for ids in self.labels.values()])


class _SpuriousCountsDice(DiceMetric):
    """Dice that is 0, not NaN, where something is predicted and nothing is there."""

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        dice = super()._compute_tensor(y_pred, y)
        return dice.masked_fill(dice.isnan() & y_pred.flatten(2).any(dim=2), 0.0)
