"""What a bundle's configuration asks of Python: where it lies, what its run is called, and whether it can start."""

from __future__ import annotations

import contextlib
import copy
import difflib
import json
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow
from monai.bundle.utils import ID_SEP_KEY
from monai.utils import set_determinism
from torch import nn

from medcontext.addresses import without_password
from medcontext.data import check_dataset, check_images, label_names, load_datalist, problems_table, sided_axes
from medcontext.data.label_mapping import map_labels
from medcontext.dicom import ImageReadError
from medcontext.engines.trainer import USING_UNLABELED, TrainingMode, TrainingPasses
from medcontext.handlers import CheckpointWriteError, NonFiniteLossError, PredictionWriteError, ResumeError
from medcontext.handlers.checkpoints import LAST_FILE, MODEL_FILE, SELECTIONS
from medcontext.handlers.mlflow_outbox import TrackingError
from medcontext.handlers.mlflow_tracker import RUN_FILE, check_tracking
from medcontext.inferers import flip_axes
from medcontext.metrics import label_ids
from medcontext.networks import plain_network
from medcontext.networks.sizes import check_crop_size
from medcontext.transforms import mirrored_axes

__all__ = [
    "build_network",
    "check_configuration",
    "checkpoint_run",
    "check_network",
    "find_home",
    "find_root",
    "has_training_state",
    "hyperparameters",
    "latest_run",
    "model_to_log",
    "name",
    "new_run_name",
    "one_sentence",
    "prepare",
    "run",
    "run_folder",
    "version",
]

logger = logging.getLogger(__name__)

MONAI_KEYS = {"tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0", "output_dir"}
MISTAKES: tuple[type[BaseException], ...] = (ValueError, TypeError, FileNotFoundError, ImportError, AssertionError)
STOPS: tuple[type[BaseException], ...] = (
    NonFiniteLossError,
    CheckpointWriteError,
    ImageReadError,
    PredictionWriteError,
    ResumeError,
    TrackingError,
)
UNLOGGED_KEYS = {"tracking_uri", "tracking_wait", "resume"}
ENTRY_KEYS = {"imports", "initialize", "finalize", "run", "training", "evaluating", "inferring"}

# what inference.json takes over from a training
MODEL_KEYS = (
    *("in_channels", "out_channels", "labels", "orientation", "spacing", "intensity", "roi_size"),
    *("sw_batch_size", "overlap", "network_def"),
)
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

_run_names: weakref.WeakKeyDictionary[ConfigWorkflow, str] = weakref.WeakKeyDictionary()


def _workflow() -> ConfigWorkflow | None:
    """The MONAI workflow on whose behalf the calling expression is evaluated; MONAI passes expressions no handle."""
    frame = sys._getframe(1)
    while frame is not None:
        for name in ("self", "workflow"):
            owner = frame.f_locals.get(name)
            if isinstance(owner, ConfigWorkflow):
                return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _required_workflow() -> ConfigWorkflow:
    workflow = _workflow()
    if workflow is None:
        raise RuntimeError("This belongs into a bundle's configuration, run by `python -m monai.bundle run`.")
    return workflow


def find_root() -> str:
    """The bundle's folder, from any working directory: the one above the ``configs`` folder that is being run."""
    workflow = _workflow()
    if workflow is not None:
        configs = Path(workflow.config_root_path)
    else:
        words = re.findall(r"[^\s'\"\[\],=]+\.json", " ".join(sys.argv))
        configs = Path(words[0]).parent if words else Path("configs")
    configs = configs.resolve()
    return str(configs.parent if configs.name == "configs" else configs)


def find_home(bundle_root: str) -> str:
    """Where data and runs lie: ``$MEDCONTEXT_HOME``, else the repository of the bundle, else the bundle's folder."""
    home = os.environ.get("MEDCONTEXT_HOME")
    if home:
        return str(Path(home).expanduser().resolve())
    root = Path(bundle_root).resolve()
    in_repository = root.parent.name == "bundles" and (root.parent.parent / "pyproject.toml").is_file()
    return str(root.parent.parent if in_repository else root)


def name(bundle_root: str) -> str:
    """The bundle's name: that of its folder, as in the model zoo."""
    return Path(bundle_root).resolve().name


def version(bundle_root: str) -> str:
    """The version that the bundle's ``configs/metadata.json`` gives, ``unknown`` without one."""
    path = Path(bundle_root) / "configs" / "metadata.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["version"]) if path.is_file() else "unknown"


