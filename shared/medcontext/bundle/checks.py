"""Checks of a configuration before anything is built from it."""

from __future__ import annotations

import copy
import difflib
import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.bundle import ConfigWorkflow
from monai.bundle.utils import ID_SEP_KEY
from torch import nn

from medcontext.bundle.errors import one_sentence
from medcontext.bundle.settings import ENTRY_KEYS
from medcontext.data import check_dataset, check_images, load_datalist, problems_table, sided_axes
from medcontext.engines.trainer import USING_UNLABELED, TrainingMode, TrainingPasses
from medcontext.handlers.checkpoints import LAST_FILE, MODEL_FILE, SELECTIONS
from medcontext.inferers import flip_axes
from medcontext.labels import label_ids, label_names, map_labels
from medcontext.networks import plain_network
from medcontext.networks.sizes import check_crop_size
from medcontext.transforms import mirrored_axes

__all__ = ["check_configuration", "check_images_of", "check_keys", "check_network", "check_run_folder"]

logger = logging.getLogger(__name__)


MONAI_KEYS = {"tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0", "output_dir"}


# the least value of each whole number, and the numbers that are shares of something
COUNTS = {
    **dict.fromkeys(("max_epochs", "val_interval", "batch_size", "num_samples", "accumulation_steps"), 1),
    **dict.fromkeys(("in_channels", "sw_batch_size"), 1),
    "out_channels": 2,
    **dict.fromkeys(("seed", "validation_cases", "num_workers", "preview_interval"), 0),
}


SHARES = (
    *("cache_rate", "warmup_fraction", "teacher_warmup", "teacher_momentum", "train_fraction"),
    *("masked_share", "context_ramp", "context_end", "burn_in", "confidence"),
)


WEIGHTS = ("context_weight", "consistency_weight", "unlabeled_weight")


LISTS_OF_SHARES = ("teacher_momentum", "confidence")


CHOICES: dict[str, tuple[str, ...]] = {
    "mode": tuple(map(str, TrainingMode)),
    "passes": tuple(map(str, TrainingPasses)),
    "select_checkpoint": SELECTIONS,
    "sided_mirroring": ("refuse", "allow"),
}


def check_network(network: nn.Module, in_channels: int, out_channels: int, roi_size: Sequence[int]) -> None:
    r"""Follow the shapes of one crop through a network, without computing anything.

    Args:
        network: of images (B, C, \*spatial).
        in_channels: C of the crop.
        out_channels: expected channels of the output.
        roi_size: spatial size of the crop.

    Raises:
        ValueError: When the network cannot take the crop, or its output has another shape than it should.
    """
    plain = plain_network(network)
    kind, size = type(plain).__name__, list(roi_size)
    shadow = copy.deepcopy(plain).to("meta").eval()
    try:
        check_crop_size(plain, size)
        with torch.no_grad():
            output = shadow(torch.zeros(1, in_channels, *size, device="meta"))
    except NotImplementedError:
        logger.debug("%s has operations without shape rules; its size was not checked.", kind)
        return
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"roi_size {size} with {in_channels} channels does not suit {kind}: {reason}") from error
    output = output if isinstance(output, torch.Tensor) else output[0]
    expected = (1, out_channels, *size)
    if tuple(output.shape) != expected:
        raise ValueError(
            f"{kind} turns a crop of roi_size {size} into {tuple(output.shape)}, expected {expected}; "
            "change roi_size, or network_def's out_channels."
        )


def check_configuration(workflow: ConfigWorkflow) -> None:
    """Refuse a configuration with misspelt keys, impossible numbers, or data that are missing or wrong.

    Args:
        workflow: an initialised workflow, of which nothing is built yet.

    Raises:
        SystemExit: With one sentence that says what to change.
    """
    parser = workflow.parser
    with one_sentence():
        check_keys(parser.get(), workflow.config_root_path)
        _check_numbers(parser)
        _check_labels(parser)
        _check_mirroring(parser)
        if "datalist" in parser.get():
            _check_data(parser)
        _check_choices(parser)


def check_keys(config: Mapping[str, Any], configs: str | os.PathLike[str]) -> None:
    """Refuse a top-level key that this kind of run does not know.

    Known are the keys of ``train.json`` or ``inference.json``, what the configuration refers to, what MONAI adds, and
    what an overlay of the bundle sets to the value found: an overlay may speak to several kinds of run.

    Raises:
        ValueError: Naming the key and its nearest neighbour.
    """
    paths = [path for path in Path(configs).glob("*.json") if path.name != "metadata.json"]
    files = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    known = MONAI_KEYS | ENTRY_KEYS | set(re.findall(r"@([A-Za-z_]\w*)", json.dumps(config, default=str)))
    known |= files.get("train" if "train" in config else "inference", {}).keys()
    for key, value in config.items():
        from_file = any(key in file and _same(file[key], value) for file in files.values())
        if key not in known and not from_file and not key.startswith("_"):
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else "remove it, or refer to it somewhere by @."
            raise ValueError(f"Nothing in the configuration uses {key!r}; {hint}")


