"""``python -m medcontext``."""

from __future__ import annotations

import signal
from types import FrameType

from medcontext.cli import main


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Let SIGTERM end a command as Ctrl-C does, so that it stops the processes that it started."""
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    handler = signal.signal(signal.SIGTERM, _interrupt)
    try:
        main()
    finally:  # for programs that run this module within their own process
        signal.signal(signal.SIGTERM, handler)
