"""A bundle that predicts at once: the small network of ``phantom.json``, with weights trained on phantoms.

python ci/phantom_bundle.py weights/medcontext_unetr/model.pt      whether these are good enough to be published
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fire
import yaml
from monai.bundle import ConfigParser

from archives import digest
from bundle_documents import TEXT, renamed
from config_reference import configs_of, key_tables, with_key_tables
from medcontext.bundle import check_network
from medcontext.networks import load_weights
from sync_bundles import sections

WEIGHTS, SETTINGS = "models/model.pt", "models/model.json"
NOTE = """# Model overview

**This bundle predicts at once, but never saw a patient: it is the small network of `phantom.json` with weights trained
on generated phantoms of abdominal CT.** Its `train.json` and `inference.json` hold the settings of that overlay; sizes,
budgets and crops below are those of `{source}`. From the bundle's folder:

```bash
python -m medcontext phantoms --output_dir data/btcv
python -m monai.bundle run inferring --config_file configs/inference.json
```
"""
# replaces the result of another training run
PERFORMANCE = """The weights in this bundle, trained with `phantom.json` and one seed, reach a mean Dice of the
reported organs of {mean_dice:.3f} (95 % {interval[0]:.3f}–{interval[1]:.3f}) on {cases} held-out phantoms; organs
missed altogether: {missed}. No weights trained on BTCV are published yet. The picture shows another training run with
the same settings."""
LOWEST_DICE = 0.5


def phantom_name(bundle: str) -> str:
    """The name of the bundle that carries weights."""
    return f"{bundle}_phantom"


def phantom_files(bundle: str, files: Mapping[str, bytes], weights: Path, url: str) -> dict[str, bytes]:
    """The files of a bundle with weights, made from those of the bundle.

    Args:
        bundle: name of the bundle.
        files: its files as they are packaged, by path below it.
        weights: a ``model.pt`` trained with ``train.json``, ``btcv.json`` and ``phantom.json``, beside its
            ``model.json`` and the ``summary.json`` of its evaluation.
        url: where the weights can be downloaded by themselves.

    Raises:
        ValueError: When the weights are not those of the small network, not those that were evaluated, or too bad.
    """
    name, content = phantom_name(bundle), weights.read_bytes()
    texts = {path: data.decode() for path, data in files.items() if path.endswith((".json", *TEXT))}
    made = {**files, **{path: renamed(text, bundle, name).encode() for path, text in texts.items()}}
    overlay = json.loads(files["configs/phantom.json"])
    train = {**json.loads(files["configs/train.json"]), **overlay}
    inference = json.loads(files["configs/inference.json"])
    inference |= {key: value for key, value in overlay.items() if key in inference}
    _check_weights(inference, weights)
    summary = scores(weights)
    made["configs/train.json"], made["configs/inference.json"] = _json(train), _json(inference)
    made["configs/metadata.json"] = _json(_metadata(json.loads(files["configs/metadata.json"]), train["phantom"]))
    tables = key_tables(name, configs_of(made))
    made["docs/reference.md"] = with_key_tables(made["docs/reference.md"].decode(), tables).encode()
    made["docs/README.md"] = _readme(made["docs/README.md"].decode(), bundle, summary).encode()
    made["large_files.yml"] = large_files({WEIGHTS: (url, content)})
    settings = weights.with_name("model.json")
    described = {SETTINGS: settings.read_bytes()} if settings.is_file() else {}
    return {**made, **described, WEIGHTS: content}


def scores(weights: Path) -> dict[str, Any]:
    """The ``summary.json`` beside weights.

    Raises:
        ValueError: When it is of other weights, or these are too bad to be published.
    """
    path = weights.with_name("summary.json")
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if summary["info"]["checkpoint_sha256"] != digest(weights.read_bytes()):
        raise ValueError(f"{path} is the evaluation of other weights than {weights}; evaluate these.")
    if (summary["mean_dice"] or 0) < LOWEST_DICE:
        raise ValueError(
            f"{weights} has a mean Dice of {summary['mean_dice']}, and less than {LOWEST_DICE} is not published;"
            " train again."
        )
    return summary


def large_files(files: Mapping[str, tuple[str, bytes]]) -> bytes:
    """What ``python -m monai.bundle download_large_files`` reads, from a URL and a content for each path."""
    entries = [
        {"path": path, "url": url, "hash_val": digest(content), "hash_type": "sha256"}
        for path, (url, content) in files.items()
    ]
    return yaml.safe_dump({"large_files": entries}, sort_keys=False, width=1000).encode()


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


def _readme(text: str, source: str, summary: Mapping[str, Any]) -> str:
    parts = sections(text)
    heading, _, rest = parts["Performance"].split("\n\n", 2)
    result = PERFORMANCE.format(**summary, interval=summary["mean_dice_interval_95"])
    parts["Performance"] = "\n\n".join((heading, result, rest))
    return "".join(parts.values()).replace("# Model overview\n", NOTE.format(source=source), 1)


def _check_weights(inference: dict[str, Any], weights: Path) -> None:
    parser = ConfigParser(copy.deepcopy(inference))  # which rewrites what it is given
    network = parser.get_parsed_content("network_def")
    channels = parser.get_parsed_content("in_channels"), parser.get_parsed_content("out_channels")
    check_network(network, *channels, parser.get_parsed_content("roi_size"))
    load_weights(network, weights)


def main(weights: str) -> None:
    """Say what weights scored; exit code 1 if they are not to be published.

    Args:
        weights: a ``model.pt`` beside the ``summary.json`` of its evaluation.
    """
    try:
        print(f"{weights} has a mean Dice of {scores(Path(weights))['mean_dice']:.3f}")
    except (ValueError, OSError) as error:
        sys.exit(f"phantom_bundle: {error}")


if __name__ == "__main__":
    fire.Fire(main)
