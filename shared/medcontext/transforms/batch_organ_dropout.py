"""Organ dropout for batches on the device of the step, where organs are known from predictions alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medcontext.checks import check_choice, check_fraction, check_integer, check_integers, check_not_negative
from medcontext.transforms._dropout import (
    BODY_THRESHOLD,
    CELL_SIZE,
    DECOY_FRACTION,
    EXTENTS,
    FILLS,
    ORGAN_FILL,
    PART_PROB,
    PART_SHARE,
    check_organ_count,
    per_axis,
)

__all__ = ["BatchOrganDropout"]


class BatchOrganDropout:
    """Drop random organs from batches of crops, in the label space of a prediction.

    The counterpart of :class:`RandOrganDropout` (``shape="cells"``) for organs that are only known within a training
    step, as on unlabelled scans. Everything is drawn from PyTorch's generators and computed on the
    device without synchronisation. Dropped are, for each crop, a share of the organs that it shows, whole or in part:
    all cells that meet them on a coarse grid with a random offset, and decoys of as many cells in the body, beside
    those of the organs where there is room. Crops without organs stay as they are.

    Args:
        num_classes: classes of the label, background included.
        cell_size: voxels per cell, one number for all spatial axes or one per axis.
        num_organs: organs to drop, a number or a range (min, max) to draw from, at most as many as the crop holds.
            (1, 3) unless ``organ_fraction`` is given.
        organ_fraction: instead of ``num_organs``, the share of the crop's organs to drop, in (0, 1]; at least one.
        extent: ``"organ"``, ``"part"`` or ``"both"``, see :class:`RandOrganDropout`.
        decoy_fraction: cells of decoys, as a multiple of the organs' cells.
        fill: what dropped voxels become: ``"zero"``, ``"mean"`` or ``"noise"``, see :class:`RandOrganDropout`.
        prob: probability that anything is dropped from a crop.

    Raises:
        TypeError: If a number is of the wrong type.
        ValueError: If a number lies outside its range, ``extent`` or ``fill`` is unknown, or both ``num_organs`` and
            ``organ_fraction`` are given.

    Source: Gani et al., MedContext, MICCAI 2024 (arXiv 2402.17725); masked consistency on unlabelled images as in Hoyer
    et al., MIC, CVPR 2023. Cells, decoys and the label space of the teacher are added here.

    Example:
        >>> import torch
        >>> image, label = torch.rand(2, 1, 8, 8, 8), torch.zeros(2, 1, 8, 8, 8)
        >>> label[0, :, 2:4, 2:4, 2:4] = 1  # the other crop shows no organ
        >>> masked, mask = BatchOrganDropout(num_classes=2, cell_size=2)(image, label)
        >>> mask.flatten(1).any(1).tolist()
        [True, False]
    """

    def __init__(
        self,
        num_classes: int,
        *,
        cell_size: int | Sequence[int] = CELL_SIZE,
        num_organs: int | Sequence[int] | None = None,
        organ_fraction: float | None = None,
        extent: str = "both",
        decoy_fraction: float = DECOY_FRACTION,
        fill: str = ORGAN_FILL,
        prob: float = 1.0,
    ) -> None:
        self.num_classes = check_integer("num_classes", num_classes, minimum=2, remedy="count the background")
        self.cell_size = check_integers("cell_size", cell_size, minimum=1)
        self.num_organs, self.organ_fraction = check_organ_count(num_organs, organ_fraction)
        self.part_prob = {"organ": 0.0, "part": 1.0}.get(check_choice("extent", extent, EXTENTS), PART_PROB)
        self.decoy_fraction = check_not_negative("decoy_fraction", decoy_fraction)
        self.fill = check_choice("fill", fill, FILLS)
        self.prob = check_fraction("prob", prob)

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        r"""Drop organs from a copy of the image.

        Args:
            image: (B, C, \*spatial).
            label: label ids (B, 1, \*spatial).

        Returns:
            The masked image, and the context mask (B, 1, \*spatial), float32 with 1 for dropped voxels.
        """
        shape = image.shape[2:]
        grid = _Grid(shape, per_axis("cell_size", self.cell_size, shape), image.device)
        organs = torch.arange(1, self.num_classes, device=label.device).view(1, -1, *[1] * len(shape))
        dropped = self._draw_organs(grid.pool((label == organs).float()) > 0, grid)
        if self.decoy_fraction > 0:
            volumes = grid.pool(torch.ones(1, 1, *shape, device=image.device))
            body = (grid.pool(_body_mask(image).float()) >= 0.5 * volumes)[:, 0]
            dropped = dropped | self._draw_decoys(dropped, body & ~dropped, grid)
        mask = grid.spread(dropped)
        return self._filled(image, mask), mask.float()

    def _draw_organs(self, members: Tensor, grid: _Grid) -> Tensor:
        """Draw the cells (B, N) to drop from those that each organ meets, (B, K, N)."""
        device, present = members.device, members.any(-1)
        if self.organ_fraction is None:
            low, high = self.num_organs
            wanted = torch.randint(low, high + 1, (len(members), 1), device=device)
        else:
            wanted = (self.organ_fraction * present.sum(1, keepdim=True)).round().clamp_min(1)
        wanted = wanted * (torch.rand(len(members), 1, device=device) < self.prob)
        chosen = present & (_ranks(torch.rand(present.shape, device=device), present) < wanted)
        least, most = PART_SHARE
        share = least + (most - least) * torch.rand(present.shape, device=device)
        share = torch.where(torch.rand(present.shape, device=device) < self.part_prob, share, torch.ones_like(share))
        count = (share * members.sum(-1)).round().clamp_min(1)
        return (grid.clump(members, count) & chosen[..., None]).any(1)

    def _draw_decoys(self, dropped: Tensor, free: Tensor, grid: _Grid) -> Tensor:
        """Draw free cells (B, N), as many as were dropped: from displaced copies of those first, then in a clump."""
        count = (self.decoy_fraction * dropped.sum(-1)).round()
        beside = grid.clump(grid.displaced(dropped) & free, count)
        return beside | grid.clump(free & ~beside, count - beside.sum(-1))

    def _filled(self, image: Tensor, mask: Tensor) -> Tensor:
        if self.fill == "zero":
            return image.masked_fill(mask, 0)
        axes = tuple(range(2, image.ndim))
        kept = ~mask
        count = kept.sum(axes, keepdim=True).clamp_min(1)
        mean = (image.float() * kept).sum(axes, keepdim=True) / count
        if self.fill == "noise":
            deviation = (((image.float() - mean) * kept).square().sum(axes, keepdim=True) / count).sqrt()
            mean = mean + deviation * torch.randn_like(image, dtype=torch.float32)
        return torch.where(mask, mean.to(image.dtype), image)


class _Grid:
    """Coarse grid over the crops of a batch, with a random offset and flattened to N cells.

    Args:
        shape: spatial shape of the crops.
        size: voxels per cell and axis.
        device: of the tensors.
    """

    def __init__(self, shape: Sequence[int], size: Sequence[int], device: torch.device) -> None:
        self.shape, self.size = tuple(shape), tuple(size)
        self.offset = [int(torch.randint(step, ())) for step in size]
        self.cells = [
            -(-(start + length) // step) for start, length, step in zip(self.offset, shape, size, strict=True)
        ]
        axes = [torch.arange(number, device=device, dtype=torch.float32) for number in self.cells]
        self.places = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")])

    def pool(self, voxels: Tensor) -> Tensor:
        r"""Average (B, K, \*spatial) over each cell, with zeros outside of the crop, as (B, K, N)."""
        ends = [
            number * step - start - length
            for number, step, start, length in zip(self.cells, self.size, self.offset, self.shape, strict=True)
        ]
        padding = [side for pair in zip(self.offset, ends, strict=True) for side in pair[::-1]][::-1]
        pool = F.avg_pool3d if len(self.shape) == 3 else F.avg_pool2d
        return pool(F.pad(voxels, padding), self.size).flatten(2)

    def spread(self, cells: Tensor) -> Tensor:
        r"""Return the value of its cell for every voxel: (B, N) to (B, 1, \*spatial)."""
        voxels = cells.view(-1, 1, *self.cells)
        for axis, (step, start, length) in enumerate(zip(self.size, self.offset, self.shape, strict=True), 2):
            voxels = voxels.repeat_interleave(step, axis).narrow(axis, start, length)
        return voxels

    def clump(self, where: Tensor, count: Tensor) -> Tensor:
        """Mark the ``count`` (…) cells of ``where`` (…, N) that are nearest to a random one of them."""
        seeds = torch.rand(where.shape, device=where.device).masked_fill(~where, -1).argmax(-1)
        distance = (self.places[:, None] - self.places[:, seeds.flatten()][..., None]).square().sum(0)
        return where & (_ranks(-distance.view(where.shape), where) < count[..., None])

    def displaced(self, cells: Tensor) -> Tensor:
        """Move the cells (B, N) of each crop by up to two along every axis, wrapping around at the border."""
        grids = cells.view(-1, *self.cells)
        axes = tuple(range(len(self.cells)))
        moved = [torch.roll(grid, [int(torch.randint(-2, 3, ())) for _ in axes], axes) for grid in grids]
        return torch.stack(moved).flatten(1)


def _ranks(scores: Tensor, where: Tensor) -> Tensor:
    """Rank the elements along the last axis by falling score; those outside of ``where`` come last."""
    order = scores.masked_fill(~where, -math.inf).argsort(-1, descending=True)
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def _body_mask(image: Tensor) -> Tensor:
    r"""Mark the voxels (B, 1, \*spatial) that are not background, by the rule of :class:`RandOrganDropout`."""
    axes = tuple(range(2, image.ndim))
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    return ((image > low + BODY_THRESHOLD * (high - low)) & (image != 0)).any(1, keepdim=True)
