"""Published checkpoints as the ``model.pt`` of our bundles."""

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
    """Fill a network from a published checkpoint and write its weights under our own names.

    Args:
        source: the published file.
        network: one of ours, built with the arguments that the checkpoint was trained with.
        output: the file to write; what :func:`~medcontext.networks.load_weights` reads.
        strict: refuse a checkpoint that leaves tensors of the network as they were.
        entry: which of several networks in the file to take.

    Returns:
        What became of every tensor.

    Raises:
        FileExistsError: If ``output`` exists.
        FileNotFoundError: If ``source`` does not.
        ValueError: If ``strict`` is no truth value, or the source is unreadable or does not fit the network.
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
    """The report in words, with the source's SHA-256."""
    with open(source, "rb") as file:
        lines = [f"{source} (SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()})", str(report)]
    if any(name.endswith("mask_token") for name in report.unused):
        lines.append("The mask token belongs to token masking, not to the network, and is left out.")
    if report.missing:
        lines.append("What was left as it was holds random values until it is trained.")
    return "\n".join(lines)
