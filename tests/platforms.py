"""What a test needs of the system that it runs on."""

from __future__ import annotations

import os

import pytest

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals, forks, limits, or Bash")
