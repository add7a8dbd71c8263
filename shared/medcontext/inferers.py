"""Prediction of whole volumes, also with several checkpoints and mirrored views."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from monai.utils import ImageMetaKey, ensure_tuple
from torch import Tensor, nn

from medcontext.networks.ensemble import CheckpointEnsemble, mean_logits

__all__ = ["AveragingInferer", "NonFinitePredictionError", "flip_axes"]

_ENDS = ("RL", "AP", "SI")


class NonFinitePredictionError(ValueError):
    """A network's output is NaN or infinite, from which a label map would be empty without a sign."""


class AveragingInferer(SlidingWindowInferer):
    """MONAI's sliding window, averaged over the members of an ensemble and over mirrored views of the image.

    With neither, it is the sliding window itself. Otherwise every member of a
    :class:`medcontext.networks.CheckpointEnsemble` sees the whole volume mirrored along every combination of the axes:
    2 ** n views for n axes, the plain one included. The output is the logarithm of the mean probability, on the CPU,
    where there is room for volumes of full size.

    Args:
        args: as for :class:`monai.inferers.SlidingWindowInferer`.
        flips: axes to mirror along, by the letter of an end (``"R"`` and ``"L"`` for the same axis), or by number among
            the spatial axes. Name only axes along which training images were mirrored.
        orientation: ends that the axes run towards, such as ``"RAS"``.
        kwargs: as for :class:`monai.inferers.SlidingWindowInferer`.

    Raises:
        ValueError: If there is no such axis, or one is named twice.
    """

    def __init__(self, *args: Any, flips: Sequence[str | int] = (), orientation: str = "RAS", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        axes = flip_axes(flips, orientation)
        if len(set(axes)) < len(axes):
            raise ValueError(f"tta_flips must name different axes, got {list(flips)}, where two are the same axis.")
        self.views = [view for count in range(len(axes) + 1) for view in itertools.combinations(axes, count)]

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Return the logits (B, C, X, Y, Z) of images (B, channels, X, Y, Z).

        Raises:
            NonFinitePredictionError: If they are not finite.
        """
        if self.views == [()] and not isinstance(network, CheckpointEnsemble):
            logits: Tensor = super().__call__(inputs, network, *args, **kwargs)
        else:
            logits = mean_logits(self._passes(inputs, network, *args, **kwargs))
        if not logits.sum(dtype=torch.float32).isfinite():  # without a second volume of the same size
            raise NonFinitePredictionError(
                f"The network's output for {_name(inputs)} is NaN or infinite; give other weights or, if the output is "
                "finite without mixed precision, add --amp False. Earlier results are kept."
            )
        return logits

    def _passes(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Iterator[Tensor]:
        for member in network.members() if isinstance(network, CheckpointEnsemble) else [network]:
            for view in self.views:
                axes = [axis + 2 for axis in view]
                yield super().__call__(inputs.flip(axes), member, *args, **kwargs).cpu().flip(axes)


def _name(images: Tensor) -> str:
    """Return the file of the first image of a batch, if it is known."""
    files = ensure_tuple(getattr(images, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, "the image"))
    return str(files[0])


def flip_axes(flips: Sequence[str | int], orientation: str, key: str = "tta_flips") -> list[int]:
    """Return the spatial axes that are named by the letter of an end or by number.

    Args:
        flips: the axes, such as ``["R", 1]``.
        orientation: axis codes of the volumes, such as ``"RAS"``.
        key: configuration key that holds the axes, for the error.

    Raises:
        ValueError: If there is no such axis.

    Example:
        >>> flip_axes(["L", 1], orientation="RAS")
        [0, 1]
    """
    if isinstance(flips, (str, int)):
        raise ValueError(f"{key} must be a list of axes, such as ['A', 'S'], got {flips!r}.")
    return [_flip_axis(flip, orientation, key) for flip in flips]


def _flip_axis(flip: str | int, orientation: str, key: str) -> int:
    if isinstance(flip, str) and len(flip) == 1:
        pair = next((ends for ends in _ENDS if flip.upper() in ends), "")
        axes = [axis for axis, end in enumerate(orientation) if end in pair]
        if axes:
            return axes[0]
    elif isinstance(flip, int) and not isinstance(flip, bool) and 0 <= flip < len(orientation):
        return flip
    raise ValueError(
        f"{key} must hold axes of {orientation}, by letter or by number from 0 to {len(orientation) - 1}, got {flip!r}."
    )
