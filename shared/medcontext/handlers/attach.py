"""Handlers that a configuration has under a key of their own."""

from __future__ import annotations

from typing import Protocol

from ignite.engine import Engine

__all__ = ["Attach"]


class _Handler(Protocol):
    def attach(self, engine: Engine) -> None: ...


class Attach:
    """Attach a handler that another part of a configuration refers to as well.

    MONAI's checks of a bundle expect a ``_target_`` in every entry of ``train#handlers``; a plain reference has none.

    Args:
        handler: the handler.
    """

    def __init__(self, handler: _Handler) -> None:
        self.handler = handler

    def attach(self, engine: Engine) -> None:
        """Attach the handler."""
        self.handler.attach(engine)
