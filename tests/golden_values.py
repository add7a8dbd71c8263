"""Weights by recipe and the values that the published networks give with them (``tests/golden``)."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"
FLOAT32_TOLERANCE = 2e-5  # of an output's largest value; five times the rounding noise of the worst variant
INPUT_SEED = 20240712


def read_golden(name: str, kind: str) -> dict[str, Any]:
    """The file of a variant; ``kind`` is ``"keys"`` or ``"golden"``."""
    content: dict[str, Any] = json.loads((GOLDEN / f"{name}_{kind}.json").read_text())
    return content


def fill_value(key: str, shape: list[int]) -> torch.Tensor:
    """The recipe's value of one floating-point tensor, from its published key and shape alone."""
    leaf = key.rsplit(".", 1)[-1]
    z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if leaf in ("temperature", "temperature2"):
        z = 1.0 + 0.1 * z
    elif leaf in ("pos_embed", "relative_position_bias_table"):
        z = 0.02 * z
    elif len(shape) >= 2:
        z = z * (1.0 / math.sqrt(math.prod(shape[1:])))
    elif leaf == "running_var":
        z = 1.0 + 0.1 * np.abs(z)
    else:
        z = 0.1 * z + float(leaf == "gamma" or leaf.endswith("weight"))
    return torch.from_numpy(z.astype(np.float32))


def filled_state(name: str) -> dict[str, torch.Tensor]:
    """A checkpoint of the published network, filled by the recipe; counters are zero, index tables left out."""
    entries = read_golden(name, "keys")["entries"]
    floats = {key: fill_value(key, e["shape"]) for key, e in entries.items() if e["dtype"].startswith("float")}
    counters = {key: torch.tensor(0) for key in entries if key.endswith("num_batches_tracked")}
    return {key: tensor for key in entries if (tensor := floats.get(key, counters.get(key))) is not None}


def golden_input(name: str) -> torch.Tensor:
    shape = read_golden(name, "golden")["input_shape"]
    return torch.from_numpy(np.random.default_rng(INPUT_SEED).standard_normal(shape).astype(np.float32))


def worst_deviation(outputs: list[torch.Tensor], name: str) -> float:
    """The largest difference from the published outputs, relative to each one's largest value."""
    expected = read_golden(name, "golden")["outputs"]
    assert [list(output.shape) for output in outputs] == [entry["shape"] for entry in expected]
    worst = 0.0
    for output, entry in zip(outputs, expected, strict=True):
        values = output.double().contiguous().numpy().ravel()
        samples = values[np.linspace(0, values.size - 1, 256).astype(np.int64)]
        statistics = entry["float32"]
        scale = max(abs(statistics["min"]), abs(statistics["max"]))
        norm = abs(np.linalg.norm(values) - statistics["l2"]) / statistics["l2"]
        worst = max(worst, float(np.abs(samples - np.array(entry["samples"])).max() / scale), float(norm))
    return worst