def new_run_name(*words: str) -> str:
    """A unique name such as ``btcv-medcontext-20260131-140501-3f2a``, the same whenever this workflow asks again.

    Processes of one distributed run agree on the name of the first.
    """
    workflow = _workflow()
    run = _run_names.get(workflow) if workflow is not None else None
    if run is None:
        run = "-".join([*words, time.strftime("%Y%m%d-%H%M%S"), uuid.uuid4().hex[:4]])
    run = str(_agreed(run))
    if workflow is not None:
        _run_names[workflow] = run
    return run


def _agreed(value: Any) -> Any:
    """The value of the first process of a distributed run."""
    values = [value]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def latest_run(runs_dir: str) -> str:
    """Name of the run under ``runs_dir`` that saved its training state last.

    Raises:
        FileNotFoundError: When none has saved any.
    """
    states = sorted(Path(runs_dir).glob(f"*/models/{LAST_FILE}"), key=lambda path: path.stat().st_mtime)
    if not states:
        raise FileNotFoundError(f"No run under {runs_dir} can be resumed; name the one to resume by --run_name.")
    return states[-1].parent.parent.name


def has_training_state(ckpt_dir: str) -> bool:
    """Whether a training in ``ckpt_dir`` can be gone on with; processes of one distributed run agree on it."""
    return bool(_agreed((Path(ckpt_dir) / LAST_FILE).is_file()))


def checkpoint_run(ckpt_dir: str) -> str | None:
    """Name of the run that trained the checkpoints in a folder, if they still lie beside its run file."""
    path = Path(ckpt_dir) / RUN_FILE
    return str(json.loads(path.read_text())["run_name"]) if path.is_file() else None


def run_folder(ckpt_dir: str, default: str) -> str:
    """The folder of the run that trained the checkpoints in ``ckpt_dir``, else ``default``."""
    return default if checkpoint_run(ckpt_dir) is None else str(Path(ckpt_dir).resolve().parent)


def hyperparameters() -> dict[str, Any]:
    """The plain values among the top-level keys of the running configuration, nested ones under dotted names."""
    parser = _required_workflow().parser
    found: dict[str, Any] = {}
    for key, value in parser.get().items():
        composed = isinstance(value, dict) and "_target_" in json.dumps(value, default=str)
        derived = isinstance(value, str) and value.startswith("$") and any(mark in value for mark in ("#", "::"))
        if key in ENTRY_KEYS | UNLOGGED_KEYS or key.startswith("_") or composed or derived:
            continue
        _flatten(key, parser.get_parsed_content(key), found)
    return found


def _flatten(key: str, value: Any, found: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for name, item in value.items():
            _flatten(f"{key}.{name}", item, found)
    elif value is None or isinstance(value, (str, int, float, torch.device)) or _is_plain_list(value):
        found[key] = value


def _is_plain_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, (str, int, float)) for item in value)


def model_to_log(log_model: bool, registered_model_name: str | None) -> dict[str, Any] | None:
    """What :class:`~medcontext.handlers.MLflowTracker` needs to log the running configuration's network as a model.

    Args:
        log_model: whether to log it at all.
        registered_model_name: the registered model that it becomes a version of, if any.

    Raises:
        ValueError: When a model that is not logged shall be registered.
    """
    if not log_model:
        if registered_model_name is not None:
            raise ValueError(f"registered_model_name {registered_model_name!r} needs log_model true.")
        return None
    parser = _required_workflow().parser
    root = parser.get_parsed_content("bundle_root")
    known = json.loads((Path(root) / "configs" / "inference.json").read_text(encoding="utf-8"))
    settings = {key: _plain(parser, key) for key in MODEL_KEYS if key in known}
    return {
        "bundle_root": root,
        "settings": settings,
        "labels": _plain(parser, "labels"),
        "registered_model_name": registered_model_name,
    }


def _plain(parser: Any, key: str) -> Any:
    """A value of the configuration with its references replaced, as far as JSON can hold them."""
    value = parser.get(key)
    if isinstance(value, dict):
        return {name: _plain(parser, f"{key}#{name}") for name in value}
    if isinstance(value, list):
        return [_plain(parser, f"{key}#{index}") for index in range(len(value))]
    if isinstance(value, str) and value.startswith(("$", "@")):
        parsed = parser.get_parsed_content(key)
        try:
            return json.loads(json.dumps(parsed))
        except TypeError:  # a reference to a component
            return _plain(parser, value[1:]) if value.startswith("@") else value
    return value


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
        _check_keys(parser.get(), workflow.config_root_path)
        _check_numbers(parser)
        _check_labels(parser)
        _check_mirroring(parser)
        if "datalist" in parser.get():
            _check_data(parser)
        _check_choices(parser)


