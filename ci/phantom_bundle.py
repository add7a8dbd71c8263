"""A bundle that predicts at once: the small network of ``phantom.json``, with weights trained on phantoms."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from monai.bundle import ConfigParser

from archives import digest
from config_reference import reference
from medcontext.bundle import check_network
from medcontext.networks import load_weights

WEIGHTS = "models/model.pt"
NOTE = """# Model overview

**This bundle predicts at once, but never saw a patient: it is the small network of `phantom.json` with weights trained
on generated phantoms of abdominal CT.** Its `train.json` and `inference.json` hold the settings of that overlay. What
is said below of sizes, budgets and crops is said of `{source}`. From inside the bundle:

```bash
python -m medcontext phantoms --output_dir data/btcv
python -m monai.bundle run inferring --config_file configs/inference.json
```
"""


def phantom_name(bundle: str) -> str:
    """The name of the bundle that carries weights."""
    return f"{bundle}_phantom"


def phantom_files(bundle: str, files: Mapping[str, bytes], weights: Path, url: str) -> dict[str, bytes]:
    """The files of a bundle with weights, made from those of the bundle.

    Args:
        bundle: name of the bundle.
        files: its files, by path below it.
        weights: a ``model.pt`` trained with ``train.json``, ``btcv.json`` and ``phantom.json``.
        url: where the weights can be downloaded by themselves.

    Raises:
        ValueError: When the weights are not those of the small network.
    """
    name, content = phantom_name(bundle), weights.read_bytes()
    made = {path: text.replace(bundle.encode(), name.encode()) for path, text in files.items() if _is_text(path)}
    made |= {path: data for path, data in files.items() if path not in made}
    overlay = json.loads(files["configs/phantom.json"])
    train = {**json.loads(files["configs/train.json"]), **overlay}
    inference = json.loads(files["configs/inference.json"])
    inference |= {key: value for key, value in overlay.items() if key in inference}
    _check_weights(inference, weights)
    made["configs/train.json"], made["configs/inference.json"] = _json(train), _json(inference)
    made["configs/metadata.json"] = _json(_metadata(json.loads(files["configs/metadata.json"]), train["phantom"]))
    paths = [path for path in made if path.startswith("configs/") and path.endswith(".json")]
    configs = {PurePosixPath(path).stem: json.loads(made[path]) for path in paths}
    made["docs/reference.md"] = reference(name, configs).encode()
    note = NOTE.format(source=bundle)
    made["docs/README.md"] = made["docs/README.md"].replace(b"# Model overview\n", note.encode(), 1)
    made["large_files.yml"] = large_files({WEIGHTS: (url, content)})
    return {**made, WEIGHTS: content}


def large_files(files: Mapping[str, tuple[str, bytes]]) -> bytes:
    """What ``python -m monai.bundle download_large_files`` reads, from a URL and a content for each path."""
    entries = [
        {"path": path, "url": url, "hash_val": digest(content), "hash_type": "sha256"}
        for path, (url, content) in files.items()
    ]
    return yaml.safe_dump({"large_files": entries}, sort_keys=False, width=1000).encode()


def _is_text(path: str) -> bool:
    return path.endswith((".json", ".md", ".sh", ".yaml"))


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=4, ensure_ascii=False) + "\n").encode()


def _metadata(metadata: dict[str, Any], phantom: Mapping[str, Any]) -> dict[str, Any]:
    metadata["name"] += " (phantoms)"
    metadata["description"] += "; the small network of phantom.json, with weights trained on generated phantoms"
    metadata["data_source"] = "generated phantoms of abdominal CT in the layout of BTCV"
    shapes = metadata["network_data_format"]
    for tensor in (shapes["inputs"]["image"], shapes["outputs"]["pred"]):
        tensor["spatial_shape"] = phantom["roi_size"]
    return metadata


def _check_weights(inference: dict[str, Any], weights: Path) -> None:
    parser = ConfigParser(copy.deepcopy(inference))  # which rewrites what it is given
    network = parser.get_parsed_content("network_def")
    channels = parser.get_parsed_content("in_channels"), parser.get_parsed_content("out_channels")
    check_network(network, *channels, parser.get_parsed_content("roi_size"))
    load_weights(network, weights)
