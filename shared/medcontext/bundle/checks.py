"""Checks of a configuration before anything is built from it."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.bundle import ConfigWorkflow
from torch import nn

from medcontext.bundle.errors import one_sentence
from medcontext.bundle.plans import check_plan
from medcontext.bundle.settings import ENTRY_KEYS
from medcontext.bundle.values import settle_values
from medcontext.bundle.workflow import bundle_configs, equals_parsed
from medcontext.checks import (
    check_above_zero,
    check_choice,
    check_fraction,
    check_integer,
    check_integers,
    check_not_negative,
    nearest_name,
)
from medcontext.data import (
    case_files,
    check_dataset,
    check_images,
    check_memory,
    errors_of,
    load_datalist,
    problems_table,
    sided_axes,
)
from medcontext.data.partial import annotated_nowhere
from medcontext.engines.trainer import USING_UNLABELED, TrainingMode, TrainingPasses
from medcontext.handlers.checkpoints import SELECTIONS
from medcontext.handlers.training_state import training_states
from medcontext.inferers import flip_axes
from medcontext.labels import component_ids, label_ids, label_names, map_labels
from medcontext.losses.pseudo_labels import check_thresholds
from medcontext.networks import plain_network
from medcontext.networks.model_file import MODEL_FILE
from medcontext.networks.sizes import check_crop_size
from medcontext.transforms import mirrored_axes

__all__ = ["check_configuration", "check_images_of", "check_keys", "check_network", "check_run_folder"]

logger = logging.getLogger(__name__)

Check = Callable[[str, Any], object]
"""Function of a key and its value that raises an error if no part of a bundle could use the value."""

MONAI_KEYS = {"tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0", "output_dir"}


def _check_fractions(key: str, value: Any) -> None:
    for share in value if isinstance(value, list) else [value]:
        check_fraction(key, share)


def _check_overlap(key: str, value: Any) -> None:
    if check_fraction(key, value) == 1:
        raise ValueError(f"{key} must be below 1, otherwise windows never move: give a share, such as 0.5.")


def _check_norm(key: str, value: Any) -> None:
    if value is not None:
        check_above_zero(key, value, remedy="null does not clip")


def _check_fold(key: str, value: Any) -> None:
    if value is not None:
        check_integer(key, value, minimum=0, remedy="null makes no folds")


def _check_patience(key: str, value: Any) -> None:
    if value is not None:
        check_integer(key, value, minimum=1, remedy="give a number of validations, or null to train for max_epochs")


def _check_spacing(key: str, value: Any) -> None:
    remedy = "give a list of voxel sizes in mm, one for each axis"
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{key} must be a list, got {value!r}: {remedy}.")
    for size in value:
        check_above_zero(key, size, remedy=remedy)


def _check_size(key: str, value: Any) -> None:
    remedy = "give a list of whole numbers of voxels, one for each axis"
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{key} must be a list, got {value!r}: {remedy}.")
    check_integers(key, value, minimum=1, remedy=remedy)


def _at_least(minimum: int) -> Check:
    return partial(check_integer, minimum=minimum, remedy="give a whole number")


NUMBERS: dict[str, Check] = {
    **dict.fromkeys(("max_epochs", "val_interval", "batch_size", "num_samples", "accumulation_steps"), _at_least(1)),
    **dict.fromkeys(("in_channels", "sw_batch_size"), _at_least(1)),
    "out_channels": _at_least(2),
    **dict.fromkeys(("seed", "validation_cases", "num_workers", "preview_interval", "review_first"), _at_least(0)),
    **dict.fromkeys(("cache_rate", "warmup_fraction", "teacher_warmup", "train_fraction"), check_fraction),
    **dict.fromkeys(("masked_share", "context_ramp", "context_end", "burn_in"), check_fraction),
    **dict.fromkeys(("teacher_momentum", "confidence"), _check_fractions),
    "learning_rate": partial(check_above_zero, remedy="give a number such as 0.0001"),
    **dict.fromkeys(
        ("context_weight", "consistency_weight", "unlabeled_weight"),
        partial(check_not_negative, remedy="0 switches the term off"),
    ),
    "overlap": _check_overlap,
    "max_grad_norm": _check_norm,
    "early_stopping": _check_patience,
    "spacing": _check_spacing,
    "roi_size": _check_size,
    "checkpoint_interval": _at_least(1),
    "fold": _check_fold,
    "num_folds": _at_least(2),
    "tracking_wait": partial(check_not_negative, remedy="give seconds"),
}


CHOICES: dict[str, tuple[str, ...]] = {
    "mode": tuple(map(str, TrainingMode)),
    "passes": tuple(map(str, TrainingPasses)),
    "select_checkpoint": SELECTIONS,
    "sided_mirroring": ("refuse", "allow"),
}


def check_network(network: nn.Module, in_channels: int, out_channels: int, roi_size: Sequence[int]) -> None:
    r"""Check the shape of a network's output for one crop, without computing anything.

    Args:
        network: network of images (B, C, \*spatial).
        in_channels: channels C of the crop.
        out_channels: expected channels of the output.
        roi_size: spatial size of the crop.

    Raises:
        ValueError: If the network rejects the crop, or its output has an unexpected shape.
    """
    plain = plain_network(network)
    kind, size = type(plain).__name__, list(roi_size)
    meta_network = copy.deepcopy(plain).to("meta").eval()
    try:
        check_crop_size(plain, size)
        with torch.no_grad():
            output = meta_network(torch.zeros(1, in_channels, *size, device="meta"))
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
    """Check a configuration for misspelt keys, invalid values, and missing or invalid data.

    Args:
        workflow: an initialised workflow, of which nothing is built yet.

    Raises:
        SystemExit: If a check fails; the message is one sentence that says what to change.
    """
    parser = workflow.parser
    with one_sentence():
        check_keys(parser.get(), workflow.config_root_path)
        settle_values(parser)
        _check_numbers(parser)
        _check_labels(parser)
        _check_mirroring(parser)
        if "datalist" in parser.get():
            _check_data(parser)
        check_plan(parser)
        _check_choices(parser)
        _check_stopping(parser)


def check_keys(config: Mapping[str, Any], configs: str | os.PathLike[str]) -> None:
    """Check that this kind of run uses every top-level key.

    These are the keys of ``train.json`` or ``inference.json``, keys that the configuration refers to, keys that MONAI
    adds, and keys with the same value in an overlay of the bundle, since overlays may be for several kinds of run. A
    plan, which is such an overlay, has keys of ``train.json``.

    Args:
        config: the configuration.
        configs: folder of the bundle's configuration files.

    Raises:
        ValueError: If a key is unused; the message names it and the most similar known key.
    """
    files = bundle_configs(configs)
    known = MONAI_KEYS | ENTRY_KEYS | set(re.findall(r"@([A-Za-z_]\w*)", json.dumps(config, default=str)))
    name, entry = ("train", "training") if "train" in config else ("inference", "inferring")
    known |= files.get(name, {}).keys() or {key for file in files.values() if entry in file for key in file}
    known |= files.get("train", {}).keys() if config.get("plan") else set()
    for key, value in config.items():
        from_file = any(key in file and equals_parsed(file[key], value) for file in files.values())
        if key not in known and not from_file and not key.startswith("_"):
            hint = nearest_name(key, known) or " Remove it, or refer to it by @."
            raise ValueError(f"Nothing in the configuration uses {key!r}.{hint}")


def _check_numbers(parser: Any) -> None:
    """Raise ValueError for a number that no part of a bundle could use, by the name of its key."""
    for key, check in NUMBERS.items():
        if key in parser.get():
            check(key, parser.get_parsed_content(key))
    size, spacing = parser.get_parsed_content("roi_size"), parser.get_parsed_content("spacing")
    if len(size) != len(spacing):
        raise ValueError(f"roi_size {size} and spacing {spacing} must have one number for each axis.")


def _check_choices(parser: Any) -> None:
    """Raise ValueError for a value that is not among the choices of its key, and for a mode that lacks its scans."""
    present = parser.get().keys()
    for key, choices in CHOICES.items():
        if key in present:
            check_choice(key, parser.get_parsed_content(key), choices)
    if "unlabeled_cases" not in present:
        return
    mode, cases = parser.get_parsed_content("mode"), parser.get_parsed_content("unlabeled_cases")
    if cases and mode not in USING_UNLABELED:
        raise ValueError(f"mode {mode!r} uses no unlabelled scans; leave unlabeled and unlabeled_dir out.")
    if not cases and mode in USING_UNLABELED:
        raise ValueError(
            f"mode {mode!r} needs unlabelled scans; give --unlabeled dataset, --unlabeled rest or --unlabeled_dir DIR."
        )


def _check_stopping(parser: Any) -> None:
    """Raise ValueError if training is to end by validation, and there is none."""
    if "training" not in parser.get().get("cases", {}) or not parser.get_parsed_content("early_stopping"):
        return
    if not parser.get_parsed_content("cases")["validation"]:
        raise ValueError("early_stopping needs cases to validate on; hold some out by validation_cases.")


def _check_mirroring(parser: Any) -> None:
    """Raise ValueError if images would be mirrored along an axis that they lack, or along that of sided labels."""
    present = parser.get().keys()
    if "mirrored_axes" in present:
        key, orientation = "mirrored_axes", str(parser.get_parsed_content("orientation"))
        flip_axes(parser.get_parsed_content(key), orientation, key)
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
            f"{key} mirrors along {', '.join(orientation[axis] for axis in sorted(mirrored))}, which would swap "
            f"sided labels, such as {names}; do not mirror that axis, change sided_labels, or set sided_mirroring to "
            "allow."
        )


def _check_labels(parser: Any) -> None:
    """Raise ValueError if labels, output channels, thresholds and postprocessing do not fit each other."""
    labels, out_channels = parser.get_parsed_content("labels"), parser.get_parsed_content("out_channels")
    highest = max(i for ids in label_ids(labels).values() for i in ids)
    if highest >= out_channels:
        raise ValueError(
            f"labels go up to {highest} but out_channels is {out_channels}; "
            f"it must be at least {highest + 1}, background included."
        )
    if "largest_components" in parser.get():
        component_ids(labels, parser.get_parsed_content("largest_components"))
    confidence = parser.get_parsed_content("confidence") if "confidence" in parser.get() else 0
    check_thresholds(confidence, out_channels)


def _check_data(parser: Any) -> None:
    """Raise ValueError with the problems of the cases of this run, FileNotFoundError without a dataset."""
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
    errors = errors_of(problems)
    used = [case for cases in sections.values() for case in cases]
    if first == "test":  # the others are evaluated without
        _mark_problems(used, {problem.image: str(problem) for problem in errors if problem.image})
        errors = [problem for problem in errors if not problem.image]
    if errors:
        raise ValueError(f"{datalist}: {_problems_text(errors)}")
    if first == "test":
        _mark_problems(used, _memory_problems(parser, used, parser.get_parsed_content("out_channels")))
        _refuse_if_none_is_left(sections[first])
        return
    _check_annotated(sections, parser.get_parsed_content("labels"))
    too_large = _memory_problems(parser, used, parser.get_parsed_content("in_channels") + 1)
    if too_large:
        raise ValueError(_problems_text(list(too_large.values())))


def _check_annotated(sections: Mapping[str, Sequence[Any]], labels: Mapping[str, Any]) -> None:
    """Raise ValueError for a label that no training case of this run has annotated."""
    if names := annotated_nowhere(sections.get("training", ()), labels):
        raise ValueError(
            f"No training case of this run has {', '.join(names)} annotated, so it cannot be learned; give more or "
            "other cases (train_cases, seed), or leave it out of labels."
        )


def _mark_problems(cases: Sequence[dict[str, Any]], problems: Mapping[str, str]) -> None:
    """Mark cases by the problems that any process found, by their images."""
    shares: Any = [problems] if idist.get_world_size() == 1 else idist.all_gather(dict(problems))
    known = {image: text for share in shares for image, text in share.items()}
    for case in cases:
        image = case_files(case)[0]
        case |= {"problem": known[image]} if image in known else {}


def check_images_of(parser: Any) -> None:
    """Mark the images that cannot be predicted by their ``problem``, or raise ValueError if that is all of them."""
    cases, in_channels = parser.get_parsed_content("cases"), parser.get_parsed_content("in_channels")
    for case in cases:
        problems = [case["problem"]] if "problem" in case else check_images([case], in_channels)
        case |= {"problem": problems[0]} if problems else {}
    _mark_problems(cases, _memory_problems(parser, cases, parser.get_parsed_content("out_channels")))
    _refuse_if_none_is_left(cases)


def _memory_problems(parser: Any, cases: Sequence[dict[str, Any]], channels: int) -> dict[str, str]:
    """Return the problems of cases that memory does not suffice for, by their images."""
    return check_memory(
        cases, parser.get_parsed_content("spacing"), str(parser.get_parsed_content("orientation")), channels
    )


def _refuse_if_none_is_left(cases: Sequence[Mapping[str, Any]]) -> None:
    problems = [case["problem"] for case in cases if "problem" in case]
    if len(problems) == len(cases):
        raise ValueError(_problems_text(problems))


def _problems_text(problems: Sequence[object]) -> str:
    more = f" (and {len(problems) - 5} more problems)" if len(problems) > 5 else ""
    return " | ".join(map(str, problems[:5])) + more


def _expected_labels(parser: Any, datalist: Path) -> dict[str, int]:
    """Return the valid ids of label maps by name: those in ``dataset.json``, else those of the configuration.

    Raises:
        ValueError: If the configuration names a label that is not in the dataset, or reports one that is not trained.
    """
    labels = parser.get_parsed_content("labels")
    ids = {name if len(label) == 1 else f"{name} {i}": i for name, label in label_ids(labels).items() for i in label}
    for name, reported in label_ids(parser.get_parsed_content("reported")).items():
        if not set(reported) <= set(ids.values()):
            raise ValueError(f"reported has {name!r} = {reported}, but labels has only the ids {sorted(ids.values())}.")
    names = label_names(load_datalist(datalist))
    map_labels(names, labels)
    return {name: i for i, name in names.items() if i} or ids


def check_run_folder(parser: Any) -> None:
    """Raise ValueError if a new training run would overwrite an earlier one."""
    folder = Path(parser.get_parsed_content("ckpt_dir"))
    present = [path for path in (*training_states(folder), folder / MODEL_FILE) if path.is_file()]
    if present and not parser.get_parsed_content("resume"):
        raise ValueError(
            f"{present[0]} already holds a training run; add resume.json to resume it, or choose another run_name."
        )