def build_network(workflow: ConfigWorkflow) -> nn.Module:
    """The network of a configuration whose keys are spelt right; its data need not exist.

    Args:
        workflow: an initialised workflow.

    Raises:
        SystemExit: With one sentence, when a key is misspelt or the network rejects its arguments.
    """
    parser = workflow.parser
    with one_sentence():
        _check_keys(parser.get(), workflow.config_root_path)
        set_determinism(_seed(parser))
    with one_sentence("network_def"):
        network: nn.Module = parser.get_parsed_content("network_def")
    return network


def prepare(engine: str) -> None:
    """Refuse a run that cannot go well, in one sentence, then build ``engine`` and say where its outputs go.

    Looks for misspelt keys, missing or wrong data, a run folder that is in use, components that reject their
    arguments, a crop size that the network cannot take, and an MLflow that does not answer. Anything wrong ends the
    program with the sentence alone.

    Raises:
        SystemExit: With the sentence.
    """
    workflow = _required_workflow()
    parser = workflow.parser
    check_configuration(workflow)
    with one_sentence():
        if engine.startswith("train"):
            _check_run_folder(parser)
        if "datalist" not in parser.get():
            _check_images(parser)
        set_determinism(_seed(parser))
    with one_sentence("network_def"):
        network = parser.get_parsed_content("network_def")
        channels = parser.get_parsed_content("in_channels"), parser.get_parsed_content("out_channels")
        check_network(network, *channels, parser.get_parsed_content("roi_size"))
    output_dir = Path(parser.get_parsed_content("output_dir"))
    first_process = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    with one_sentence():
        if first_process and "tracking_uri" in parser.get():
            check_tracking(parser.get_parsed_content("tracking_uri"))
    with one_sentence(), _no_rubbish(output_dir):
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
        print(f"outputs: {output_dir}", file=sys.stderr)


def run(engine: Any) -> None:
    """Run an engine that :func:`prepare` built; what it stops for is told in one sentence.

    Args:
        engine: a MONAI trainer or evaluator.

    Raises:
        SystemExit: When a loss is not finite, an image cannot be read, a checkpoint or prediction cannot be written, a
            training cannot be resumed from its checkpoint, or MLflow does not take a run.
    """
    engine.logger.addFilter(_first_line)
    with _terminable(), one_sentence(kinds=STOPS):
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


def _seed(parser: Any) -> int:
    return int(parser.get_parsed_content("seed")) if "seed" in parser.get() else 0


@contextlib.contextmanager
def one_sentence(subject: str | None = None, kinds: tuple[type[BaseException], ...] = MISTAKES) -> Iterator[None]:
    """End the program with the message of a user's mistake alone; anything else keeps its traceback."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, kinds):  # MONAI wraps what its components raise
            cause = cause.__cause__
        said = _of_worker(error, kinds)
        if cause is None and said is None:
            raise
        logger.debug("refused", exc_info=error)
        text = " ".join((said or str(cause)).split()) or type(cause).__name__
        raise SystemExit(f"medcontext: {subject + ': ' if subject else ''}{text}") from error


def _of_worker(error: Exception, kinds: tuple[type[BaseException], ...]) -> str | None:
    """What a loader's process was ended by, if by one of ``kinds``; of its exceptions only the traceback arrives."""
    names = "|".join(re.escape(f"{kind.__module__}.{kind.__qualname__}") for kind in kinds)
    found = re.search(rf"^Caught .* in DataLoader worker process(?s:.*)^(?:{names}): (.+)$", str(error), re.MULTILINE)
    return found[1] if found else None


@contextlib.contextmanager
def _no_rubbish(output_dir: Path) -> Iterator[None]:
    """Remove the folder again if it was made for a run that could not be built."""
    existed = output_dir.exists()
    try:
        yield
    except Exception:
        if not existed:
            shutil.rmtree(output_dir, ignore_errors=True)
        raise


def _check_keys(config: Mapping[str, Any], configs: str | os.PathLike[str]) -> None:
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
    first_process = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
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


def _check_images(parser: Any) -> None:
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


def _check_run_folder(parser: Any) -> None:
    """Raise ValueError when a new training would write over an earlier one."""
    folder = Path(parser.get_parsed_content("ckpt_dir"))
    present = [folder / name for name in (LAST_FILE, MODEL_FILE) if (folder / name).is_file()]
    if present and not parser.get_parsed_content("resume"):
        raise ValueError(
            f"{present[0]} already holds a training; add resume.json to go on with it, or choose another run_name."
        )
