"""Efficient paired attention: one pair of queries and keys that attends over space and over channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from monai.networks.blocks import UnetResBlock
from monai.networks.layers.factories import Conv, Dropout
from torch import Tensor, nn

from medcontext.checks import check_choice

__all__ = ["PairedAttention", "PairedAttentionBlock", "Fusion", "SpatialLayout"]

Fusion = Literal["concatenate", "add"]
SpatialLayout = Literal["published", "token"]


class PairedAttention(nn.Module):
    """Spatial and channel attention that share queries and keys.

    With queries, keys and two sets of values from one linear layer, each (d, N) per head for N tokens of d features,
    queries and keys scaled to unit length along the tokens (Q̂, K̂), and E and F linear maps of N tokens onto P:

        spatial = softmax(t₂ · Q̂ᵀ E(K)) F(V_spatial)ᵀ        channel = softmax(t₁ · Q̂ K̂ᵀ) V_channel

    so that the cost is linear in N. E sees the keys before they are scaled.

    Args:
        dim: features C per token.
        num_tokens: N, the number of tokens.
        projected_tokens: P, the number of tokens that keys and values of the spatial branch are projected to.
        num_heads: number of heads; divides ``dim``.
        share_projection: whether E and F are one layer.
        projection_bias: whether E and F have a bias.
        fusion: ``"concatenate"`` halves each branch by a linear layer and joins them, ``"add"`` adds them as they are.
        dropout: drop probability of the attention weights.
        spatial_layout: ``"token"`` gives each token the spatial branch's result for it. ``"published"`` does as the
            authors' code: it reads that result's N × C numbers, stored features first, as if tokens came first, so
            a token gets values of many others. Weights trained with one layout are meaningless with the other.

    Raises:
        ValueError: If an option is unknown, ``num_heads`` does not divide ``dim``, or ``dropout`` is not a probability
            below one.

    Source: Shaker et al., UNETR++, IEEE TMI 2024 (arXiv 2212.04497), section 3.2.
    """

    def __init__(
        self,
        dim: int,
        num_tokens: int,
        projected_tokens: int,
        num_heads: int,
        *,
        share_projection: bool = True,
        projection_bias: bool = True,
        fusion: Fusion = "concatenate",
        dropout: float = 0.0,
        spatial_layout: SpatialLayout = "published",
    ) -> None:
        super().__init__()
        check_choice("fusion", fusion, get_args(Fusion))
        check_choice("spatial_layout", spatial_layout, get_args(SpatialLayout))
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide the stage's features, got {num_heads} heads and {dim} features.")
        if not 0 <= dropout < 1:
            raise ValueError(f"The drop probability of attention weights must lie in [0, 1), got {dropout}.")
        self.dim = dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.spatial_layout = spatial_layout
        self.channel_temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.spatial_temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkvv = nn.Linear(dim, 4 * dim, bias=False)
        self.key_projection = nn.Linear(num_tokens, projected_tokens, bias=projection_bias)
        self.value_projection = (
            None if share_projection else nn.Linear(num_tokens, projected_tokens, bias=projection_bias)
        )
        joined = fusion == "concatenate"
        self.spatial_output = nn.Linear(dim, dim // 2) if joined else None
        self.channel_output = nn.Linear(dim, dim - dim // 2) if joined else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend over tokens (B, N, C); the shape stays the same."""
        shared = self.qkvv(tokens).unflatten(2, (4, self.num_heads, -1)).permute(2, 0, 3, 4, 1)
        queries, keys, channel_values, spatial_values = shared.unbind(0)  # each (B, heads, d, N)
        project_values = self.key_projection if self.value_projection is None else self.value_projection
        spatial_keys, spatial_values = self.key_projection(keys), project_values(spatial_values)
        queries, keys = F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)
        dropout = self.dropout if self.training else 0.0
        # the learned temperatures stand in for the usual scale
        spatial = F.scaled_dot_product_attention(
            (queries * self.spatial_temperature).transpose(-2, -1),
            spatial_keys.transpose(-2, -1),
            spatial_values.transpose(-2, -1),
            dropout_p=dropout,
            scale=1.0,
        )
        # d × d weights over rows of N numbers: fused kernels expect short rows, plain products are twice as fast
        weights = F.dropout((queries @ keys.transpose(-2, -1) * self.channel_temperature).softmax(-1), dropout)
        channel = weights @ channel_values
        return self._fuse(self._to_tokens(spatial, tokens), channel.permute(0, 3, 1, 2).flatten(2))

    def _to_tokens(self, spatial: Tensor, tokens: Tensor) -> Tensor:
        """Reshape the spatial branch (B, heads, N, d) like the tokens (B, N, C)."""
        if self.spatial_layout == "token":
            return spatial.transpose(1, 2).flatten(2)
        return spatial.permute(0, 3, 1, 2).reshape(tokens.shape)

    def _fuse(self, spatial: Tensor, channel: Tensor) -> Tensor:
        if self.spatial_output is None or self.channel_output is None:
            return spatial + channel
        return torch.cat((self.spatial_output(spatial), self.channel_output(channel)), dim=-1)


class PairedAttentionBlock(nn.Module):
    r"""Paired attention with a learned position embedding, then residual convolutions.

    Args:
        attention: attention over the tokens of the feature maps, one token per voxel.
        grid: size of the feature maps, \*spatial.
        num_convolutions: number of residual convolution blocks after the attention.
        conv_dropout: drop probability of whole channels after them.
    """

    def __init__(
        self, attention: PairedAttention, grid: Sequence[int], *, num_convolutions: int = 1, conv_dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.grid = tuple(grid)
        spatial_dims, dim = len(self.grid), attention.dim
        self.position_embedding = nn.Parameter(torch.zeros(1, prod(self.grid), dim))
        self.norm = nn.LayerNorm(dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))  # attention fades in while training
        self.attention = attention
        self.convolutions = nn.Sequential(
            *(
                UnetResBlock(spatial_dims, dim, dim, kernel_size=3, stride=1, norm_name="batch")
                for _ in range(num_convolutions)
            )
        )
        self.channel_dropout = Dropout[Dropout.DROPOUT, spatial_dims](conv_dropout)
        self.pointwise = Conv[Conv.CONV, spatial_dims](dim, dim, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        r"""Refine features (B, C, \*grid); the shape stays the same."""
        tokens = features.flatten(2).transpose(1, 2) + self.position_embedding
        tokens = tokens + self.gamma * self.attention(self.norm(tokens))
        attended = tokens.transpose(1, 2).unflatten(2, self.grid)
        refined: Tensor = self.pointwise(self.channel_dropout(self.convolutions(attended)))
        return attended + refined
