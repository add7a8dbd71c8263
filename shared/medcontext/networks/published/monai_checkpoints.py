"""Names of the tensors of published UNETR and SwinUNETR checkpoints in MONAI's current networks."""

from __future__ import annotations

import re
from math import prod

from monai.networks.nets import UNETR, SwinUNETR
from torch import Tensor

from medcontext.networks.published.official import register_official

__all__ = ["swin_unetr_entry", "unetr_entry"]

_PATCH_WEIGHT = {
    "perceptron": "vit.patch_embedding.patch_embeddings.1.weight",
    "conv": "vit.patch_embedding.patch_embeddings.weight",
}


@register_official(
    UNETR,
    arguments=[
        ("in_channels", "encoder1.layer.conv1.conv.weight", 1),
        ("out_channels", "out.conv.conv.bias", 0),
        ("feature_size", "encoder1.layer.conv1.conv.weight", 0),
        ("hidden_size", "vit.norm.weight", 0),
        ("mlp_dim", "vit.blocks.0.mlp.linear1.weight", 0),
        ("patches in img_size", "vit.patch_embedding.position_embeddings", 1),
    ],
    never_used=r"\.norm_cross_attn\.",
)
def unetr_entry(network: UNETR, key: str, value: Tensor) -> tuple[str, Tensor]:
    """Return the name and layout of a tensor of a UNETR checkpoint in MONAI's current UNETR.

    The checkpoints of MedContext (and of a bare ViT) lack the prefix ``vit.``. Those of old MONAI may embed patches
    with a linear layer where the current default is a convolution: the same function with its weight in another
    order, which is changed to that of ``network``. The number of attention heads leaves no trace in the weights.

    Args:
        network: the network to load the tensor into.
        key: published name, without prefixes of wrappers.
        value: its tensor.

    Returns:
        The current name and the tensor.
    """
    key = re.sub(r"^(?=(patch_embedding|blocks|norm)\.)", "vit.", key)
    own = network.vit.patch_embedding.proj_type
    key = re.sub(r"(?<=\.patch_embeddings)(\.1)?(?=\.(weight|bias)$)", ".1" if own == "perceptron" else "", key)
    if key == _PATCH_WEIGHT[own]:
        value = _as_convolution(network, value) if own == "conv" else _as_linear(value)
    return key, value


def _as_convolution(network: UNETR, weight: Tensor) -> Tensor:
    """Reshape (hidden, patch voxels · channels), channels last, to (hidden, channels, patch axes); keep others."""
    patch = network.vit.patch_embedding.patch_embeddings.kernel_size
    if weight.ndim != 2 or weight.shape[1] % prod(patch):
        return weight
    return weight.unflatten(1, (*patch, -1)).movedim(-1, 1)


def _as_linear(weight: Tensor) -> Tensor:
    """Reshape (hidden, channels, patch axes) to (hidden, patch voxels · channels), channels last."""
    return weight if weight.ndim == 2 else weight.movedim(1, -1).flatten(1)


@register_official(
    SwinUNETR,
    arguments=[
        ("in_channels", "swinViT.patch_embed.proj.weight", 1),
        ("out_channels", "out.conv.conv.bias", 0),
        ("feature_size", "swinViT.patch_embed.proj.weight", 0),
        ("patch_size", "swinViT.patch_embed.proj.weight", 2),
        ("num_heads of the first stage", "swinViT.layers1.0.blocks.0.attn.relative_position_bias_table", 1),
        ("offsets in window_size", "swinViT.layers1.0.blocks.0.attn.relative_position_bias_table", 0),
    ],
)
def swin_unetr_entry(network: SwinUNETR, key: str, value: Tensor) -> tuple[str, Tensor]:
    """Return the name of a tensor of a SwinUNETR checkpoint in MONAI's current SwinUNETR.

    The names have been the same since MONAI 1.2. Checkpoints of the self-supervised encoder alone lack the prefix
    ``swinViT.`` (or say ``swin_vit.``) and call the layers of the MLPs ``fc1`` and ``fc2``. How ``downsample`` merges
    leaves no trace in the weights.

    Args:
        network: the network to load the tensor into.
        key: published name, without prefixes of wrappers.
        value: its tensor.

    Returns:
        The current name and the tensor.
    """
    key = re.sub(r"^(swin_vit\.|(?=(patch_embed|layers\d+c?)\.))", "swinViT.", key)
    return re.sub(r"(?<=\.mlp)\.fc(?=[12]\.)", ".linear", key), value
