"""Organ dropout: organs are dropped from the image for the network to reconstruct from their context."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.utils import convert_data_type
from numpy.typing import NDArray
from scipy import ndimage

from medcontext.checks import check_arguments, check_choice, check_fraction, check_integers, check_not_negative
from medcontext.keys import MedContextKeys
from medcontext.transforms._dropout import (
    BODY_THRESHOLD,
    CELL_SIZE,
    DECOY_FRACTION,
    EXTENTS,
    ORGAN_FILL,
    PART_PROB,
    PART_SHARE,
    BoolArray,
    ContextDropout,
    ContextDropoutd,
    cell_edges,
    check_organ_count,
    nearest_cells,
    per_axis,
    pool,
    spread,
)
from medcontext.transforms.patch_dropout import PATCH_MODES, RandPatchDropout

__all__ = ["EXTENTS", "SHAPES", "RandOrganDropout", "RandOrganDropoutd"]

SHAPES = ("cells", "box", "voxel")

_DECOY_TRIES = 12  # displaced copies per organ, before the rest is placed anywhere in the body


class RandOrganDropout(ContextDropout):
    """Drop random organs, and as much tissue beside them, from the image.

    A hole with the shape of the organ would be the label itself: a network learns to fill holes and no anatomy. What
    is dropped is therefore coarser than the organ, and does not betray it: all cells of a coarse grid that meet the
    organ, on a grid whose offset changes from call to call, together with decoys, which hide on which side of the
    hole the organ lies.

    Decoys are copies of an organ's dropped cells displaced by up to half their extent; what finds no room beside the
    organ goes anywhere in the body. They keep out of the cells of the dropped organs, may meet organs that were not
    dropped, and lie in the body: cells of which at least half the voxels are not background. A voxel is background
    where each channel is exactly 0 or within 5 % of the channel's range above its minimum in the crop, which covers
    air, padding and images normalised over non-zero voxels only.

    A crop without organs to drop gets patch dropout instead. Source: Gani et al., *MedContext: Learning Contextual
    Cues for Efficient Volumetric Medical Segmentation*, MICCAI 2024 (arXiv 2402.17725); cells and decoys are added
    here.

    Args:
        extent: ``"organ"`` drops all of an organ, ``"part"`` a random connected share of about a quarter to three
            quarters of it, ``"both"`` decides for each organ.
        part_prob: probability of a part, with ``extent="both"``.
        shape: ``"cells"`` drops every grid cell that the organ meets, ``"box"`` a box around it with each face moved
            outwards by 0 to ``cell_size`` voxels, ``"voxel"`` the organ's own voxels. The last **leaks the label**
            and is meant for ablation only. Parts and decoys are made of cells or, for the other two, of voxels.
        cell_size: voxels per cell, one number for all spatial axes or one per axis: 8 for isotropic images, less
            along thick slices.
        decoy_fraction: cells of decoys, as a multiple of the organs' cells; fewer where the body has no more. 0 for
            none, which leaks more.
        num_organs: organs to drop, a number or a range (min, max) to draw from, at most as many as the crop holds.
            (1, 3) unless ``organ_fraction`` is given.
        organ_fraction: instead of ``num_organs``, the share of the crop's organs to drop, in (0, 1]; at least one.
        organs: label ids that may be dropped; all ids above 0 by default.
        margin: voxels by which the organ grows in every direction before cells, box or voxels are found, one number
            or one per axis.
        fill: what dropped voxels become: ``"zero"`` the value 0, meant for images whose intensities are scaled
            already; ``"mean"`` each channel's mean over the kept voxels; ``"noise"`` Gaussian noise with each
            channel's mean and standard deviation over the kept voxels. With nothing kept, all are 0.
        prob: probability that anything is dropped; otherwise the mask is empty.
        patch_mode: for a crop without organs, the mode of :class:`RandPatchDropout`.
        patch_ratio: for a crop without organs, the share of patches to drop.
        patch_size: for a crop without organs, voxels per patch; ``cell_size`` by default.

    Raises:
        TypeError: If a number is of the wrong type.
        ValueError: If an option is unknown, a number lies outside its range, or both ``num_organs`` and
            ``organ_fraction`` are given.

    Example:
        >>> import torch
        >>> image, label = torch.ones(1, 8, 8, 8), torch.zeros(1, 8, 8, 8)
        >>> image[:, 0] = 0  # air
        >>> label[:, 2:4, 2:4, 2:4] = 1
        >>> dropout = RandOrganDropout(cell_size=2, extent="organ", fill="zero").set_random_state(0)
        >>> masked, mask = dropout(image, label)
        >>> mask.shape
        torch.Size([1, 8, 8, 8])
        >>> bool(mask[label == 1].all())  # the organ is dropped, and tissue beside it
        True
        >>> bool((masked == image * (1 - mask)).all())
        True
    """

    def __init__(
        self,
        *,
        extent: str = "both",
        part_prob: float = PART_PROB,
        shape: str = "cells",
        cell_size: int | Sequence[int] = CELL_SIZE,
        decoy_fraction: float = DECOY_FRACTION,
        num_organs: int | Sequence[int] | None = None,
        organ_fraction: float | None = None,
        organs: Sequence[int] | None = None,
        margin: int | Sequence[int] = 0,
        fill: str = ORGAN_FILL,
        prob: float = 1.0,
        patch_mode: str = "block",
        patch_ratio: float = 0.25,
        patch_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(fill, prob)
        self.extent = check_choice("extent", extent, EXTENTS)
        self.part_prob = check_fraction("part_prob", part_prob)
        self.shape = check_choice("shape", shape, SHAPES)
        self.cell_size = check_integers("cell_size", cell_size, minimum=1)
        self.decoy_fraction = check_not_negative("decoy_fraction", decoy_fraction)
        self.num_organs, self.organ_fraction = check_organ_count(num_organs, organ_fraction)
        self.organs = None if organs is None else _check_ids("organs", organs)
        self.margin = check_integers("margin", margin, minimum=0)
        self.patch_dropout = RandPatchDropout(
            mode=check_choice("patch_mode", patch_mode, PATCH_MODES),
            ratio=check_fraction("patch_ratio", patch_ratio),
            patch_size=self.cell_size if patch_size is None else patch_size,
        )

    def randomize(self, data: tuple[NdarrayOrTensor, NdarrayOrTensor]) -> None:
        """Draw what to drop from ``data``, the image (C, *spatial) and its label (1, *spatial).

        Raises:
            ValueError: If image and label do not match.
        """
        super().randomize(None)
        image, label = (convert_data_type(array, np.ndarray)[0] for array in data)
        _check_same_grid(image.shape, label.shape)
        mask = np.zeros(image.shape[1:], bool)
        if self._do_transform:
            organs = self._droppable_organs(label[0])
            mask = (
                self._draw(image, label[0], self._choose_organs(organs)) if organs.size else self._draw_patches(image)
            )
        self._remember(mask, image.shape[0])

    def _droppable_organs(self, label: NDArray[Any]) -> NDArray[np.intp]:
        """Return the ids of the organs in ``label`` that may be dropped."""
        organs = np.flatnonzero(np.bincount(label[label >= 1].astype(np.intp)))
        return organs if self.organs is None else np.intersect1d(organs, self.organs)

    def _choose_organs(self, organs: NDArray[np.intp]) -> NDArray[np.intp]:
        if self.organ_fraction is None:
            low, high = self.num_organs
            number = round(self.strength * int(self.R.randint(low, high + 1)))
        else:
            number = round(self.strength * self.organ_fraction * organs.size)
        number = max(1, number)
        return self.R.permutation(organs)[:number]

    def _draw_patches(self, image: NDArray[np.generic]) -> BoolArray:
        self.patch_dropout.set_random_state(state=self.R)
        self.patch_dropout.randomize(image)
        return self.patch_dropout.mask

    def _draw(self, image: NDArray[np.generic], label: NDArray[Any], organs: NDArray[np.intp]) -> BoolArray:
        size = per_axis("cell_size", self.cell_size, label.shape) if self.shape == "cells" else (1,) * label.ndim
        edges = cell_edges(label.shape, size, [int(self.R.randint(step)) for step in size])
        regions = [self._organ_cells(label == organ, edges) for organ in organs]
        dropped = np.logical_or.reduce(regions)
        if self.decoy_fraction > 0:
            free = pool(_body_mask(image).astype(np.float32), edges, np.add) >= 0.5 * _cell_volumes(edges, label.shape)
            dropped |= _place_decoys(regions, free & ~dropped, round(self.decoy_fraction * int(dropped.sum())), self.R)
        return spread(dropped, edges, label.shape)

    def _organ_cells(self, organ: BoolArray, edges: Sequence[NDArray[np.intp]]) -> BoolArray:
        """Return the cells (voxels for box and voxel) that are dropped with ``organ``."""
        part = self.extent == "part" or (self.extent == "both" and self.R.rand() < self.part_prob)
        margin = per_axis("margin", self.margin, organ.shape)
        if self.shape == "cells":
            cells = pool(_dilated(organ, margin), edges, np.logical_or)
            return _random_part(cells, self.R) if part else cells
        voxels = _random_part(organ, self.R) if part else organ
        return _dilated(voxels, margin) if self.shape == "voxel" else self._jittered_box(voxels, margin)

    def _jittered_box(self, organ: BoolArray, margin: Sequence[int]) -> BoolArray:
        box = np.zeros_like(organ)
        jitter = per_axis("cell_size", self.cell_size, organ.shape)
        faces = ndimage.find_objects(organ.astype(np.uint8))[0]
        box[
            tuple(
                slice(
                    max(0, face.start - grow - int(self.R.randint(step + 1))),
                    face.stop + grow + int(self.R.randint(step + 1)),
                )
                for face, grow, step in zip(faces, margin, jitter, strict=True)
            )
        ] = True
        return box

    def __call__(
        self, img: NdarrayOrTensor, label: NdarrayOrTensor, randomize: bool = True
    ) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        """Drop organs from a copy of the image.

        Args:
            img: image, (C, *spatial) with two or three spatial axes; it is not changed.
            label: label ids, (1, *spatial), of any integer or floating type; 0 is background. It is not changed.
            randomize: draw anew; otherwise drop the same voxels as in the last call.

        Returns:
            The masked image (C, *spatial), of the image's own type, and the context mask (1, *spatial), float32 with
            1 for dropped and 0 for kept voxels.

        Raises:
            ValueError: If image and label do not match, if ``cell_size``, ``margin`` or ``patch_size`` does not match
                the number of spatial axes, or if ``randomize=False`` and the last draw was for another shape.
        """
        if randomize:
            self.randomize((img, label))
        return self._apply(img)


class RandOrganDropoutd(ContextDropoutd):
    """Dictionary version of :class:`RandOrganDropout`.

    Adds the masked image (C, *spatial) and the context mask (1, *spatial), and leaves image and label as they are.

    Args:
        keys: key of the image; one only.
        label_key: key of the label.
        masked_key: new key of the image with the context dropped.
        mask_key: new key of the mask, 1 for dropped and 0 for kept voxels.
        allow_missing_keys: return a dictionary without the image as it is, instead of raising.
        kwargs: other arguments as for :class:`RandOrganDropout`.

    Raises:
        TypeError: If :class:`RandOrganDropout` has no such argument, or a number is of the wrong type.
        ValueError: If ``keys`` names several images, an option is unknown, a number lies outside its range, or both
            ``num_organs`` and ``organ_fraction`` are given.

    Example:
        >>> import torch
        >>> image, label = torch.rand(1, 8, 8, 8), torch.zeros(1, 8, 8, 8)
        >>> label[:, 2:4, 2:4, 2:4] = 1
        >>> dropout = RandOrganDropoutd("image", "label", cell_size=2).set_random_state(0)
        >>> batch = dropout({"image": image, "label": label})
        >>> [str(key) for key in batch]
        ['image', 'label', 'masked_image', 'context_mask']
        >>> batch["image"] is image
        True
    """

    dropout: RandOrganDropout

    def __init__(
        self,
        keys: KeysCollection = "image",
        label_key: str = "label",
        *,
        masked_key: str = MedContextKeys.MASKED_IMAGE,
        mask_key: str = MedContextKeys.CONTEXT_MASK,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        check_arguments(RandOrganDropout, kwargs)
        super().__init__(keys, RandOrganDropout(**kwargs), masked_key, mask_key, allow_missing_keys)
        self.label_key = label_key

    def randomize(self, data: tuple[NdarrayOrTensor, NdarrayOrTensor]) -> None:
        """Draw what to drop from ``data``, the image (C, *spatial) and its label (1, *spatial)."""
        self.dropout.randomize(data)

    def _drop(self, data: Mapping[Hashable, NdarrayOrTensor], key: Hashable) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        if self.label_key not in data:
            raise KeyError(f"label_key {self.label_key!r} is not among {sorted(map(str, data))}: organs need a label.")
        self.randomize((data[key], data[self.label_key]))
        return self.dropout(data[key], data[self.label_key], randomize=False)


def _check_ids(name: str, value: Sequence[int]) -> tuple[int, ...]:
    """Return ``value``, label ids of organs, as a tuple."""
    ids = check_integers(name, value, minimum=1, remedy="give the label ids of organs, such as [1, 6]")
    if isinstance(ids, int):
        raise TypeError(f"{name} must be a sequence of label ids, got {value!r}: give for example [{value}].")
    return ids


def _check_same_grid(image: Sequence[int], label: Sequence[int]) -> None:
    """Refuse a ``label`` shape other than (1, *spatial) for the ``image`` shape (C, *spatial)."""
    if label[0] != 1 or label[1:] != image[1:]:
        raise ValueError(
            f"label must be (1, *spatial) with the image's spatial shape, got image {tuple(image)} and label "
            f"{tuple(label)}: put the channel first, turn one-hot labels into ids, and crop both together."
        )


def _body_mask(image: NDArray[np.generic]) -> BoolArray:
    """Mark the voxels (spatial) of ``image`` (C, *spatial) that are not background, see the class docstring."""
    body = np.zeros(image.shape[1:], bool)
    for channel in image:
        low, high = float(channel.min()), float(channel.max())
        body |= (channel > low + BODY_THRESHOLD * (high - low)) & (channel != 0)
    return body


def _cell_volumes(edges: Sequence[NDArray[np.intp]], shape: Sequence[int]) -> NDArray[np.float32]:
    """Count the voxels in every cell, fewer in those that the border cuts."""
    volumes = np.ones((1,) * len(shape), np.float32)
    for axis, (starts, length) in enumerate(zip(edges, shape, strict=True)):
        lengths = np.diff(starts, append=length).astype(np.float32)
        volumes = volumes * lengths.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    return volumes


def _dilated(organ: BoolArray, margin: Sequence[int]) -> BoolArray:
    """Dilate ``organ`` by ``margin`` voxels per axis (a box as structuring element)."""
    for axis, grow in enumerate(margin):
        if grow > 0:
            organ = ndimage.maximum_filter1d(organ.view(np.uint8), 2 * grow + 1, axis=axis, mode="constant").view(bool)
    return organ


def _random_part(organ: BoolArray, random: np.random.RandomState) -> BoolArray:
    """Return a random share of ``organ``: of what is nearest to a random point of it, the largest connected piece."""
    share = random.uniform(*PART_SHARE)
    near = nearest_cells(organ, max(1, round(share * int(organ.sum()))), random)
    pieces, number = ndimage.label(near)
    if number == 1:
        return near
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return pieces == sizes.argmax()


def _place_decoys(
    regions: Sequence[BoolArray], free: BoolArray, count: int, random: np.random.RandomState
) -> BoolArray:
    """Place ``count`` decoy cells in ``free``: displaced copies of the ``regions``, then clumps for what is missing."""
    decoys = np.zeros_like(free)
    wanted = _split_in_proportion([int(region.sum()) for region in regions], count)
    for region, missing in zip(regions, wanted, strict=True):
        extents = [face.stop - face.start for face in ndimage.find_objects(region.astype(np.uint8))[0]]
        for _ in range(_DECOY_TRIES):
            if missing == 0:
                break
            reach = [(extent + 1) // 2 for extent in extents]
            shift = [int(random.randint(-most, most + 1)) for most in reach]
            placed = nearest_cells(_displaced(region, shift) & free & ~decoys, missing, random)
            decoys |= placed
            missing -= int(placed.sum())
    return decoys | nearest_cells(free & ~decoys, count - int(decoys.sum()), random)


def _split_in_proportion(sizes: Sequence[int], count: int) -> list[int]:
    """Split ``count`` in proportion to ``sizes``."""
    ends = [round(count * end / sum(sizes)) for end in np.cumsum(sizes)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _displaced(region: BoolArray, shift: Sequence[int]) -> BoolArray:
    """Move ``region`` by ``shift``; what leaves the grid is lost."""
    moved = np.zeros_like(region)
    source = tuple(slice(max(0, -by), max(0, length - by)) for by, length in zip(shift, region.shape, strict=True))
    target = tuple(slice(max(0, by), max(0, length + by)) for by, length in zip(shift, region.shape, strict=True))
    moved[target] = region[source]
    return moved
