"""The bundles as they are released, on a web server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from monai.bundle import ConfigParser

from archives import digest
from bundle_runs import ROOT, UNETR
from http_server import FileServer, serve
from package_bundles import package_bundles

EPOCH = "1700000000"
VERSION = "0.1.0"


class Release(NamedTuple):
    """A folder of zips, the server of its parent, the URL of the folder, and the weights that went in."""

    folder: Path
    server: FileServer
    url: str
    weights: Path


def small_weights(folder: Path, bundle: str) -> Path:
    """Untrained weights of the network of ``phantom.json``, in ``folder/bundle``, beside made-up descriptions."""
    configs = ROOT / "bundles" / bundle / "configs"
    overlay, inference = (json.loads((configs / f"{name}.json").read_text()) for name in ("phantom", "inference"))
    torch.manual_seed(0)
    network = ConfigParser({**inference, **overlay}).get_parsed_content("network_def")
    path = folder / bundle / "model.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    path.with_name("model.json").write_text(json.dumps({"settings": {"orientation": "RAS"}}))
    scores = {"cases": 12, "mean_dice": 0.7456, "mean_dice_interval_95": [0.7, 0.8], "missed": 3}
    summary = {"info": {"checkpoint_sha256": digest(path.read_bytes())}, **scores}
    path.with_name("summary.json").write_text(json.dumps(summary))
    return path


@contextlib.contextmanager
def released(folder: Path) -> Iterator[Release]:
    """All bundles, and UNETR with weights too."""
    weights, tag = folder / "weights", f"v{VERSION}"
    small_weights(weights, UNETR)
    with serve(folder) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        package_bundles(folder / tag, f"{server.url}/{tag}", weights)
        yield Release(folder / tag, server, f"{server.url}/{tag}", weights)
