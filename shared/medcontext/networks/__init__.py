"""Networks and what wraps them."""

from __future__ import annotations

from medcontext.networks.token_masking import TokenMasking
from medcontext.networks.wrapping import (
    load_checkpoint,
    load_weights,
    make_teacher,
    plain_network,
    prepare_network,
)

__all__ = ["TokenMasking", "load_checkpoint", "load_weights", "make_teacher", "plain_network", "prepare_network"]
