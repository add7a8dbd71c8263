"""Networks and what wraps them."""

from __future__ import annotations

from medcontext.networks import monai_checkpoints  # noqa: F401  it registers its networks
from medcontext.networks.ensemble import CheckpointEnsemble, checkpoint_record, load_networks
from medcontext.networks.nnformer import NNFormer
from medcontext.networks.official import OfficialReport, load_official_state_dict
from medcontext.networks.official_files import load_official_checkpoint
from medcontext.networks.pretrained import load_pretrained
from medcontext.networks.token_masking import TokenMasking
from medcontext.networks.unetr_plus_plus import UNETRPlusPlus
from medcontext.networks.wrapping import (
    find_token_masking,
    load_checkpoint,
    load_weights,
    make_teacher,
    plain_network,
    prepare_network,
)

__all__ = [
    "NNFormer",
    "UNETRPlusPlus",
    "CheckpointEnsemble",
    "OfficialReport",
    "checkpoint_record",
    "load_official_checkpoint",
    "load_official_state_dict",
    "load_pretrained",
    "TokenMasking",
    "find_token_masking",
    "load_checkpoint",
    "load_networks",
    "load_weights",
    "make_teacher",
    "plain_network",
    "prepare_network",
]
