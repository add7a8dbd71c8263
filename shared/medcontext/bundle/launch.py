"""Start of a run: from a checked configuration to a running engine."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism
from torch import nn

from medcontext.bundle.checks import (
    check_configuration,
    check_images_of,
    check_keys,
    check_network,
    check_run_folder,
)
from medcontext.bundle.errors import MISTAKES, STOPS, FaultError, known_faults, one_sentence, removed_on_failure
from medcontext.bundle.model_settings import take_settings
from medcontext.bundle.properties import take_properties
from medcontext.bundle.signals import ended_by_signals, stopped_by_signals
from medcontext.bundle.values import settle_values, settled
from medcontext.cases import failed_cases, failures_sentence
from medcontext.storage.addresses import without_password
from medcontext.storage.files import remove_unfinished
from medcontext.storage.locks import lock, release
from medcontext.text import escape_records, printable
from medcontext.tracking.identity import read_identity, write_identity
from medcontext.tracking.tracker import check_tracking

__all__ = ["build_network", "prepare", "run"]

WAIT_FOR_LOADERS = 10.0
"""Maximum number of seconds to wait for the loaders of a killed run, which end with a delay and share its lock."""


def build_network(workflow: ConfigWorkflow) -> nn.Module:
    """Build the network of a configuration, after a check of its keys; its data need not exist.

    Args:
        workflow: an initialised workflow.

    Raises:
        SystemExit: If a key is misspelt or the network rejects its arguments; the message is one sentence.
    """
    parser = workflow.parser
    with one_sentence():
        check_keys(parser.get(), workflow.config_root_path)
        settle_values(parser)
        set_determinism(seed_of(parser))
    with one_sentence("network_def"):
        network: nn.Module = parser.get_parsed_content("network_def")
    return network


@ended_by_signals()
def prepare(workflow: ConfigWorkflow, engine: str, *, settings_check: Any = None) -> None:
    """Check a run, build its ``engine``, and print where its outputs are written.

    The checks find misspelt keys, missing or invalid data, a run folder that is in use, components that reject their
    arguments, a crop size that the network rejects, and an unreachable MLflow.

    Args:
        workflow: workflow of the configuration.
        engine: key of the trainer or evaluator, such as ``train#trainer``.
        settings_check: for a run with trained weights, whether settings other than those that they were trained with
            are refused; settings that were not given are taken from ``model.json`` beside the weights in any case.

    Raises:
        SystemExit: If a check fails, or a signal arrives; the message is one sentence.
    """
    escape_records()
    parser = workflow.parser
    if settings_check is not None:
        with one_sentence():
            settle_values(parser)
            take_settings(workflow, check=settled("settings_check", settings_check))
    if engine.startswith("train"):
        with one_sentence():
            take_properties(workflow)
    check_configuration(workflow)
    output_dir = Path(parser.get_parsed_content("output_dir"))
    with one_sentence():
        if idist.get_rank() == 0:
            if engine.startswith("train"):
                _reserve(parser)
            _remove_unfinished(parser, "train" if engine.startswith("train") else "other")
        if engine.startswith("train"):
            check_run_folder(parser)
        if "datalist" not in parser.get():
            check_images_of(parser)
        set_determinism(seed_of(parser))
    with one_sentence("network_def", folder=output_dir):
        network = parser.get_parsed_content("network_def")
        channels = parser.get_parsed_content("in_channels"), parser.get_parsed_content("out_channels")
        check_network(network, *channels, parser.get_parsed_content("roi_size"))
    first_process = idist.get_rank() == 0
    with one_sentence():
        if first_process and "tracking_uri" in parser.get():
            check_tracking(parser.get_parsed_content("tracking_uri"))
    with (
        one_sentence(kinds=(*MISTAKES, FaultError), folder=output_dir),
        removed_on_failure(output_dir),
        known_faults(),
    ):
        parser.get_parsed_content(engine)
    if first_process:
        config_file = output_dir / f"{re.split('#|::', engine)[0]}_config.json"
        config = dict(parser.get())
        if "mode" in config:  # an expression by default, whose value reports need
            config["mode"] = str(parser.get_parsed_content("mode"))
        if isinstance(config.get("tracking_uri"), str):  # MLflow shows the file to everyone who may see the run
            config["tracking_uri"] = without_password(config["tracking_uri"])
        with one_sentence(f"Cannot write to output_dir {output_dir}, choose another", (OSError,)):
            output_dir.mkdir(parents=True, exist_ok=True)
            parser.export_config_file(config, str(config_file), indent=4)
            if engine.startswith("train"):
                _record_identity(parser)
        print(printable(f"outputs: {output_dir}"), file=sys.stderr)


_WRITTEN = {"train": ("ckpt_dir", "output_dir", "cache_dir"), "other": ("predictions_dir", "evaluation_dir")}
"""Keys of the folders that training runs, and other runs, write files to."""


def _remove_unfinished(parser: Any, kind: str) -> None:
    """Remove what killed processes left in the folders that a run writes to."""
    for key in set(_WRITTEN[kind]) & parser.get().keys():
        folder = parser.get_parsed_content(key)
        if folder is not None:
            remove_unfinished(Path(folder))


def _reserve(parser: Any) -> None:
    """Raise ValueError if another process trains in the run's folder."""
    folder = Path(parser.get_parsed_content("ckpt_dir"))
    refusal = f"Another process is training in {folder}; wait for it, or choose another run_name."
    lock(folder, refusal, WAIT_FOR_LOADERS)


