"""MONAI's crops around annotated voxels, for label maps with negative values where nobody annotated."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import ClassesToIndicesd, RandCropByPosNegLabeld
from torch import Tensor

from medcontext.labels import IGNORED

__all__ = ["AnnotatedClassesToIndicesd", "RandCropByAnnotatedPosNegd"]


class AnnotatedClassesToIndicesd(ClassesToIndicesd):
    """MONAI's ``ClassesToIndicesd``; ignored voxels are of no class, and background that may be more is background.

    Args:
        kwargs: as for MONAI's transform.

    Example:
        >>> import torch
        >>> to_indices = AnnotatedClassesToIndicesd("label", num_classes=2)
        >>> [found.tolist() for found in to_indices({"label": torch.tensor([[-1, 0, 1, -2]])})["label_cls_indices"]]
        [[1, 3], [2]]
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the indices of each class."""
        plain = {key: data[key].masked_fill(data[key] < IGNORED, 0) for key in self.key_iterator(dict(data))}
        return {**super().__call__({**data, **plain}), **{key: data[key] for key in plain}}


class RandCropByAnnotatedPosNegd(RandCropByPosNegLabeld):
    """MONAI's ``RandCropByPosNegLabeld``, for which whatever is not annotated is background.

    Args:
        kwargs: as for MONAI's transform.

    Example:
        >>> from monai.data import MetaTensor
        >>> crop = RandCropByAnnotatedPosNegd("label", label_key="label", spatial_size=[1], neg=0, num_samples=3)
        >>> [one["label"].item() for one in crop({"label": MetaTensor([[-1.0, 0.0, 2.0, -2.0]])})]
        [2.0, 2.0, 2.0]
    """

    def randomize(self, label: Tensor | None = None, *args: Any, **kwargs: Any) -> None:
        """Draw the centres of crops, see MONAI's transform."""
        super().randomize(None if label is None else label.clamp_min(0), *args, **kwargs)
