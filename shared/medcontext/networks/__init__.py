"""Networks and what wraps them."""

from __future__ import annotations

from medcontext.networks.token_masking import TokenMasking, make_teacher, plain_network, prepare_network

__all__ = ["TokenMasking", "make_teacher", "plain_network", "prepare_network"]
