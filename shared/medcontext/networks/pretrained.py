"""Starting from the weights of another training run, possibly with other classes or channels."""

from __future__ import annotations

import logging
import os
from typing import Any

import ignite.distributed as idist
from monai.networks import copy_model_state
from torch import nn

from medcontext.networks.state_dicts import best_state, check_finite, refuse_ensemble
from medcontext.networks.weights import load_checkpoint

__all__ = ["load_pretrained"]

logger = logging.getLogger(__name__)


def load_pretrained(network: nn.Module, path: str | os.PathLike[str] | None) -> nn.Module:
    """Load the matching tensors of a ``model.pt`` or ``teacher.pt`` into a network; incompatible tensors are reported.

    Tensors of another shape, such as the head where the number of classes differs, keep their random values.

    Args:
        network: the plain network.
        path: the weights to start from, or ``None`` to leave the network as it is.

    Returns:
        The network.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a readable checkpoint, its weights are not finite, or none of them matches the
            network.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(nn.Conv3d(1, 4, 3).state_dict(), f"{folder}/model.pt")
        ...     network = load_pretrained(nn.Conv3d(1, 4, 3), f"{folder}/model.pt")
    """
    if path is None:
        return network
    content: Any = load_checkpoint(path)
    if isinstance(content, dict) and isinstance(content.get("network"), dict):  # the full state of a training run
        content = content["network"]
    refuse_ensemble(content, path)
    own = network.state_dict()
    weights, _ = best_state(content, own)
    if not weights:
        raise ValueError(f"{path} does not hold the weights of one network by name; give a model.pt or teacher.pt.")
    check_finite(weights, path)
    _, loaded, kept = copy_model_state(network, weights)
    if not loaded:
        raise ValueError(
            f"Nothing in {path} matches this {type(network).__name__}; convert published checkpoints with "
            "`python -m medcontext convert_weights` first."
        )
    reshaped = [f"{key} {tuple(weights[key].shape)} → {tuple(own[key].shape)}" for key in kept if key in weights]
    groups = {
        "of another shape, left random": reshaped,
        "not in the file, left random": [key for key in kept if key not in weights],
        "not in the network, ignored": sorted(weights.keys() - own.keys()),
    }
    if idist.get_rank() > 0:
        return network
    logger.info("%d of %d tensors loaded from %s", len(loaded), len(own), path)
    for title, names in groups.items():
        if names:
            logger.info("%d %s: %s", len(names), title, ", ".join(names))
    return network
