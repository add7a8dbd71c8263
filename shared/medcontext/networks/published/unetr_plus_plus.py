"""Names of the tensors of the authors' UNETR++ checkpoints in our network."""

from __future__ import annotations

import re

from torch import Tensor

from medcontext.networks.published.official import register_official
from medcontext.networks.unetr_plus_plus import UNETRPlusPlus

__all__ = ["unetr_plus_plus_entry"]

_OFFICIAL_MODULES = {
    "unetr_pp_encoder.downsample_layers.0.0": "patch_embedding.conv",
    "unetr_pp_encoder.downsample_layers.0.1": "patch_embedding.norm",
    **{
        f"unetr_pp_encoder.downsample_layers.{i + 1}.{part}": f"downsamples.{i}.{name}"
        for i in range(3)
        for part, name in enumerate(("conv", "norm"))
    },
    "unetr_pp_encoder.stages": "encoder_stages",
    **{f"decoder{5 - i}.transp_conv": f"upsamples.{i}" for i in range(3)},
    **{f"decoder{5 - i}.decoder_block.0": f"decoder_stages.{i}" for i in range(3)},
    "encoder1": "image_block",
    "decoder2.transp_conv": "output_upsample",
    "decoder2.decoder_block.0": "output_block",
    **{f"out{i + 1}": f"heads.{i}" for i in range(3)},
}
_OFFICIAL_BLOCK_NAMES = {
    "pos_embed": "position_embedding",
    "epa_block.temperature": "attention.channel_temperature",
    "epa_block.temperature2": "attention.spatial_temperature",
    "epa_block.qkvv": "attention.qkvv",
    "epa_block.E": "attention.key_projection",
    "epa_block.F": "attention.value_projection",
    "epa_block.EF": "attention.key_projection.weight",
    "epa_block.out_proj": "attention.spatial_output",
    "epa_block.out_proj2": "attention.channel_output",
    "conv51": "convolutions.0",
    "conv52": "convolutions.1",
    "conv8.1": "pointwise",
}
_OFFICIAL_BLOCK = re.compile(rf"(?<=\.)({'|'.join(map(re.escape, _OFFICIAL_BLOCK_NAMES))})(?=\.|$)")


@register_official(
    UNETRPlusPlus,
    arguments=[
        ("in_channels", "image_block.conv1.conv.weight", 1),
        ("out_channels", "heads.0.conv.conv.bias", 0),
        ("feature_size", "output_block.conv1.conv.weight", 0),
        ("dims of the first stage", "patch_embedding.norm.weight", 0),
        ("num_heads of the first stage", "encoder_stages.0.0.attention.spatial_temperature", 0),
        ("proj_sizes of the first stage", "encoder_stages.0.0.attention.key_projection.weight", 0),
        ("patches in img_size", "encoder_stages.0.0.position_embedding", 1),
    ],
)
def unetr_plus_plus_entry(network: UNETRPlusPlus, key: str, value: Tensor) -> tuple[str, Tensor] | None:
    """Return the name and layout of a tensor of the authors' checkpoints in our network.

    Args:
        network: the network to load the tensor into. Where it shares its projections, the published ``E`` and ``F`` are
            one tensor under two names and both are loaded into its one layer; the later one, ``F``, counts.
        key: published name, without prefixes of wrappers.
        value: its tensor.

    Returns:
        Our name and the tensor in our layout, or ``None`` if the network has no such tensor.
    """
    for official, ours in _OFFICIAL_MODULES.items():
        if key.startswith(f"{official}."):
            name = ours + _OFFICIAL_BLOCK.sub(lambda match: _OFFICIAL_BLOCK_NAMES[match[0]], key[len(official) :])
            break
    else:
        return None
    if network.share_projection:
        name = name.replace(".value_projection.", ".key_projection.")
    # a bare matrix (N, P) in their network, the weight of a linear layer in ours
    return name, value.T if key.endswith(".EF") else value
