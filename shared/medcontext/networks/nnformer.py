"""nnFormer: interleaved convolutions and window attention, with skip attention in the decoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from math import prod
from operator import floordiv
from typing import Any, TypeAlias

from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from medcontext.checks import check_integer
from medcontext.networks.scripting import TracedNetwork
from medcontext.networks.sizes import check_image_size, check_multiples
from medcontext.networks.window_attention import RelativePosition, WindowStage

__all__ = ["NNFormer"]

Triple: TypeAlias = tuple[int, int, int]

_PATCH_STRIDES = {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (2, 2), 6: (3, 2), 9: (3, 3)}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "btcv": {
        "in_channels": 1,
        "out_channels": 14,
        "img_size": (64, 128, 128),
        "embed_dim": 192,
        "num_heads": (6, 12, 24, 48),
        "patch_size": (2, 4, 4),
        "window_size": (4, 4, 8, 4),
        "deep_supervision": True,
    },
    "acdc": {
        "in_channels": 1,
        "out_channels": 4,
        "img_size": (14, 160, 160),
        "embed_dim": 96,
        "num_heads": (3, 6, 12, 24),
        "patch_size": (1, 4, 4),
        "window_size": ((3, 5, 5), (3, 5, 5), (7, 10, 10), (3, 5, 5)),
        "merging_strides": ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
        "mask_shifted": False,
        "deep_supervision": False,
    },
    "brats": {
        "in_channels": 4,
        "out_channels": 4,
        "img_size": (128, 128, 128),
        "embed_dim": 96,
        "num_heads": (3, 6, 12, 24),
        "patch_size": (4, 4, 4),
        "window_size": (4, 4, 8, 4),
        "deep_supervision": False,
    },
}


def _triple(values: Iterable[int]) -> Triple:
    first, second, third = values
    return first, second, third


def _channels_last(grid: Tensor) -> Tensor:
    return grid.permute(0, 2, 3, 4, 1)


def _channels_first(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 4, 1, 2, 3)


class PatchEmbedding(nn.Module):
    """Four 3×3×3 convolutions, two of them strided, that turn voxels into tokens.

    Args:
        in_channels: image channels.
        embed_dim: features per token.
        patch_size: voxels per token along each axis.
    """

    def __init__(self, in_channels: int, embed_dim: int, patch_size: Triple) -> None:
        super().__init__()
        first = _triple(_PATCH_STRIDES[size][0] for size in patch_size)
        second = _triple(_PATCH_STRIDES[size][1] for size in patch_size)
        one: Triple = (1, 1, 1)
        widths = (in_channels, embed_dim // 2, embed_dim // 2, embed_dim, embed_dim)
        self.convolutions = nn.ModuleList(
            nn.Conv3d(before, after, 3, stride, padding=1)
            for (before, after), stride in zip(pairwise(widths), (first, one, second, one), strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:])
        self.activation = nn.GELU()

    def forward(self, image: Tensor) -> Tensor:
        """Embed (B, C, S, H, W) as (B, features, S', H', W')."""
        last = len(self.convolutions) - 1
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            image = convolution(image)
            if index < last:
                image = self.activation(image)
            image = _channels_first(norm(_channels_last(image)))
        return image


class PatchMerging(nn.Module):
    """GELU, layer norm and a strided convolution that halves the grid and doubles the features.

    Args:
        channels: features per token before.
        resolution: token grid before. A halved axis of odd length is convolved without padding, so 7 becomes 3.
        stride: 1 or 2 per axis.
    """

    def __init__(self, channels: int, resolution: Triple, stride: Triple) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.activation = nn.GELU()
        kernel = _triple(3 if step == 2 else 1 for step in stride)
        padding = _triple(int(step == 2 and size % 2 == 0) for size, step in zip(resolution, stride, strict=True))
        self.reduction = nn.Conv3d(channels, 2 * channels, kernel, stride, padding)

    def forward(self, tokens: Tensor) -> Tensor:
        """Merge (B, S, H, W, C) into (B, S', H', W', 2C)."""
        return _channels_last(self.reduction(_channels_first(self.norm(self.activation(tokens)))))


class PatchExpanding(nn.Module):
    """Layer norm and a transposed convolution that undo a :class:`PatchMerging` in shape.

    Args:
        channels: features per token after.
        resolution: token grid after.
        stride: 1 or 2 per axis.
    """

    def __init__(self, channels: int, resolution: Triple, stride: Triple) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * channels)
        odd = _triple(size % step for size, step in zip(resolution, stride, strict=True))
        self.expansion = nn.ConvTranspose3d(2 * channels, channels, stride, stride, output_padding=odd)

    def forward(self, tokens: Tensor) -> Tensor:
        """Expand (B, S', H', W', 2C) into (B, S, H, W, C)."""
        return _channels_last(self.expansion(_channels_first(self.norm(tokens))))


