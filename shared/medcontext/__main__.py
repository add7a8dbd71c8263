"""``python -m medcontext``."""

from __future__ import annotations

from medcontext.cli import main

if __name__ == "__main__":
    main()
