"""Masking of patch-embedding tokens by one learned token, for any network."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TokenMasking"]


class TokenMasking(nn.Module):
    r"""Give a network a second input: which patch-embedding tokens to replace by a learned mask token.

    Tokens are replaced after the embedding, so skip connections from the raw image still see all of it. Without a mask
    the network runs as it is. The wrapped network keeps its own parameter names: save ``token_masking.network``, and
    the mask token is left out.

    Args:
        network: any network of images (B, C, \*spatial).
        embedding: dotted path of the module in it whose output holds the tokens: (B, tokens, features), or
            (B, features, \*grid).
        input_shape: (C, \*spatial) of the crops; one forward pass on it at construction finds the token grid.
        grid: tokens per spatial axis; needed only where tokens come as (B, tokens, features) from patches that are not
            cubes.

    Raises:
        ValueError: If ``embedding`` names no module of the network, its output is not tokens, or their number does
            not determine the grid.

    Source: the token masking of Gani et al., MedContext, MICCAI 2024 (arXiv 2402.17725); the token starts at zero.

    Example:
        >>> embedding = nn.Conv3d(1, 4, kernel_size=4, stride=4)
        >>> network = nn.Sequential(embedding, nn.ConvTranspose3d(4, 2, kernel_size=4, stride=4))
        >>> masking = TokenMasking(network, embedding="0", input_shape=(1, 8, 8, 8))
        >>> masking.grid
        (2, 2, 2)
        >>> mask = torch.zeros(1, 1, 8, 8, 8)
        >>> mask[..., 0] = 1  # one voxel is enough for its token to be masked
        >>> masking.token_mask(mask).sum().item()
        4
        >>> masking(torch.ones(1, 1, 8, 8, 8), mask).shape
        torch.Size([1, 2, 8, 8, 8])
    """

    def __init__(
        self, network: nn.Module, embedding: str, input_shape: Sequence[int], grid: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.embedding = embedding
        tokens = self._example_tokens(input_shape)
        spatial = tuple(input_shape[1:])
        self.channels_last = tokens.ndim == 3
        if not self.channels_last and tokens.ndim != 2 + len(spatial):
            raise ValueError(
                f"The output of {embedding!r} has shape {tuple(tokens.shape)}; token masking needs "
                f"(B, tokens, features) or (B, features, {len(spatial)} spatial axes)."
            )
        self.grid = tuple(grid) if grid is not None else self._find_grid(tokens, spatial)
        count = tokens.shape[1] if self.channels_last else prod(tokens.shape[2:])
        if prod(self.grid) != count:
            raise ValueError(f"grid {self.grid} has {prod(self.grid)} tokens, but {embedding!r} returns {count}.")
        self.mask_token = nn.Parameter(torch.zeros(tokens.shape[-1] if self.channels_last else tokens.shape[1]))

    def _embedding_module(self) -> nn.Module:
        try:
            return self.network.get_submodule(self.embedding)
        except AttributeError as error:
            names = [name for name, _ in self.network.named_modules() if "embed" in name]
            raise ValueError(
                f"{type(self.network).__name__} has no module {self.embedding!r}; "
                f"those with 'embed' in their name are {names[:8]}."
            ) from error

    def _example_tokens(self, input_shape: Sequence[int]) -> Tensor:
        outputs: list[Tensor] = []
        handle = self._embedding_module().register_forward_hook(lambda _m, _i, output: outputs.append(output))
        was_training = self.network.training
        parameter = next(self.network.parameters())
        try:
            with torch.no_grad():
                self.network.eval()(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
        finally:
            handle.remove()
            self.network.train(was_training)
        if not outputs or not isinstance(outputs[0], Tensor):
            raise ValueError(
                f"{self.embedding!r} returns no tensor in a forward pass; give the path of the patch embedding."
            )
        return outputs[0]

    def _find_grid(self, tokens: Tensor, spatial: tuple[int, ...]) -> tuple[int, ...]:
        if not self.channels_last:
            return tuple(tokens.shape[2:])
        patch = round((prod(spatial) / tokens.shape[1]) ** (1 / len(spatial)))
        grid = tuple(size // patch for size in spatial)
        if prod(grid) != tokens.shape[1]:
            raise ValueError(
                f"{tokens.shape[1]} tokens of a {spatial} crop are not those of cubic patches; give `grid`, "
                "the number of tokens along each axis."
            )
        return grid

    def token_mask(self, context_mask: Tensor) -> Tensor:
        r"""Mark the tokens (B, 1, \*grid) of which any voxel in (B, 1, \*spatial) is dropped, as booleans."""
        pool = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[len(self.grid) - 1]
        pooled: Tensor = pool(context_mask.float(), self.grid)
        return pooled > 0

    def forward(self, image: Tensor, context_mask: Tensor | None = None) -> Tensor | list[Tensor]:
        r"""Run the network on (B, C, \*spatial), with the tokens under (B, 1, \*spatial) ``context_mask`` replaced."""
        if context_mask is None:
            whole: Tensor | list[Tensor] = self.network(image)
            return whole
        mask = self.token_mask(context_mask)

        def replace(_module: nn.Module, _inputs: object, tokens: Tensor) -> Tensor:
            if self.channels_last:
                return torch.where(mask.flatten(2).transpose(1, 2), self.mask_token.to(tokens.dtype), tokens)
            token = self.mask_token.to(tokens.dtype).view(1, -1, *([1] * len(self.grid)))
            return torch.where(mask, token, tokens)

        handle = self._embedding_module().register_forward_hook(replace)
        try:
            masked: Tensor | list[Tensor] = self.network(image)
        finally:
            handle.remove()
        return masked