def _same(written: Any, parsed: Any) -> bool:
    """Whether a value is that of a file, which MONAI gives other separators (``@a#b`` becomes ``@a::b``)."""
    texts = (json.dumps(value, default=str).replace(ID_SEP_KEY, "#") for value in (written, parsed))
    return next(texts) == next(texts)


def _check_numbers(parser: Any) -> None:
    """Raise ValueError for a number that no part of a bundle could use, under the name that the user knows it by."""
    present = parser.get().keys()
    for key, least in COUNTS.items():
        value = parser.get_parsed_content(key) if key in present else least
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{key} must be a whole number, {least} or more, got {value!r}.")
    for key in SHARES:
        value = parser.get_parsed_content(key) if key in present else 0
        shares = value if key in LISTS_OF_SHARES and isinstance(value, list) else [value]
        if any(isinstance(n, bool) or not isinstance(n, (int, float)) or not 0 <= n <= 1 for n in shares):
            raise ValueError(f"{key} must be a number within [0, 1], got {value!r}.")
    rate = parser.get_parsed_content("learning_rate") if "learning_rate" in present else 1
    if not isinstance(rate, (int, float)) or not rate > 0:
        raise ValueError(f"learning_rate must be a number above 0, got {rate!r}.")
    for key in WEIGHTS:
        value = parser.get_parsed_content(key) if key in present else 0
        if not isinstance(value, (int, float)) or not value >= 0:
            raise ValueError(f"{key} must be 0 or more, got {value!r}; 0 switches the term off.")
    overlap = parser.get_parsed_content("overlap")
    if not isinstance(overlap, (int, float)) or not 0 <= overlap < 1:
        raise ValueError(f"overlap must be a number from 0 to below 1, got {overlap!r}.")
    norm = parser.get_parsed_content("max_grad_norm") if "max_grad_norm" in present else None
    if norm is not None and (not isinstance(norm, (int, float)) or not norm > 0):
        raise ValueError(f"max_grad_norm must be a number above 0, or null not to clip, got {norm!r}.")
    spacing = parser.get_parsed_content("spacing")
    if not isinstance(spacing, (list, tuple)) or not all(isinstance(n, (int, float)) and n > 0 for n in spacing):
        raise ValueError(f"spacing must be a list of voxel sizes in mm, one for each axis, got {spacing!r}.")
    size = parser.get_parsed_content("roi_size")
    if not isinstance(size, (list, tuple)) or not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(f"roi_size must be a list of whole numbers of voxels, one for each axis, got {size!r}.")
    if len(size) != len(spacing):
        raise ValueError(f"roi_size {size} and spacing {spacing} must have one number for each axis.")


def _check_choices(parser: Any) -> None:
    """Raise ValueError for a word that is none of those that a key may have, and for words that contradict others."""
    present = parser.get().keys()
    for key, choices in CHOICES.items():
        if key in present and (value := parser.get_parsed_content(key)) not in choices:
            nearest = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
            raise ValueError(f"{key} must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")
    if "unlabeled_cases" not in present:
        return
    mode, cases = parser.get_parsed_content("mode"), parser.get_parsed_content("unlabeled_cases")
    if cases and mode not in USING_UNLABELED:
        raise ValueError(f"mode {mode!r} uses no unlabelled scans; leave unlabeled and unlabeled_dir out.")
    if not cases and mode in USING_UNLABELED:
        raise ValueError(
            f"mode {mode!r} needs unlabelled scans; give --unlabeled dataset, --unlabeled rest or --unlabeled_dir DIR."
        )


