"""Self-attention within shifted 3D windows, and attention from a decoder to its skip connection."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from monai.networks.blocks import MLPBlock
from monai.networks.layers import DropPath
from torch import Tensor, nn

__all__ = ["RelativePosition", "WindowAttention", "WindowBlock", "WindowStage", "fit_window", "relative_position_index"]

RelativePosition: TypeAlias = Literal["published", "standard"]
Triple: TypeAlias = tuple[int, int, int]

_MASKED = -100.0  # added to the logits between tokens that only a shift brought together


def relative_position_index(window: Sequence[int], scheme: RelativePosition = "published") -> Tensor:
    """Return the row of the bias table for each pair of tokens in a window.

    With offsets d0, d1, d2 counted from 0, ``"standard"`` gives every offset a row of its own:
    ``d0·(2·w1 - 1)·(2·w2 - 1) + d1·(2·w2 - 1) + d2``. ``"published"`` is the formula that the released weights of
    nnFormer were trained with, ``d0·(3·w1 - 1) + d1·(2·w1 - 1) + d2``: offsets share rows and most rows are never used.

    Args:
        window: tokens per axis (w0, w1, w2).
        scheme: the formula.

    Returns:
        (N, N) int64 with N = w0·w1·w2.

    Raises:
        ValueError: If the scheme is unknown, or its rows for this window exceed the table.
    """
    w0, w1, w2 = window
    if scheme == "published":
        strides = (3 * w1 - 1, 2 * w1 - 1, 1)
    elif scheme == "standard":
        strides = ((2 * w1 - 1) * (2 * w2 - 1), 2 * w2 - 1, 1)
    else:
        raise ValueError(f"relative_position must be 'published' or 'standard', got {scheme!r}.")
    last = sum(stride * (2 * size - 2) for stride, size in zip(strides, window, strict=True))
    rows = _table_rows(window)
    if last >= rows:
        raise ValueError(
            f"For the window {(w0, w1, w2)} the published relative-position index reaches row {last} of a table of "
            f"{rows}; use relative_position='standard', or a cubic window."
        )
    coordinates = torch.cartesian_prod(*(torch.arange(size) for size in window)).reshape(-1, 3)
    offsets = coordinates[:, None] - coordinates[None, :] + torch.tensor([size - 1 for size in window])
    return (offsets * torch.tensor(strides)).sum(-1)


def _table_rows(window: Sequence[int]) -> int:
    return prod(2 * size - 1 for size in window)


def fit_window(window: int | Sequence[int], resolution: Triple) -> tuple[Triple, Triple]:
    """Return the window used on a token grid, and the shift of every other block.

    An integer means a cube: it shrinks to the grid's shortest side where that is no longer than the window, and then
    nothing is shifted. A triple is used as it is, on a padded grid where necessary, and shifted unless it equals the
    grid.

    Raises:
        ValueError: If the window is neither an integer nor three of them, or is not positive.
    """
    sizes = (window,) * 3 if isinstance(window, int) else tuple(window)
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(f"window_size needs a positive integer or three of them per stage, got {window!r}.")
    if isinstance(window, int) and min(resolution) <= window:
        return (min(resolution),) * 3, (0, 0, 0)
    shift = (0, 0, 0) if sizes == resolution else (sizes[0] // 2, sizes[1] // 2, sizes[2] // 2)
    return (sizes[0], sizes[1], sizes[2]), shift


def _axis_regions(length: int, window: int, shift: int) -> Tensor:
    """Number the parts that a shifted axis was cut from, for every position along it."""
    regions = torch.zeros(length, dtype=torch.int64)
    if shift:
        regions[-window:-shift], regions[-shift:] = 1, 2
    return regions


def _partition(grid: Tensor, window: Triple) -> Tensor:
    """Split (B, S, H, W, C) into (B, windows, N, C)."""
    batch, depth, height, width, channels = grid.shape
    w0, w1, w2 = window
    cells = grid.reshape(batch, depth // w0, w0, height // w1, w1, width // w2, w2, channels)
    return cells.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, -1, w0 * w1 * w2, channels)


def _assemble(windows: Tensor, window: Triple, resolution: Triple) -> Tensor:
    """Join (B, windows, N, C) to (B, S, H, W, C)."""
    counts = [size // length for size, length in zip(resolution, window, strict=True)]
    cells = windows.reshape(windows.shape[0], *counts, *window, windows.shape[-1])
    return cells.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(windows.shape[0], *resolution, windows.shape[-1])


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias per relative position.

    Args:
        channels: features per token.
        num_heads: attention heads; must divide ``channels``.
        window: tokens per axis.
        external_queries: take the queries, unprojected, from a second input instead of from the tokens.
        relative_position: see :func:`relative_position_index`.

    Raises:
        ValueError: If the heads do not divide the channels, or the window is too large for the index.
    """

    def __init__(
        self, channels: int, num_heads: int, window: Triple, external_queries: bool, relative_position: RelativePosition
    ) -> None:
        super().__init__()
        if num_heads < 1 or channels % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {channels} channels; change num_heads or embed_dim.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, (2 if external_queries else 3) * channels)
        self.projection = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(_table_rows(window), num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        # part of the state dict, so that weights keep the index that they were trained with
        self.relative_position_index: Tensor
        self.register_buffer("relative_position_index", relative_position_index(window, relative_position))

    def _bias(self, regions: Tensor | None) -> Tensor:
        """Return the bias of the logits: (1, heads, N, N), or (windows, heads, N, N) where parts are kept apart."""
        count = self.relative_position_index.shape[0]
        rows = self.relative_position_bias_table[self.relative_position_index.reshape(-1)]
        bias = rows.reshape(count, count, -1).permute(2, 0, 1)[None]
        if regions is None:
            return bias
        apart = regions[:, :, None] != regions[:, None, :]
        return bias + _MASKED * apart[:, None].to(bias.dtype)

    def forward(self, tokens: Tensor, queries: Tensor | None = None, regions: Tensor | None = None) -> Tensor:
        """Attend within windows.

        Args:
            tokens: (B, windows, N, C); keys and values, and queries unless these are external.
            queries: (B, windows, N, C), with external queries only.
            regions: (windows, N) integers; tokens of different regions do not attend to each other.

        Returns:
            (B, windows, N, C).
        """
        batch, windows, count, channels = tokens.shape
        heads = (batch * windows, count, -1, self.num_heads, channels // self.num_heads)
        parts = [part.transpose(1, 2) for part in self.qkv(tokens).reshape(heads).unbind(2)]
        if queries is not None:
            parts.insert(0, queries.reshape(heads).squeeze(2).transpose(1, 2))
        query, key, value = parts
        bias = self._bias(regions).to(query.dtype)
        if regions is not None:
            bias = bias.repeat(batch, 1, 1, 1)  # the fused kernels take four axes only
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        projected: Tensor = self.projection(attended.transpose(1, 2).reshape(batch, windows, count, channels))
        return projected


class WindowBlock(nn.Module):
    """Window attention and an MLP, each behind a layer norm and with a residual.

    Args:
        channels: features per token.
        num_heads: attention heads.
        window: tokens per axis.
        shift: by how many tokens per axis the windows are displaced.
        resolution: the token grid (S, H, W).
        mask_shifted: keep tokens apart that only the shift brought into one window.
        from_skip: queries come from the tokens, keys and values from the skip connection.
        relative_position: see :func:`relative_position_index`.
        mlp_ratio: hidden over input width of the MLP.
        drop_path: probability of dropping each residual branch for a sample while training.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        window: Triple,
        shift: Triple,
        resolution: Triple,
        *,
        mask_shifted: bool = True,
        from_skip: bool = False,
        relative_position: RelativePosition = "published",
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window, self.shift, self.resolution = window, shift, resolution
        padding = [-size % length for size, length in zip(resolution, window, strict=True)]
        depth, height, width = (size + extra for size, extra in zip(resolution, padding, strict=True))
        self.padded: Triple = (depth, height, width)
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, num_heads, window, from_skip, relative_position)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLPBlock(channels, int(channels * mlp_ratio))
        self.regions: Tensor | None
        self.register_buffer("regions", self._regions() if mask_shifted and any(shift) else None, persistent=False)

    def _regions(self) -> Tensor:
        axes = [_axis_regions(*sizes) for sizes in zip(self.padded, self.window, self.shift, strict=True)]
        labels = axes[0][:, None, None] * 9 + axes[1][:, None] * 3 + axes[2]
        return _partition(labels[None, ..., None], self.window)[0, :, :, 0]

    def _windows(self, tokens: Tensor) -> Tensor:
        grid = self.norm1(tokens)
        (s, h, w), (depth, height, width) = self.resolution, self.padded
        if self.padded != self.resolution:  # padding takes part in attention, as published
            grid = F.pad(grid, (0, 0, 0, width - w, 0, height - h, 0, depth - s))
        if any(self.shift):
            grid = torch.roll(grid, [-size for size in self.shift], (1, 2, 3))
        return _partition(grid, self.window)

    def forward(self, tokens: Tensor, skip: Tensor | None = None) -> Tensor:
        """Mix tokens (B, S, H, W, C), attending to the skip connection of the same shape if there is one."""
        if skip is None:
            attended = self.attention(self._windows(tokens), regions=self.regions)
        else:
            attended = self.attention(self._windows(skip), self._windows(tokens), self.regions)
            tokens = tokens + skip
        grid = _assemble(attended, self.window, self.padded)
        if any(self.shift):
            grid = torch.roll(grid, self.shift, (1, 2, 3))
        s, h, w = self.resolution
        tokens = tokens + self.drop_path(grid[:, :s, :h, :w])
        mixed: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return mixed


class WindowStage(nn.Module):
    """Window blocks at one resolution, every second one with shifted windows.

    Args:
        channels: features per token.
        num_heads: attention heads.
        window_size: tokens per axis; see :func:`fit_window`.
        resolution: the token grid (S, H, W).
        drop_paths: one probability per block.
        from_skip: the first block attends to a skip connection.
        mask_shifted: see :class:`WindowBlock`.
        relative_position: see :func:`relative_position_index`.
        mlp_ratio: see :class:`WindowBlock`.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        window_size: int | Sequence[int],
        resolution: Triple,
        drop_paths: Sequence[float],
        *,
        from_skip: bool = False,
        mask_shifted: bool = True,
        relative_position: RelativePosition = "published",
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        window, shift = fit_window(window_size, resolution)
        self.blocks = nn.ModuleList(
            WindowBlock(
                channels,
                num_heads,
                window,
                shift if index % 2 else (0, 0, 0),
                resolution,
                mask_shifted=mask_shifted,
                from_skip=from_skip and index == 0,
                relative_position=relative_position,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path,
            )
            for index, drop_path in enumerate(drop_paths)
        )

    def forward(self, tokens: Tensor, skip: Tensor | None = None) -> Tensor:
        """Mix tokens (B, S, H, W, C); ``skip``, of the same shape, goes to the first block."""
        for block in self.blocks:
            tokens, skip = block(tokens, skip), None
        return tokens
