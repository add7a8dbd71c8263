"""Names of the tensors of the authors' nnFormer checkpoints in our network."""

from __future__ import annotations

import re

from torch import Tensor

from medcontext.networks.nnformer import NNFormer
from medcontext.networks.published.official import register_official

__all__ = ["nnformer_entry"]

_OFFICIAL_NAMES = (
    (r"^model_down\.patch_embed\.proj1\.conv1\.", "patch_embedding.convolutions.0."),
    (r"^model_down\.patch_embed\.proj1\.conv2\.", "patch_embedding.convolutions.1."),
    (r"^model_down\.patch_embed\.proj2\.conv1\.", "patch_embedding.convolutions.2."),
    (r"^model_down\.patch_embed\.proj2\.conv2\.", "patch_embedding.convolutions.3."),
    (r"^model_down\.patch_embed\.proj1\.norm1\.", "patch_embedding.norms.0."),
    (r"^model_down\.patch_embed\.proj1\.norm2\.", "patch_embedding.norms.1."),
    (r"^model_down\.patch_embed\.proj2\.norm1\.", "patch_embedding.norms.2."),
    (r"^model_down\.patch_embed\.norm\.", "patch_embedding.norms.3."),
    (r"^model_down\.layers\.(\d+)\.downsample\.", r"mergings.\1."),
    (r"^model_down\.layers\.", "encoder."),
    (r"^model_down\.norm(\d+)\.", r"norms.\1."),
    (r"^decoder\.layers\.(\d+)\.Upsample\.norm\.", r"expansions.\1.norm."),
    (r"^decoder\.layers\.(\d+)\.Upsample\.up\.", r"expansions.\1.expansion."),
    (r"^decoder\.layers\.", "decoder."),
    (r"^final\.(\d+)\.up\.", r"heads.\1."),
    (r"\.attn\.(qkv|kv)\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.projection."),
    (r"\.attn\.", ".attention."),
    (r"\.mlp\.fc(\d)\.", r".mlp.linear\1."),
)


@register_official(
    NNFormer,
    arguments=[
        ("in_channels", "patch_embedding.convolutions.0.weight", 1),
        ("out_channels", "heads.0.bias", 0),
        ("embed_dim", "patch_embedding.norms.3.weight", 0),
        ("num_heads of the first stage", "encoder.0.blocks.0.attention.relative_position_bias_table", 1),
        ("offsets in window_size of the first stage", "encoder.0.blocks.0.attention.relative_position_bias_table", 0),
    ],
)
def nnformer_entry(network: NNFormer, key: str, value: Tensor) -> tuple[str, Tensor]:
    """Return the name of a tensor of the authors' checkpoints in our network; layouts are the same.

    Args:
        network: the network to load the tensor into.
        key: published name, without prefixes of wrappers.
        value: its tensor.

    Returns:
        Our name and the tensor.
    """
    for pattern, replacement in _OFFICIAL_NAMES:
        key = re.sub(pattern, replacement, key)
    return key, value
