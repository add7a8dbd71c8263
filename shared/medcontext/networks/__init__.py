"""Networks, their wrappers and their weights."""

from __future__ import annotations

from medcontext.networks.ensemble import CheckpointEnsemble, MeanEnsemble, checkpoint_record, load_networks
from medcontext.networks.nnformer import NNFormer
from medcontext.networks.pretrained import load_pretrained
from medcontext.networks.residual_encoder_unet import ResidualEncoderUNet
from medcontext.networks.token_masking import TokenMasking
from medcontext.networks.unetr_plus_plus import UNETRPlusPlus
from medcontext.networks.weights import CheckpointWriteError, load_checkpoint, load_weights, save_checkpoint
from medcontext.networks.wrappers import find_token_masking, make_teacher, plain_network, prepare_network

__all__ = [
    "CheckpointEnsemble",
    "CheckpointWriteError",
    "MeanEnsemble",
    "NNFormer",
    "ResidualEncoderUNet",
    "TokenMasking",
    "UNETRPlusPlus",
    "checkpoint_record",
    "find_token_masking",
    "load_checkpoint",
    "load_networks",
    "load_pretrained",
    "load_weights",
    "make_teacher",
    "plain_network",
    "prepare_network",
    "save_checkpoint",
]