def _token_grids(img_size: Triple, patch_size: Triple, strides: Sequence[Triple]) -> list[Triple]:
    """Return the token grid of every stage.

    Raises:
        ValueError: If an axis is not a multiple of its patch size, or too short for the stages.
    """
    for axis, patch in enumerate(patch_size):
        if patch not in _PATCH_STRIDES:
            raise ValueError(f"patch_size along axis {axis} must be one of {sorted(_PATCH_STRIDES)}, got {patch}.")
    steps = (patch_size, *strides)
    check_multiples("img_size", img_size, patch_size, [prod(divisors) for divisors in zip(*steps, strict=True)])
    return list(accumulate(steps, lambda grid, step: _triple(map(floordiv, grid, step)), initial=img_size))[1:]


def _strides(values: Sequence[int | Sequence[int]], mergings: int) -> list[Triple]:
    if len(values) != mergings:
        raise ValueError(f"merging_strides needs {mergings} entries, one between every two stages, got {len(values)}.")
    triples = [ensure_tuple_rep(value, 3) for value in values]
    if any(step not in (1, 2) for triple in triples for step in triple):
        raise ValueError(f"merging_strides may hold 1 and 2 only, got {tuple(values)}.")
    return triples


class NNFormer(nn.Module):
    """nnFormer, a 3D U-shaped transformer for images (B, C, S, H, W) of a fixed size.

    The defaults are the published network for Synapse (BTCV); :meth:`for_dataset` builds the three published variants.
    The published behaviour is kept where it departs from the paper's text, so that released weights keep their
    meaning: the relative-position index (``relative_position``) and, for ACDC, shifted windows without a mask.

    With deep supervision, the network returns a list in training mode, full resolution first, with one output per
    decoder stage. In evaluation mode it returns the full resolution alone, unless its attribute ``always_return_list``
    is set.

    Args:
        in_channels: image channels.
        out_channels: classes.
        img_size: voxels per axis (S, H, W) of the images, or one integer. Each must be divisible by the patch size.
        embed_dim: features per token at the finest stage, doubled from stage to stage.
        depths: blocks per stage, finest first; the decoder repeats all but the last.
        num_heads: attention heads per encoder stage.
        patch_size: voxels per token along each axis, or one integer: 1, 2, 3, 4, 6 or 9.
        window_size: tokens per window for every stage. An integer is a cube that shrinks with the grid; a triple is
            used as it is.
        deep_supervision: predict at every decoder stage.
        spatial_dims: 3.
        decoder_num_heads: attention heads per decoder stage, finest first; those of the encoder if not given.
        merging_strides: 1 or 2 along each axis, from every stage to the next; 2 throughout if not given.
        mask_shifted: keep tokens apart that only the shift of the windows brought together.
        relative_position: ``"published"`` or ``"standard"`` (one bias per offset); see
            :func:`~medcontext.networks.window_attention.relative_position_index`.
        mlp_ratio: hidden over input width of the MLPs.
        drop_path_rate: stochastic depth, rising linearly from 0 at each path's first block to this at its last.

    Raises:
        ValueError: If an argument is out of range, a size has no token grid (the message names the axis and the
            divisor), the heads do not divide the features, or a window is too large for the published index.

    Source: Zhou et al., nnFormer: Volumetric Medical Image Segmentation via a 3D Transformer, IEEE TIP 2023
    (arXiv 2109.03201).

    Example:
        >>> import torch
        >>> network = NNFormer(1, 3, (16, 32, 32), embed_dim=12, depths=(1, 1), num_heads=(2, 4), window_size=(4, 4))
        >>> image = torch.zeros(1, 1, 16, 32, 32)
        >>> network.eval()(image).shape
        torch.Size([1, 3, 16, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: int | Sequence[int] = (64, 128, 128),
        embed_dim: int = 192,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (6, 12, 24, 48),
        patch_size: int | Sequence[int] = (2, 4, 4),
        window_size: Sequence[int | Sequence[int]] = (4, 4, 8, 4),
        deep_supervision: bool = True,
        *,
        spatial_dims: int = 3,
        decoder_num_heads: Sequence[int] | None = None,
        merging_strides: Sequence[int | Sequence[int]] | None = None,
        mask_shifted: bool = True,
        relative_position: RelativePosition = "published",
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.2,
    ) -> None:
        super().__init__()
        decoder_num_heads = num_heads[:-1] if decoder_num_heads is None else decoder_num_heads
        _check_stages(spatial_dims, embed_dim, depths, num_heads, decoder_num_heads, window_size)
        last = len(depths) - 1
        strides = _strides([2] * last if merging_strides is None else merging_strides, last)
        patch = ensure_tuple_rep(patch_size, 3)
        self.in_channels, self.img_size = in_channels, _triple(ensure_tuple_rep(img_size, 3))
        self.deep_supervision, self.always_return_list = deep_supervision, False
        grids = _token_grids(self.img_size, patch, strides)
        widths = [embed_dim * 2**index for index in range(last + 1)]
        stage = partial(
            WindowStage, mask_shifted=mask_shifted, relative_position=relative_position, mlp_ratio=mlp_ratio
        )

        def stages(order: Sequence[int], heads: Sequence[int], from_skip: bool) -> nn.ModuleList:
            """Build one stage per index, with stochastic depth rising in the order in which they run."""
            paths = dict(zip(order, _drop_paths(drop_path_rate, [depths[i] for i in order]), strict=True))
            return nn.ModuleList(
                stage(widths[i], heads[i], window_size[i], grids[i], paths[i], from_skip=from_skip)
                for i in sorted(order)
            )

        self.patch_embedding = PatchEmbedding(in_channels, embed_dim, patch)
        self.encoder = stages(range(last + 1), num_heads, from_skip=False)
        self.norms = nn.ModuleList(map(nn.LayerNorm, widths))
        self.mergings = nn.ModuleList(map(PatchMerging, widths, grids, strides))
        self.expansions = nn.ModuleList(map(PatchExpanding, widths, grids, strides))
        self.decoder = stages(range(last)[::-1], decoder_num_heads, from_skip=True)
        supervised = widths[:last] if deep_supervision else widths[:1]
        self.heads = nn.ModuleList(nn.ConvTranspose3d(width, out_channels, patch, patch) for width in supervised)
        self.apply(_initialise)

    @classmethod
    def for_dataset(cls, dataset: str, **overrides: Any) -> NNFormer:
        """Build the published variant for a dataset.

        Args:
            dataset: ``"btcv"`` (Synapse), ``"acdc"`` or ``"brats"``.
            overrides: arguments of the constructor to use instead.

        Raises:
            ValueError: If there is no variant for the dataset.
        """
        if dataset not in _PUBLISHED:
            raise ValueError(f"There is no published nnFormer for {dataset!r}; take one of {', '.join(_PUBLISHED)}.")
        arguments = _PUBLISHED[dataset] | overrides
        if dataset == "brats":  # twice the encoder's heads at equal width
            arguments.setdefault("decoder_num_heads", arguments["num_heads"][1:])
        return cls(**arguments)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment an image.

        Args:
            image: (B, in_channels, S, H, W), spatial sizes as in ``img_size``.

        Returns:
            Logits (B, out_channels, S, H, W); or a list of them, full resolution first, each coarser than the previous
            one by a stage's merging stride.

        Raises:
            ValueError: If the image has another size than ``img_size``.
        """
        check_image_size(image.shape[2:], self.img_size)
        tokens = _channels_last(self.patch_embedding(image))
        skips: list[Tensor] = []
        for index, (stage, norm) in enumerate(zip(self.encoder, self.norms, strict=True)):
            tokens = stage(self.mergings[index - 1](tokens) if index else tokens)
            skips.append(norm(tokens))
        as_list = self.always_return_list or (self.training and self.deep_supervision)
        num_outputs = len(self.heads) if as_list else 1
        tokens, outputs = skips.pop(), []
        for index in reversed(range(len(self.decoder))):
            tokens = self.decoder[index](self.expansions[index](tokens), skips[index])
            if index < num_outputs:
                outputs.append(self.heads[index](_channels_first(tokens)))
        return outputs[::-1] if as_list else outputs[-1]

    def __prepare_scriptable__(self) -> TracedNetwork:
        """Return the trace that ``torch.jit.script`` takes instead, of full-resolution logits."""
        return TracedNetwork(self, self.in_channels, self.img_size)


