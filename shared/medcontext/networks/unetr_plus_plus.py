"""UNETR++: a hierarchical encoder and decoder of efficient paired attention."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import gcd, prod
from typing import Any, Literal, Self

from monai.networks.blocks import UnetOutBlock, UnetResBlock
from monai.networks.blocks.dynunet_block import get_conv_layer
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from medcontext.checks import check_integer
from medcontext.networks.paired_attention import Fusion, PairedAttention, PairedAttentionBlock, SpatialLayout
from medcontext.networks.scripting import TracedNetwork
from medcontext.networks.sizes import check_image_size, check_multiples

__all__ = ["UNETRPlusPlus"]

_DATASETS: dict[str, dict[str, Any]] = {
    "btcv": {
        "in_channels": 1,
        "out_channels": 14,
        "img_size": (64, 128, 128),
        "patch_size": (2, 4, 4),
    },
    "acdc": {
        "in_channels": 1,
        "out_channels": 4,
        "img_size": (16, 160, 160),
        "patch_size": (1, 4, 4),
        "attention_dropout": (0.1, 0.15),
        "num_convolutions": 2,
        "share_projection": False,
    },
    "brats": {
        "in_channels": 4,
        "out_channels": 4,
        "img_size": (128, 128, 128),
        "patch_size": (4, 4, 4),
        "attention_dropout": (0.1, 0.15),
        "projection_bias": False,
        "fusion": "add",
    },
}


class UNETRPlusPlus(nn.Module):
    r"""UNETR++ for images (B, C, \*spatial), as published for Synapse by default.

    A strided convolution embeds patches. The encoder consists of stages of :class:`PairedAttentionBlock`, with the
    feature maps halved between them. The decoder doubles them again, and adds the encoder's features at each resolution
    and, at full resolution, convolved features of the image itself.

    In training mode with deep supervision the network returns logits (B, out_channels, \*spatial) at several
    resolutions as a list, full resolution first, then that of the patch grid and of half of it. Otherwise it returns
    the full-resolution tensor alone, unless the attribute ``always_return_list`` is set.

    The number of tokens is part of the weights, so the network takes images of ``img_size`` only; larger ones need
    sliding windows. ``patch_embedding`` is the module for token masking.

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        img_size: size of the crops, \*spatial; a multiple of ``patch_size`` · 2^(stages - 1) on each axis. Where it is
            just that on all of them, one voxel is left at the deepest stage, and batch norm trains on two images or
            more.
        feature_size: channels at full resolution.
        hidden_size: channels of the deepest stage; equals ``dims[-1]``, which is its default.
        num_heads: attention heads, the same in all stages or one number per stage; divides the stage's ``dims``.
        depths: blocks per encoder stage.
        dims: channels per stage, by default ``feature_size`` · 2, 4, 8, ...; its length is the number of stages.
        deep_supervision: whether decoder stages have heads of their own for training.
        decoder_depths: blocks per decoder stage, deepest first, or one number for all.
        patch_size: size and stride of the patches, one number or one per axis.
        proj_sizes: tokens per stage that the spatial attention projects keys and values to.
        share_projection: whether keys and values share that projection (Synapse, BraTS).
        projection_bias: whether the projection has a bias (Synapse, ACDC).
        fusion: how the two attention branches become one, see :class:`PairedAttention` (``"add"`` for BraTS).
        num_convolutions: residual convolution blocks behind each attention (2 for ACDC).
        attention_dropout: drop probability of attention weights, or one each for encoder and decoder.
        conv_dropout: drop probability of channels behind the convolution blocks.
        spatial_layout: ``"published"`` behaves as the published code and weights, ``"token"`` keeps the spatial
            branch's results at their tokens, see :class:`PairedAttention`.
        spatial_dims: 2 or 3.

    Raises:
        ValueError: If ``img_size`` has an axis that its divisor does not divide, ``hidden_size``, ``num_heads`` or
            the per-stage lists do not match ``dims``, a number is too small, or an option is unknown.

    Source: Shaker et al., UNETR++: Delving into Efficient and Accurate 3D Medical Image Segmentation, IEEE TMI 2024
    (arXiv 2212.04497).

    Example:
        >>> import torch
        >>> sizes = {"feature_size": 4, "depths": (1, 1), "decoder_depths": 1, "proj_sizes": (8, 8), "num_heads": 2}
        >>> network = UNETRPlusPlus(1, 3, (8, 16, 16), **sizes)
        >>> network.eval()(torch.zeros(1, 1, 8, 16, 16)).shape
        torch.Size([1, 3, 8, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int] | int,
        feature_size: int = 16,
        hidden_size: int | None = None,
        num_heads: int | Sequence[int] = 4,
        depths: Sequence[int] = (3, 3, 3, 3),
        dims: Sequence[int] | None = None,
        deep_supervision: bool = True,
        *,
        decoder_depths: int | Sequence[int] = 3,
        patch_size: Sequence[int] | int = (2, 4, 4),
        proj_sizes: Sequence[int] = (64, 64, 64, 32),
        share_projection: bool = True,
        projection_bias: bool = True,
        fusion: Fusion = "concatenate",
        num_convolutions: int = 1,
        attention_dropout: float | Sequence[float] = 0.15,
        conv_dropout: float = 0.1,
        spatial_layout: SpatialLayout = "published",
        spatial_dims: Literal[2, 3] = 3,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        dims = tuple(dims) if dims is not None else tuple(feature_size * 2**i for i in range(1, len(depths) + 1))
        _check_stages(dims, hidden_size, depths=depths, proj_sizes=proj_sizes)
        patch = ensure_tuple_rep(patch_size, spatial_dims)
        up_depths = ensure_tuple_rep(decoder_depths, len(dims) - 1)
        _check_minimum(1, dims=dims, feature_size=[feature_size], patch_size=patch, proj_sizes=proj_sizes)
        _check_minimum(0, depths=depths, decoder_depths=up_depths, num_convolutions=[num_convolutions])
        self.in_channels = in_channels
        self.img_size: tuple[int, ...] = ensure_tuple_rep(img_size, spatial_dims)
        self.share_projection = share_projection
        self.deep_supervision = deep_supervision
        self.always_return_list = False
        build_stage = partial(
            _build_stage,
            num_convolutions=num_convolutions,
            conv_dropout=conv_dropout,
            share_projection=share_projection,
            projection_bias=projection_bias,
            fusion=fusion,
            spatial_layout=spatial_layout,
        )
        grids, heads = _feature_grids(self.img_size, patch, len(dims)), ensure_tuple_rep(num_heads, len(dims))
        stages = list(zip(dims, grids, proj_sizes, heads, strict=True))
        dropouts = ensure_tuple_rep(attention_dropout, 2)
        self.patch_embedding = _downsampling(spatial_dims, in_channels, dims[0], patch)
        self.downsamples = nn.ModuleList(_downsampling(spatial_dims, *pair, 2) for pair in pairwise(dims))
        self.encoder_stages = nn.ModuleList(
            build_stage(*stage, depth, dropout=dropouts[0]) for stage, depth in zip(stages, depths, strict=True)
        )
        self.encoder_stages.apply(_init_linear)
        self.upsamples = nn.ModuleList(_upsampling(spatial_dims, *pair, 2) for pair in pairwise(dims[::-1]))
        self.decoder_stages = nn.ModuleList(
            build_stage(*stage, depth, dropout=dropouts[1])
            for stage, depth in zip(stages[-2::-1], up_depths, strict=True)
        )
        self.image_block = _residual_block(spatial_dims, in_channels, feature_size)
        self.output_upsample = _upsampling(spatial_dims, dims[0], feature_size, patch)
        self.output_block = _residual_block(spatial_dims, feature_size, feature_size)
        # the deepest stage has no decoder features, hence no head
        widths = (feature_size, *dims[:-1][:2]) if deep_supervision else (feature_size,)
        self.heads = nn.ModuleList(UnetOutBlock(spatial_dims, width, out_channels) for width in widths)

    @classmethod
    def for_dataset(cls, dataset: str, **overrides: Any) -> Self:
        """Build the published variant for a dataset.

        Args:
            dataset: ``"btcv"`` (Synapse), ``"acdc"`` or ``"brats"``.
            overrides: arguments of the constructor to use instead.

        Raises:
            ValueError: If there is no variant for the dataset, or the arguments contradict one another.
        """
        if dataset not in _DATASETS:
            raise ValueError(f"There is no published UNETR++ for {dataset!r}; take one of {', '.join(_DATASETS)}.")
        return cls(**(_DATASETS[dataset] | overrides))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        r"""Segment an image (B, in_channels, \*img_size) into logits.

        Raises:
            ValueError: If the image has another size than ``img_size``; token counts alone would let some pass.
        """
        check_image_size(image.shape[2:], self.img_size)
        maps = self._decode(image, self._encode(image))
        if self.always_return_list or (self.training and self.deep_supervision):
            return [head(features) for head, features in zip(self.heads, maps, strict=False)]
        logits: Tensor = self.heads[0](maps[0])
        return logits

    def __prepare_scriptable__(self) -> TracedNetwork:
        """Return the trace that ``torch.jit.script`` takes instead, of full-resolution logits."""
        return TracedNetwork(self, self.in_channels, self.img_size)

    def _encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of all encoder stages, highest resolution first."""
        features = self.patch_embedding(image)
        stages = []
        for index, stage in enumerate(self.encoder_stages):
            features = stage(self.downsamples[index - 1](features) if index else features)
            stages.append(features)
        return stages

    def _decode(self, image: Tensor, skips: list[Tensor]) -> list[Tensor]:
        """Return the features of all decoder stages, full resolution first."""
        features, maps = skips[-1], []
        for upsample, stage, skip in zip(self.upsamples, self.decoder_stages, skips[-2::-1], strict=True):
            features = stage(upsample(features) + skip)
            maps.append(features)
        maps.append(self.output_block(self.output_upsample(features) + self.image_block(image)))
        return maps[::-1]


def _build_stage(
    dim: int,
    grid: Sequence[int],
    projected_tokens: int,
    num_heads: int,
    depth: int,
    *,
    num_convolutions: int,
    conv_dropout: float,
    **attention: Any,
) -> nn.Sequential:
    return nn.Sequential(
        *(
            PairedAttentionBlock(
                PairedAttention(dim, prod(grid), projected_tokens, num_heads, **attention),
                grid,
                num_convolutions=num_convolutions,
                conv_dropout=conv_dropout,
            )
            for _ in range(depth)
        )
    )


def _downsampling(spatial_dims: int, in_channels: int, out_channels: int, stride: Sequence[int] | int) -> nn.Sequential:
    """Build a convolution of patches, normalised in groups: one per input channel where that divides the output."""
    layers = {
        "conv": get_conv_layer(spatial_dims, in_channels, out_channels, stride, stride, act=None, norm=None),
        "norm": nn.GroupNorm(gcd(in_channels, out_channels), out_channels),
    }
    return nn.Sequential(OrderedDict(layers))


def _upsampling(spatial_dims: int, in_channels: int, out_channels: int, stride: Sequence[int] | int) -> nn.Module:
    conv: nn.Module = get_conv_layer(
        spatial_dims, in_channels, out_channels, stride, stride, act=None, norm=None, is_transposed=True
    )
    return conv


def _residual_block(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    block: nn.Module = UnetResBlock(spatial_dims, in_channels, out_channels, 3, 1, norm_name="instance")
    return block


def _init_linear(module: nn.Module) -> None:
    """Initialise the encoder's linear layers as published; the decoder's keep PyTorch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_stages(dims: Sequence[int], hidden_size: int | None, **per_stage: Sequence[int]) -> None:
    if hidden_size is not None and hidden_size != dims[-1]:
        raise ValueError(
            f"hidden_size is the number of channels of the deepest stage: got {hidden_size}, but dims end with "
            f"{dims[-1]}; leave it out or change dims or feature_size."
        )
    for name, values in per_stage.items():
        if len(values) != len(dims):
            raise ValueError(f"{name} needs one number per stage: got {len(values)} for {len(dims)} stages {dims}.")


def _check_minimum(least: int, **values: Sequence[int]) -> None:
    for name, numbers in values.items():
        for number in numbers:
            check_integer(name, number, minimum=least, remedy="change that number")


def _feature_grids(img_size: Sequence[int], patch_size: Sequence[int], num_stages: int) -> list[tuple[int, ...]]:
    """Return the size of each stage's feature maps."""
    divisors = [patch * 2 ** (num_stages - 1) for patch in patch_size]
    check_multiples("img_size", img_size, divisors, divisors)
    strides = ([patch * 2**stage for patch in patch_size] for stage in range(num_stages))
    return [tuple(size // stride for size, stride in zip(img_size, by, strict=True)) for by in strides]
