"""From a network's output to a label map in the geometry of the scan, without a volume of full size for each class."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Invertd, InvertibleTransform, MapTransform
from monai.utils import GridSamplePadMode, MetaKeys, TraceKeys, convert_to_numpy, ensure_tuple_rep
from torch import Tensor

from medcontext.scans.grids import GridMap, label_type, parallel_grids

__all__ = ["InvertToLabelMapd", "ScanProbabilities"]


class InvertToLabelMapd(MapTransform):
    r"""Turn logits into a label map in the geometry of the scan as it was loaded.

    The labels are those of MONAI's ``Activationsd(softmax=True)``, ``Invertd(nearest_interp=False)`` and
    ``AsDiscreted(argmax=True)`` one after the other, up to rounding where two classes are equally probable. These hold
    the probabilities of all classes at once, in the scan's geometry. Here they stay at the network's spacing. Where the
    scan was reoriented and resampled bilinearly, as the bundles do, slabs of the label map are interpolated from them
    on the device of the logits; after other spatial transforms, such as crops, each class is inverted by MONAI in turn.

    Args:
        keys: keys of the logits (C, \*spatial), on the grid of the transformed image.
        transform: the invertible transform that was applied to the image.
        orig_keys: key of the image, whose ``MetaTensor`` records what was applied.
        probabilities_key: key under which to add the probabilities in the scan's geometry, as
            :class:`ScanProbabilities`; ``None`` adds none.

    Raises:
        ValueError: If the transform is not invertible, or, when called, if logits and image differ in shape.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        orig_keys: KeysCollection = "image",
        probabilities_key: str | None = None,
    ) -> None:
        super().__init__(keys)
        if not isinstance(transform, InvertibleTransform):
            raise ValueError(f"transform must be invertible, such as a Compose, got {type(transform).__name__}.")
        self.transform = transform
        self.orig_keys = ensure_tuple_rep(orig_keys, len(self.keys))
        self.probabilities_key = probabilities_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with label maps (1, X, Y, Z) on the CPU, uint8, or int16 with more than 256 classes."""
        result = dict(data)
        for key, orig_key in self.key_iterator(result, self.orig_keys):
            scores = ScanProbabilities(result[key], result[orig_key], self.transform, orig_key)
            result[key] = scores.label_map()
            if self.probabilities_key is not None:
                result[self.probabilities_key] = scores
        return result


class ScanProbabilities:
    r"""Probabilities of a network's classes in the geometry of a scan, which are computed when they are asked for.

    Iterating yields those of one class after the other, (X, Y, Z) on the CPU in float32.

    Args:
        logits: logits (C, \*spatial) on the grid of the transformed image.
        image: the transformed image, with the record of what was applied.
        transform: what was applied.
        key: key of the image in it.

    Raises:
        ValueError: If logits and image differ in shape.
    """

    def __init__(self, logits: Tensor, image: MetaTensor, transform: InvertibleTransform, key: str = "image") -> None:
        if logits.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"the network returns {tuple(logits.shape[1:])} voxels for an image of {tuple(image.shape[1:])}; give "
                "a network whose output has the size of its input."
            )
        self.logits = logits.as_tensor() if isinstance(logits, MetaTensor) else logits
        self.transform, self.key = transform, key
        self.record = _record(image)
        self.affine, self.shape = _scan_grid(image)
        self.grid_map = _grid_map(image, self.shape, self.affine)

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.logits)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the probabilities (X, Y, Z) of each class."""
        for logits in self.logits:
            probability = (logits.float() - self._normaliser).exp()
            yield self._inverted(probability) if self.grid_map is None else self.grid_map(probability)

    def label_map(self) -> MetaTensor:
        """Return the most probable class in each voxel, (1, X, Y, Z), with the metadata of the scan."""
        labels = self._winners() if self.grid_map is None else self.grid_map.label_map(self.logits)
        meta = {key: value for key, value in self.record.meta.items() if key != MetaKeys.AFFINE}
        return MetaTensor(labels[None], affine=torch.as_tensor(self.affine, dtype=torch.float64), meta=meta)

    @cached_property
    def _normaliser(self) -> Tensor:
        """What to subtract from logits for log probabilities; class by class, as they may be of half precision."""
        total = self.logits[0].float()
        for logits in self.logits[1:]:
            total = torch.logaddexp(total, logits.float())
        return total

    def _winners(self) -> Tensor:
        highest = torch.zeros(self.shape)
        labels = torch.zeros(self.shape, dtype=label_type(len(self)))
        for index, probability in enumerate(self):
            labels.masked_fill_(probability > highest, index)
            torch.maximum(highest, probability, out=highest)
        return labels

    def _inverted(self, probability: Tensor) -> Tensor:
        """Return the probabilities of one class in the scan's geometry, by MONAI."""
        invert = Invertd("pred", self.transform, orig_keys=self.key, nearest_interp=False)
        inverted = invert({self.key: self.record, "pred": MetaTensor(probability[None].cpu())})["pred"]
        return inverted.as_tensor()[0]


def _record(image: MetaTensor) -> MetaTensor:
    """Return the metadata and the record of an image without its voxels."""
    record: MetaTensor = MetaTensor(torch.empty(0)).copy_meta_from(image)
    return record


def _scan_grid(image: MetaTensor) -> tuple[npt.NDArray[Any], tuple[int, ...]]:
    """Return affine and shape of an image before the first of the transforms that it records."""
    if not image.applied_operations:
        return convert_to_numpy(image.affine), tuple(image.shape[1:])
    first = image.applied_operations[0]
    info = first.get(TraceKeys.EXTRA_INFO) or {}
    affine = info.get("original_affine", info.get("src_affine", image.meta.get(MetaKeys.ORIGINAL_AFFINE, image.affine)))
    return convert_to_numpy(affine), tuple(first[TraceKeys.ORIG_SIZE])


def _grid_map(image: MetaTensor, shape: tuple[int, ...], affine: npt.ArrayLike) -> GridMap | None:
    """Return the map to the scan's grid if nothing but reorienting and bilinear resampling was applied."""
    if len(shape) != 3 or not all(_is_linear(operation) for operation in image.applied_operations):
        return None
    return parallel_grids(tuple(image.shape[1:]), convert_to_numpy(image.affine), shape, affine)


def _is_linear(operation: Mapping[str, Any]) -> bool:
    if operation[TraceKeys.CLASS_NAME] == "Orientation":
        return True
    info = operation.get(TraceKeys.EXTRA_INFO) or {}
    return (
        operation[TraceKeys.CLASS_NAME] == "SpatialResample"
        and info.get("mode") == "bilinear"
        and info.get("padding_mode") == GridSamplePadMode.BORDER
    )