def _check_stages(
    spatial_dims: int,
    embed_dim: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
    decoder_num_heads: Sequence[int],
    window_size: Sequence[int | Sequence[int]],
) -> None:
    if spatial_dims != 3:
        raise ValueError(f"spatial_dims must be 3, got {spatial_dims}: nnFormer is defined for volumes.")
    if check_integer("embed_dim", embed_dim, minimum=2, remedy="give an even number of channels") % 2:
        raise ValueError(f"embed_dim must be even, got {embed_dim}.")
    stages = len(depths)
    if stages < 2 or min(depths) < 1:
        raise ValueError(f"depths needs at least two stages of one block or more, got {tuple(depths)}.")
    for name, values, expected in (
        ("num_heads", num_heads, stages),
        ("decoder_num_heads", decoder_num_heads, stages - 1),
        ("window_size", window_size, stages),
    ):
        if len(values) != expected:
            raise ValueError(f"{name} needs {expected} entries for {stages} stages, got {len(values)}.")


def _drop_paths(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Return the probabilities per stage and block, linear from 0 to ``rate`` along the path."""
    step = rate / max(sum(depths) - 1, 1)
    ends = list(accumulate(depths))
    return [[step * index for index in range(end - depth, end)] for depth, end in zip(depths, ends, strict=True)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