def _record_identity(parser: Any) -> None:
    """Write the run's name beside the checkpoints; what is known of the run in MLflow is kept."""
    ckpt_dir = parser.get_parsed_content("ckpt_dir")
    write_identity(ckpt_dir, **{**read_identity(ckpt_dir), "run_name": str(parser.get_parsed_content("run_name"))})


def run(workflow: ConfigWorkflow, engine: Any) -> None:
    """Run an engine that :func:`prepare` built, and end the program if cases failed.

    Errors that end a run without being programming errors are reported in one sentence; the traceback of any other
    error is also written to the run's folder.

    Args:
        workflow: workflow of the configuration.
        engine: a MONAI trainer or evaluator.

    Raises:
        SystemExit: If cases failed, after the others; or at once if a loss is not finite, an image cannot be read in
            training, a checkpoint or prediction cannot be written, a training run cannot be resumed from its
            checkpoint, MLflow is unreachable, or a signal arrives.
    """
    output_dir = Path(workflow.parser.get_parsed_content("output_dir"))
    engine.logger.addFilter(_shorten_exception)
    try:
        with stopped_by_signals(engine), one_sentence(kinds=STOPS, folder=output_dir), known_faults():
            engine.run()
    finally:
        release(Path(workflow.parser.get_parsed_content("ckpt_dir")))
    _end_if_cases_failed(engine, workflow.parser)


def _end_if_cases_failed(engine: Any, parser: Any) -> None:
    """End the program with an error if cases failed, once every process has finished the others."""
    failed = failed_cases(engine)
    idist.barrier()
    if failed:
        folder = next(key for key in ("predictions_dir", "evaluation_dir") if key in parser.get())
        total = len(engine.data_loader.dataset)
        sys.exit(f"medcontext: {printable(failures_sentence(failed, total, parser.get_parsed_content(folder)))}")


def _shorten_exception(record: logging.LogRecord) -> bool:
    """Shorten ignite's log record of an exception, which is raised too, to its first line, without tracebacks."""
    if "terminating due to exception" in str(record.msg):
        record.msg = str(record.msg).partition("\n")[0]
    return True


def seed_of(parser: Any) -> int:
    """Return the seed of a configuration, 0 if it sets none."""
    return int(parser.get_parsed_content("seed")) if "seed" in parser.get() else 0
