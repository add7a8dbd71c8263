"""The settings that belong to weights: written by training, taken and defended by evaluation and prediction."""

from __future__ import annotations

import json
import logging
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import ConfigWorkflow

from medcontext.bundle.workflow import given_keys
from medcontext.inferers import flip_axes
from medcontext.networks.model_file import (
    build_component,
    check_component,
    read_components,
    read_model_file,
    read_settings,
)
from medcontext.transforms import mirrored_axes

__all__ = [
    "largest_components",
    "model_settings",
    "plain_value",
    "take_settings",
    "trained_intensity",
    "trained_settings",
]

logger = logging.getLogger(__name__)

COMPARED = (
    *("in_channels", "out_channels", "labels", "orientation", "spacing", "intensity", "roi_size", "network_def"),
)
"""Settings without which weights give other label maps."""
FILLED = (*COMPARED, "reported", "sided_labels")
COMPONENTS = ("intensity", "network_def")
SHOWN = 120  # characters of a value in a message


def model_settings(workflow: ConfigWorkflow | None) -> dict[str, Any]:
    """Return the settings that the weights of a training run need, as values, for ``model.json``.

    Args:
        workflow: workflow of the training run; without one, as where another program parses the configuration, nothing
            is known.
    """
    if workflow is None:
        return {}
    parser = workflow.parser
    settings = {key: plain_value(parser, key) for key in FILLED if key in parser.get()}
    if "augmentation" in parser.get():
        axes = mirrored_axes(parser.get_parsed_content("augmentation"), len(settings["orientation"]))
        settings["mirrored_axes"] = sorted(axes)
    return settings


def plain_value(parser: Any, key: str) -> Any:
    """Return a value of the configuration with its references resolved, as far as JSON can hold the result."""
    value = parser.get(key)
    if isinstance(value, dict):
        return {name: plain_value(parser, f"{key}#{name}") for name in value if name != "_desc_"}
    if isinstance(value, list):
        return [plain_value(parser, f"{key}#{index}") for index in range(len(value))]
    if isinstance(value, str) and value.startswith(("$", "@")):
        parsed = parser.get_parsed_content(key)
        try:
            return json.loads(json.dumps(parsed))
        except TypeError:  # a reference to a component
            return plain_value(parser, value[1:]) if value.startswith("@") else value
    return value


def trained_settings(ckpt_path: Any) -> dict[str, Any]:
    """Return the settings in ``model.json`` beside weights, see :func:`~medcontext.networks.model_file.read_settings`.

    ``inference.json`` refers to them, so that programs that parse it by themselves get the weights' settings too.
    """
    return read_settings(ckpt_path)


def largest_components(ckpt_path: Any) -> list[str]:
    """Return the labels whose largest component is kept, see :func:`~medcontext.networks.model_file.read_components`.

    ``inference.json`` and ``evaluate.json`` refer to them.
    """
    return read_components(ckpt_path)


def trained_intensity(settings: Mapping[str, Any]) -> Any:
    """Return the intensity transform of :func:`trained_settings`, ``None`` if there is none."""
    return build_component("intensity", settings["intensity"]) if "intensity" in settings else None


def take_settings(workflow: ConfigWorkflow, *, check: bool) -> None:
    """Fill the settings that were left open from ``model.json`` beside the weights, and refuse others than these.

    A setting is given if the command line or an overlay has it, or if it differs from the bundle's own configuration.

    Args:
        workflow: workflow of an evaluation or a prediction.
        check: refuse settings that were given otherwise; if not, they are taken, and a warning names them.

    Raises:
        ValueError: If a setting was given otherwise, or one that was not given cannot be taken from the file.
    """
    parser = workflow.parser
    ckpt_path = parser.get_parsed_content("ckpt_path")
    settings = read_settings(ckpt_path)
    if not settings:
        _report_foreign(parser, ckpt_path)
        return
    given = given_keys(workflow)
    _fill(parser, settings, given, ckpt_path)  # first, since what was given may refer to it
    differing = [*_differing(parser, settings, given), *_unlearned_views(parser, settings)]
    if differing and check:
        raise ValueError(
            f"{'; '.join(differing)} ({_file(ckpt_path)}). Leave out what was given, or add --settings_check False "
            "if you know better."
        )
    if differing:
        logger.warning("settings_check is off: %s.", "; ".join(differing))


def _file(ckpt_path: Any) -> str:
    path = ckpt_path if isinstance(ckpt_path, str | Path) else ckpt_path[0]
    return str(Path(path).with_name("model.json"))


def _differing(parser: Any, settings: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    """Yield both values of each setting that was given otherwise than in training."""
    for key in COMPARED:
        if key in settings and key in given:
            value = plain_value(parser, key)
            if value != settings[key]:
                own, trained = _values_that_differ(key, value, settings[key])
                yield f"{own}{given[key]}, but the weights were trained with {trained}"


def _unlearned_views(parser: Any, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the mirrored views over which predictions would be averaged though the network has never seen such."""
    if "tta_flips" in parser.get() and "mirrored_axes" in settings:
        orientation = parser.get_parsed_content("orientation")
        axes = set(flip_axes(parser.get_parsed_content("tta_flips"), orientation)) - set(settings["mirrored_axes"])
        if axes:
            ends = ", ".join(orientation[axis] for axis in sorted(axes))
            yield f"tta_flips mirrors along {ends}, along which training did not mirror (mirrored_axes)"


def _values_that_differ(key: str, value: Any, trained: Any) -> tuple[str, str]:
    """Return the two values, of definitions only the first part that differs."""
    while isinstance(value, dict) and isinstance(trained, dict) and value.keys() == trained.keys():
        part = next(name for name in value if value[name] != trained[name])
        key, value, trained = f"{key}#{part}", value[part], trained[part]
    shown = [textwrap.shorten(str(each), SHOWN, placeholder=" …") for each in (value, trained)]
    return f"{key} is {shown[0]}", shown[1]


def _fill(parser: Any, settings: Mapping[str, Any], given: Mapping[str, str], ckpt_path: Any) -> None:
    """Set what was not given."""
    is_evaluation = "train" in parser.get()
    taken = [key for key in FILLED if key in settings and key not in given and key in parser.get()]
    for key in COMPONENTS:
        if key in taken and settings[key] != plain_value(parser, key):
            check_component(key, settings[key])
    dataset = read_model_file(ckpt_path).get("dataset") if isinstance(ckpt_path, str | Path) else None
    for key in taken:
        parser[key] = settings[key]
    if is_evaluation and "dataset" not in given and isinstance(dataset, str) and re.fullmatch(r"\w[\w-]*", dataset):
        parser["dataset"] = dataset
    if taken and idist.get_rank() == 0:
        logger.info("%s taken from %s.", ", ".join(taken), _file(ckpt_path))


def _report_foreign(parser: Any, ckpt_path: Any) -> None:
    """Say that nothing is known of weights, where there are weights."""
    path = Path(ckpt_path if isinstance(ckpt_path, str | Path) else ckpt_path[0])
    if path.is_file() and idist.get_rank() == 0:
        values = ", ".join(f"{key} {parser.get_parsed_content(key)}" for key in ("spacing", "orientation", "roi_size"))
        logger.warning(
            "No model.json beside %s says what the weights need, so the settings of this call hold (%s, ...); give "
            "those that they were trained with.",
            path,
            values,
        )
