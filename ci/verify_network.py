"""Check the network of the bundle in the working directory: declared shapes, weights, and the export to TorchScript.

Prints one sentence for each thing that is wrong. Run from inside the bundle, so that a packed one uses its own code.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from monai.bundle import ConfigParser, ckpt_export, verify_net_in_out
from monai.networks.nets import SwinUNETR

TRACED = (SwinUNETR,)  # MONAI's, whose code TorchScript does not compile
META, CONFIG, WEIGHTS = "configs/metadata.json", "configs/inference.json", Path("models/model.pt")


def findings() -> Iterator[str]:
    """What is wrong with the network; random weights stand in for missing ones."""
    try:
        verify_net_in_out("network_def", meta_file=META, config_file=CONFIG)
    except Exception as error:
        yield f"the network does not have the shapes of configs/metadata.json: {_first_line(error)}"
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = WEIGHTS
        if not weights.is_file():
            weights = Path(folder, "model.pt")
            torch.save(_network().state_dict(), weights)
        elif problem := _misfit(weights):
            yield problem
            return
        yield from _export(weights, Path(folder, "model.ts"))


def _network() -> torch.nn.Module:
    network: torch.nn.Module = ConfigParser(ConfigParser.load_config_file(CONFIG)).get_parsed_content("network_def")
    return network


def _misfit(weights: Path) -> str | None:
    try:
        _network().load_state_dict(torch.load(weights, weights_only=True))
    except Exception as error:
        return f"models/model.pt is not of the network of configs/inference.json: {_first_line(error)}"
    return None


def _export(weights: Path, path: Path) -> Iterator[str]:
    """Scripted, or traced if TorchScript is known not to compile the network and the README says so."""
    arguments = {"ckpt_file": str(weights), "meta_file": META, "config_file": CONFIG, "filepath": str(path)}
    traced = isinstance(_network(), TRACED)
    if traced and "by tracing" not in Path("docs/README.md").read_text(encoding="utf-8"):
        yield "the network can be traced only, and docs/README.md does not speak of tracing"
    try:
        ckpt_export("network_def", use_trace=traced, **arguments)
    except Exception as error:
        yield f"the network cannot be {'traced' if traced else 'compiled'} by TorchScript: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    with contextlib.redirect_stdout(io.StringIO()):  # the findings alone are for there
        found = list(findings())
    print("\n".join(found))
    sys.exit(bool(found))
