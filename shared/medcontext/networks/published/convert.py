"""Conversion of published checkpoints to the ``model.pt`` of our bundles."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from torch import nn

from medcontext.networks import plain_network, save_checkpoint
from medcontext.networks.published.official import OfficialReport, load_official_state_dict
from medcontext.networks.published.official_files import load_official_checkpoint

__all__ = ["convert_checkpoint", "describe_conversion"]


def convert_checkpoint(
    source: str | os.PathLike[str],
    network: nn.Module,
    output: str | os.PathLike[str],
    *,
    strict: bool = True,
    entry: str | None = None,
) -> OfficialReport:
    """Load a published checkpoint into a network and write its weights under our own names.

    Args:
        source: the published file.
        network: one of ours, built with the arguments that the checkpoint was trained with.
        output: the file to write, for :func:`~medcontext.networks.load_weights`.
        strict: refuse a checkpoint that does not fill every tensor of the network.
        entry: which of several networks in the file to convert.

    Returns:
        A report on every tensor.

    Raises:
        FileExistsError: If ``output`` exists.
        FileNotFoundError: If ``source`` does not exist.
        ValueError: If ``strict`` is not a boolean, or the source is unreadable or does not match the network.
    """
    if not isinstance(strict, bool):
        raise ValueError(f"strict must be True or False, got {strict!r}.")
    if Path(output).exists():
        raise FileExistsError(f"{output} exists; choose another output, or move it away.")
    state_dict = load_official_checkpoint(source, entry=entry)
    report = load_official_state_dict(network, state_dict, strict=strict)
    save_checkpoint(plain_network(network).state_dict(), output)
    return report


def describe_conversion(report: OfficialReport, source: str | os.PathLike[str]) -> str:
    """Return the report in words, with the source's SHA-256."""
    with open(source, "rb") as file:
        lines = [f"{source} (SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()})", str(report)]
    if any(name.endswith("mask_token") for name in report.unused):
        lines.append("The mask token is part of token masking, not of the network, and is left out.")
    if report.missing:
        lines.append("Tensors that were not filled hold random values until they are trained.")
    return "\n".join(lines)
