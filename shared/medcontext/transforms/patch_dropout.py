"""Patch dropout: patches of a regular grid are dropped from the image, without regard to organs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor

from medcontext.checks import check_arguments, check_choice, check_fraction, check_integer, check_integers
from medcontext.keys import MedContextKeys
from medcontext.transforms._dropout import (
    BoolArray,
    ContextDropout,
    ContextDropoutd,
    cell_edges,
    nearest_cells,
    per_axis,
    spread,
)

__all__ = ["PATCH_MODES", "RandPatchDropout", "RandPatchDropoutd"]

PATCH_MODES = ("random", "block", "tube")


class RandPatchDropout(ContextDropout):
    """Drop a fixed share of the patches of a regular grid.

    The grid starts at the image's first voxel, so with ``patch_size`` equal to a network's token size the mask covers
    whole tokens. Where the size does not divide the image, the patches at the far border are smaller. Tubes are the
    masking of Gani et al., *MedContext: Learning Contextual Cues for Efficient Volumetric Medical Segmentation*,
    MICCAI 2024 (arXiv 2402.17725).

    Args:
        mode: ``"random"`` drops independent patches; ``"block"`` drops ``num_blocks`` compact blocks of neighbouring
            patches; ``"tube"`` draws one random pattern over the in-plane grid and repeats it along ``tube_axis``.
        ratio: share of the patches to drop, in [0, 1]. Exactly ``round(ratio * n)`` of the n patches are dropped; for
            tubes n counts the in-plane patches.
        patch_size: voxels per patch, one number for all spatial axes or one per axis.
        num_blocks: number of blocks of about equal size that make up the ratio (``mode="block"``); they may touch.
        tube_axis: spatial axis along which tubes run, by default the last: S for images in RAS order. Give 0 for
            depth-first images such as SPL (``mode="tube"``).
        fill: what dropped voxels become: ``"zero"`` the value 0, meant for images whose intensities are scaled
            already; ``"mean"`` each channel's mean over the kept voxels; ``"noise"`` Gaussian noise with each
            channel's mean and standard deviation over the kept voxels. With nothing kept, all are 0.
        prob: probability that anything is dropped; otherwise the mask is empty.

    Raises:
        TypeError: If a number is of the wrong type.
        ValueError: If ``mode`` or ``fill`` is unknown, or a number lies outside its range.

    Example:
        >>> import torch
        >>> dropout = RandPatchDropout(ratio=0.5, patch_size=2).set_random_state(0)
        >>> masked, mask = dropout(torch.ones(1, 4, 4))
        >>> mask[0].int().tolist()
        [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
        >>> bool((masked == 1 - mask).all())
        True
    """

    def __init__(
        self,
        *,
        mode: str = "random",
        ratio: float = 0.4,
        patch_size: int | Sequence[int] = 16,
        num_blocks: int = 1,
        tube_axis: int = -1,
        fill: str = "zero",
        prob: float = 1.0,
    ) -> None:
        super().__init__(fill, prob)
        self.mode = check_choice("mode", mode, PATCH_MODES)
        self.ratio = check_fraction("ratio", ratio)
        self.patch_size = check_integers("patch_size", patch_size, minimum=1)
        self.num_blocks = check_integer(
            "num_blocks", num_blocks, minimum=1, remedy="give a number of blocks, such as 1"
        )
        self.tube_axis = check_integer(
            "tube_axis", tube_axis, minimum=-3, remedy="give a spatial axis, -1 for the last"
        )

    def randomize(self, data: NdarrayOrTensor) -> None:
        """Draw the patches to drop from the image ``data`` (C, *spatial)."""
        super().randomize(None)
        shape = tuple(data.shape[1:])
        edges = cell_edges(shape, per_axis("patch_size", self.patch_size, shape), (0,) * len(shape))
        grid = tuple(len(starts) for starts in edges)
        dropped = self._draw(grid) if self._do_transform else np.zeros(grid, bool)
        self._remember(spread(dropped, edges, shape), data.shape[0])

    def _draw(self, grid: tuple[int, ...]) -> BoolArray:
        if self.mode == "tube":
            return self._draw_tubes(grid)
        count = round(self.strength * self.ratio * int(np.prod(grid)))
        return self._draw_blocks(grid, count) if self.mode == "block" else self._draw_patches(grid, count)

    def _draw_patches(self, grid: tuple[int, ...], count: int) -> BoolArray:
        dropped = np.zeros(grid, bool)
        dropped.flat[self.R.permutation(dropped.size)[:count]] = True
        return dropped

    def _draw_blocks(self, grid: tuple[int, ...], count: int) -> BoolArray:
        dropped = np.zeros(grid, bool)
        for blocks_left in range(self.num_blocks, 0, -1):
            missing = count - int(dropped.sum())
            dropped |= nearest_cells(~dropped, round(missing / blocks_left), self.R)
        return dropped

    def _draw_tubes(self, grid: tuple[int, ...]) -> BoolArray:
        if not -len(grid) <= self.tube_axis < len(grid):
            raise ValueError(
                f"tube_axis is {self.tube_axis} but the image has {len(grid)} spatial axes: "
                f"give a number from {-len(grid)} to {len(grid) - 1}."
            )
        axis = self.tube_axis % len(grid)
        plane = (*grid[:axis], 1, *grid[axis + 1 :])
        tubes = self._draw_patches(plane, round(self.strength * self.ratio * int(np.prod(plane))))
        return np.repeat(tubes, grid[axis], axis=axis)

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        """Drop patches from a copy of the image.

        Args:
            img: image, (C, *spatial) with two or three spatial axes; it is not changed.
            randomize: draw new patches; otherwise drop those of the last call.

        Returns:
            The masked image (C, *spatial), of the image's own type, and the context mask (1, *spatial), float32 with
            1 for dropped and 0 for kept voxels.

        Raises:
            ValueError: If ``patch_size`` or ``tube_axis`` does not match the number of spatial axes, or if
                ``randomize=False`` and the last draw was for another shape.
        """
        if randomize:
            self.randomize(img)
        return self._apply(img)


class RandPatchDropoutd(ContextDropoutd):
    """Dictionary version of :class:`RandPatchDropout`.

    Adds the masked image (C, *spatial) and the context mask (1, *spatial), and leaves the image as it is.

    Args:
        keys: key of the image; one only.
        masked_key: new key of the image with patches dropped.
        mask_key: new key of the mask, 1 for dropped and 0 for kept voxels.
        allow_missing_keys: return a dictionary without the image as it is, instead of raising.
        kwargs: other arguments as for :class:`RandPatchDropout`.

    Raises:
        TypeError: If :class:`RandPatchDropout` has no such argument, or a number is of the wrong type.
        ValueError: If ``keys`` names several images, an option is unknown, or a number lies outside its range.

    Example:
        >>> import torch
        >>> dropout = RandPatchDropoutd("image", ratio=0.25, patch_size=2).set_random_state(0)
        >>> batch = dropout({"image": torch.ones(1, 8, 8)})
        >>> [str(key) for key in batch]
        ['image', 'masked_image', 'context_mask']
        >>> batch["context_mask"].mean().item()
        0.25
    """

    dropout: RandPatchDropout

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        masked_key: str = MedContextKeys.MASKED_IMAGE,
        mask_key: str = MedContextKeys.CONTEXT_MASK,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        check_arguments(RandPatchDropout, kwargs)
        super().__init__(keys, RandPatchDropout(**kwargs), masked_key, mask_key, allow_missing_keys)

    def randomize(self, data: NdarrayOrTensor) -> None:
        """Draw the patches to drop from the image ``data`` (C, *spatial)."""
        self.dropout.randomize(data)

    def _drop(self, data: Mapping[Hashable, NdarrayOrTensor], key: Hashable) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        self.randomize(data[key])
        return self.dropout(data[key], randomize=False)
