"""Checks of configuration files, before MONAI reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.bundle import ConfigParser

from medcontext.checks import nearest_name

__all__ = ["check_files"]


def check_files(files: Sequence[str]) -> None:
    """Check that configuration files exist and can be read.

    Raises:
        FileNotFoundError: If one does not exist; the message names the most similar file beside it.
        ValueError: If one is not valid JSON or YAML.
    """
    for path in map(Path, files):
        if not path.is_file():
            beside = [other.name for other in path.parent.glob("*.*")]
            raise FileNotFoundError(f"There is no configuration file {path}.{nearest_name(path.name, beside)}")
        try:
            ConfigParser.load_config_file(path)
        except Exception as error:  # of the JSON and YAML readers, of many kinds
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path} is not a configuration in JSON or YAML, saved as UTF-8 without a byte order mark ({reason})."
            ) from error
