"""Published weights in our networks: maps of their names, and the conversion to ``model.pt``."""

from __future__ import annotations

from medcontext.networks.published import (  # importing them registers their networks
    monai_checkpoints,
    nnformer,
    unetr_plus_plus,
)
from medcontext.networks.published.convert import convert_checkpoint, describe_conversion
from medcontext.networks.published.official import OfficialReport, load_official_state_dict
from medcontext.networks.published.official_files import load_official_checkpoint

__all__ = [
    "OfficialReport",
    "convert_checkpoint",
    "describe_conversion",
    "load_official_checkpoint",
    "load_official_state_dict",
    "monai_checkpoints",
    "nnformer",
    "unetr_plus_plus",
]
