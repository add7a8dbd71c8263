"""Records of a configuration: hyperparameters, and what MLflow logs as a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from medcontext.bundle.model_settings import plain_value
from medcontext.networks.model_file import check_component

__all__ = ["ENTRY_KEYS", "hyperparameters", "model_to_log"]

ENTRY_KEYS = {"imports", "initialize", "finalize", "run", "training", "evaluating", "inferring"}


UNLOGGED_KEYS = {"tracking_uri", "tracking_wait", "resume", "unannotated"}


def hyperparameters(workflow: ConfigWorkflow) -> dict[str, Any]:
    """Return the plain values among a configuration's top-level keys, nested ones under dotted names.

    Args:
        workflow: workflow of the configuration.
    """
    parser = workflow.parser
    plain: dict[str, Any] = {}
    for key, value in parser.get().items():
        composed = isinstance(value, dict) and "_target_" in json.dumps(value, default=str)
        derived = isinstance(value, str) and value.startswith("$") and any(mark in value for mark in ("#", "::"))
        if key in ENTRY_KEYS | UNLOGGED_KEYS or key.startswith("_") or composed or derived:
            continue
        _flatten(key, parser.get_parsed_content(key), plain)
    return plain


def _flatten(key: str, value: Any, plain: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for name, item in value.items():
            _flatten(f"{key}.{name}", item, plain)
    elif value is None or isinstance(value, (str, int, float, torch.device)) or _is_plain_list(value):
        plain[key] = value


def _is_plain_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, (str, int, float)) for item in value)


def model_to_log(workflow: ConfigWorkflow, log_model: bool, registered_model_name: str | None) -> dict[str, Any] | None:
    """Return the argument ``model`` of :class:`~medcontext.tracking.MLflowTracker`, to log a network as a model.

    Args:
        workflow: workflow of the configuration.
        log_model: whether to log the model; otherwise ``None`` is returned.
        registered_model_name: registered model of which it becomes a version, if any.

    Raises:
        ValueError: If there is a ``registered_model_name`` without ``log_model``, or the network or the intensity
            transform is a class of the user's own, which a model does not contain.
    """
    if not log_model:
        if registered_model_name is not None:
            raise ValueError(f"registered_model_name {registered_model_name!r} needs log_model true.")
        return None
    for key in ("network_def", "intensity"):  # as the model will read them from model.json
        check_component(key, plain_value(workflow.parser, key))
    root = workflow.parser.get_parsed_content("bundle_root")
    return {"bundle_root": root, "registered_model_name": registered_model_name}