def _check_mirroring(parser: Any) -> None:
    """Raise ValueError when images would be mirrored along an axis whose labels have sides."""
    present = parser.get().keys()
    if "sided_labels" not in present or parser.get_parsed_content("sided_mirroring") == "allow":
        return
    pairs, orientation = parser.get_parsed_content("sided_labels"), str(parser.get_parsed_content("orientation"))
    axes = sided_axes(pairs, orientation)
    key = "augmentation" if "augmentation" in present else "tta_flips"
    value = parser.get_parsed_content(key)
    mirrored = (
        mirrored_axes(value, len(orientation)) if key == "augmentation" else set(flip_axes(value, orientation))
    ) & set(axes)
    if mirrored:
        names = " and ".join(pairs[0])
        raise ValueError(
            f"{key} mirrors along {', '.join(orientation[axis] for axis in sorted(mirrored))}, which would exchange "
            f"labels that have sides, such as {names}; do not mirror that axis, declare sided_labels otherwise, or set "
            "sided_mirroring to allow."
        )


def _check_labels(parser: Any) -> None:
    """Raise ValueError when the network has too few channels for the labels, or other than there are thresholds."""
    labels, out_channels = parser.get_parsed_content("labels"), parser.get_parsed_content("out_channels")
    highest = max(i for some in label_ids(labels).values() for i in some)
    if highest >= out_channels:
        raise ValueError(
            f"labels go up to {highest} but out_channels is {out_channels}; "
            f"it must be at least {highest + 1}, background included."
        )
    confidence = parser.get_parsed_content("confidence") if "confidence" in parser.get() else 0
    if isinstance(confidence, list) and len(confidence) != out_channels:
        raise ValueError(
            f"confidence has {len(confidence)} thresholds for {out_channels} classes, background included: give one "
            "for each, or one number for all."
        )


def _check_data(parser: Any) -> None:
    """Raise ValueError with all that is wrong with the cases of this run."""
    datalist = Path(parser.get_parsed_content("datalist"))
    if not datalist.is_file():
        dataset, folder = parser.get_parsed_content("dataset"), parser.get_parsed_content("dataset_dir")
        raise FileNotFoundError(
            f"There is no dataset at {folder} ({datalist.name} not found). "
            f"For real data: python -m medcontext prepare --dataset {dataset} --source DOWNLOAD --output_dir {folder} "
            f"For generated data: python -m medcontext phantoms --dataset {dataset} --output_dir {folder}"
        )
    sections = {name: cases for name, cases in parser.get_parsed_content("cases").items() if cases}
    first = next(iter(parser.get_parsed_content("cases")))
    if first not in sections:
        raise ValueError(f"{datalist} lists no cases to use under {first!r}; add some there.")
    if "unlabeled_cases" in parser.get() and first == "training":
        sections |= {"unlabeled": cases} if (cases := parser.get_parsed_content("unlabeled_cases")) else {}
    labels = _expected_labels(parser, datalist)
    first_process = idist.get_rank() == 0
    problems = check_dataset(
        datalist,
        sections,
        in_channels=parser.get_parsed_content("in_channels"),
        labels=labels,
        voxels=None if first_process else False,
    )
    if problems and first_process:
        print(problems_table(problems), file=sys.stderr)
    if problems:
        raise ValueError(f"{datalist}: {_first_of(problems)}")


def check_images_of(parser: Any) -> None:
    """Raise ValueError with what keeps the images from being predicted."""
    problems = check_images(parser.get_parsed_content("cases"), parser.get_parsed_content("in_channels"))
    if problems:
        raise ValueError(_first_of(problems))


def _first_of(problems: Sequence[object]) -> str:
    more = f" (and {len(problems) - 5} more problems)" if len(problems) > 5 else ""
    return " | ".join(map(str, problems[:5])) + more


def _expected_labels(parser: Any, datalist: Path) -> dict[str, int]:
    """What the label maps may hold: the ids that ``dataset.json`` names, else those of the configuration.

    Raises:
        ValueError: When the configuration names a label that the dataset does not have, or reports one that it does not
            train.
    """
    labels = parser.get_parsed_content("labels")
    ids = {f"{name} {i}": i for name, some in label_ids(labels).items() for i in some}
    for name, some in label_ids(parser.get_parsed_content("reported")).items():
        if not set(some) <= set(ids.values()):
            raise ValueError(
                f"reported asks for {name!r} = {some}, but labels has the ids {sorted(ids.values())} only."
            )
    names = label_names(load_datalist(datalist))
    map_labels(names, labels)
    return {name: i for i, name in names.items() if i} or ids


def check_run_folder(parser: Any) -> None:
    """Raise ValueError when a new training would write over an earlier one."""
    folder = Path(parser.get_parsed_content("ckpt_dir"))
    present = [folder / name for name in (LAST_FILE, MODEL_FILE) if (folder / name).is_file()]
    if present and not parser.get_parsed_content("resume"):
        raise ValueError(
            f"{present[0]} already holds a training; add resume.json to go on with it, or choose another run_name."
        )
