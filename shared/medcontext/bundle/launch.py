"""From a checked configuration to a running engine."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import sys
import threading
from collections.abc import Iterator
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
from medcontext.bundle.errors import STOPS, one_sentence, removed_on_failure
from medcontext.storage.addresses import without_password
from medcontext.tracking.identity import read_identity, write_identity
from medcontext.tracking.tracker import check_tracking

__all__ = ["build_network", "prepare", "run"]


def build_network(workflow: ConfigWorkflow) -> nn.Module:
    """The network of a configuration whose keys are spelt right; its data need not exist.

    Args:
        workflow: an initialised workflow.

    Raises:
        SystemExit: With one sentence, when a key is misspelt or the network rejects its arguments.
    """
    parser = workflow.parser
    with one_sentence():
        check_keys(parser.get(), workflow.config_root_path)
        set_determinism(seed_of(parser))
    with one_sentence("network_def"):
        network: nn.Module = parser.get_parsed_content("network_def")
    return network


def prepare(workflow: ConfigWorkflow, engine: str) -> None:
    """Refuse a run that cannot go well, in one sentence, then build ``engine`` and say where its outputs go.

    Looks for misspelt keys, missing or wrong data, a run folder that is in use, components that reject their
    arguments, a crop size that the network cannot take, and an MLflow that does not answer. Anything wrong ends the
    program with the sentence alone.

    Args:
        workflow: what runs the configuration.
        engine: key of the trainer or evaluator, such as ``train#trainer``.

    Raises:
        SystemExit: With the sentence.
    """
    parser = workflow.parser
    check_configuration(workflow)
    output_dir = Path(parser.get_parsed_content("output_dir"))
    with one_sentence():
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
    with one_sentence(folder=output_dir), removed_on_failure(output_dir):
        parser.get_parsed_content(engine)
    if first_process:
        config_file = output_dir / f"{re.split('#|::', engine)[0]}_config.json"
        config = dict(parser.get())
        if "mode" in config:  # an expression by default, of which reports could not tell what it came to
            config["mode"] = str(parser.get_parsed_content("mode"))
        if isinstance(config.get("tracking_uri"), str):  # MLflow shows the file to whoever may see the run
            config["tracking_uri"] = without_password(config["tracking_uri"])
        with one_sentence(f"Cannot write to output_dir {output_dir}, choose another", (OSError,)):
            output_dir.mkdir(parents=True, exist_ok=True)
            parser.export_config_file(config, str(config_file), indent=4)
            if engine.startswith("train"):
                _identify(parser)
        print(f"outputs: {output_dir}", file=sys.stderr)


def _identify(parser: Any) -> None:
    """Note beside the checkpoints whose they are; a resumed run keeps its id in MLflow."""
    ckpt_dir = parser.get_parsed_content("ckpt_dir")
    known = read_identity(ckpt_dir) if parser.get_parsed_content("resume") else {}
    write_identity(ckpt_dir, **{**known, "run_name": str(parser.get_parsed_content("run_name"))})


def run(workflow: ConfigWorkflow, engine: Any) -> None:
    """Run an engine that :func:`prepare` built.

    What it stops for is reported in one sentence; of anything else the traceback is kept in the run's folder too.

    Args:
        workflow: what runs the configuration.
        engine: a MONAI trainer or evaluator.

    Raises:
        SystemExit: If a loss is not finite, an image cannot be read, a checkpoint or prediction cannot be written, a
            training run cannot be resumed from its checkpoint, or MLflow does not take a run.
    """
    output_dir = Path(workflow.parser.get_parsed_content("output_dir"))
    engine.logger.addFilter(_first_line)
    with _terminable(), one_sentence(kinds=STOPS, folder=output_dir):
        engine.run()


def _first_line(record: logging.LogRecord) -> bool:
    """Shorten what ignite logs of an exception, with the whole traceback of a loader's process; it is raised too."""
    if "terminating due to exception" in str(record.msg):
        record.msg = str(record.msg).partition("\n")[0]
    return True


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, by which schedulers end a job, end the run as Ctrl-C does, unless the program handles it itself."""

    def terminate(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def seed_of(parser: Any) -> int:
    return int(parser.get_parsed_content("seed")) if "seed" in parser.get() else 0
