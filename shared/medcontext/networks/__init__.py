"""Networks and what wraps them."""

from __future__ import annotations

from medcontext.networks.nnformer import NNFormer
from medcontext.networks.official import OfficialReport, load_official_state_dict
from medcontext.networks.token_masking import TokenMasking
from medcontext.networks.unetr_plus_plus import UNETRPlusPlus
from medcontext.networks.wrapping import (
    load_checkpoint,
    load_weights,
    make_teacher,
    plain_network,
    prepare_network,
)

__all__ = [
    "NNFormer",
    "UNETRPlusPlus",
    "OfficialReport",
    "load_official_state_dict",
    "TokenMasking",
    "load_checkpoint",
    "load_weights",
    "make_teacher",
    "plain_network",
    "prepare_network",
]
