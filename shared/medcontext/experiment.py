"""A grid of trainings that shows whether MedContext helps: every mode on the same cases, seeds and budgets."""

from __future__ import annotations

import itertools
import json
import math
import os
import queue
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from monai.bundle import ConfigWorkflow
from tqdm import tqdm

from medcontext.bundle import check_configuration, find_home
from medcontext.files import write_file

__all__ = ["EQUAL_TIME", "MODES", "Cell", "grid", "plan", "run_cells"]

EQUAL_TIME = 7 / 3
"""What a MedContext step costs in plain steps: two student passes forward and back and one teacher pass forward."""

MODES: dict[str, tuple[str | None, float]] = {
    "medcontext": (None, 1),
    "baseline": ("baseline", 1),
    "baseline_equal_time": ("baseline", EQUAL_TIME),
    "masking_only": ("masking_only", 1),
}
"""By mode, the overlay that it takes and its steps as a multiple of the configured ones."""

STATES = ("new", "trained", "evaluated")


@dataclass(frozen=True)
class Cell:
    """One training of the grid.

    Attributes:
        bundle: folder of the bundle.
        dataset: name of the dataset's overlay.
        fraction: share of the training cases.
        seed: of the subset, the initial weights and the crops.
        mode: one of :data:`MODES`.
    """

    bundle: str
    dataset: str
    fraction: float
    seed: int
    mode: str

    @property
    def name(self) -> str:
        """What tells the cell from others, fit for a file."""
        return f"{Path(self.bundle).name}-{self.dataset}-{self.mode}-f{self.fraction:g}-s{self.seed}"


@dataclass(frozen=True)
class Job:
    """What a cell runs.

    Attributes:
        cell: the place in the grid.
        home: where data and runs lie.
        run_dir: outputs of the training.
        tracking_uri: MLflow database or server.
        training: arguments of the training, as for ``monai.bundle run``.
        evaluating: arguments of the evaluation.
    """

    cell: Cell
    home: Path
    run_dir: Path
    tracking_uri: str
    training: dict[str, Any]
    evaluating: dict[str, Any]


def grid(
    bundles: Iterable[str],
    datasets: Iterable[str],
    fractions: Iterable[float],
    seeds: Iterable[int],
    modes: Iterable[str],
) -> list[Cell]:
    """All combinations, seed by seed, so that what was cut short still compares modes.

    Args:
        bundles: folders of bundles, or names of those under ``bundles`` in the working directory or the home.
        datasets: names of dataset overlays.
        fractions: shares of the training cases, above 0 and up to 1.
        seeds: whole numbers, 0 or more.
        modes: names from :data:`MODES`.

    Raises:
        ValueError: When a list is empty or holds something twice or unknown.
        FileNotFoundError: When there is no such bundle.
    """
    axes: dict[str, list[Any]] = {
        "bundles": [str(_bundle_folder(bundle)) for bundle in bundles],
        "datasets": list(datasets),
        "fractions": list(fractions),
        "seeds": list(seeds),
        "modes": list(modes),
    }
    for name, values in axes.items():
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} must name at least one, and each only once, got {values}.")
    unknown = [mode for mode in axes["modes"] if mode not in MODES]
    if unknown:
        raise ValueError(f"modes must be among {', '.join(MODES)}, got {', '.join(map(str, unknown))}.")
    for value in axes["fractions"]:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise ValueError(f"fractions must be above 0 and at most 1, got {value!r}.")
    for value in axes["seeds"]:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"seeds must be whole numbers, 0 or more, got {value!r}.")
    return [
        Cell(bundle, dataset, float(fraction), seed, mode)
        for seed, bundle, dataset, fraction, mode in itertools.product(
            axes["seeds"], axes["bundles"], axes["datasets"], axes["fractions"], axes["modes"]
        )
    ]


def plan(
    cells: Sequence[Cell],
    *,
    experiment_name: str,
    overlays: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> list[Job]:
    """Check every configuration and work out what each cell runs.

    All fractions of a dataset train for as many steps as the whole of it does in the configured ``max_epochs``: fewer
    cases are seen more often. ``baseline_equal_time`` takes :data:`EQUAL_TIME` as many.

    Args:
        cells: from :func:`grid`.
        experiment_name: MLflow experiment, and the beginning of the runs' names.
        overlays: names of further configuration files of the bundle, such as ``phantom``, or paths of your own.
        overrides: values of configuration keys, as for training.

    Raises:
        SystemExit: With one sentence, when a configuration or the data cannot be used.
        ValueError: When ``overrides`` sets what the grid sets.
    """
    overrides = dict(overrides or {})
    taken = {"run_name", "train_fraction", "train_cases", "seed", "mode", "resume", "output_dir", "ckpt_dir"}
    if taken & overrides.keys():
        raise ValueError(f"the grid itself sets {', '.join(sorted(taken & overrides.keys()))}; leave that out.")
    budgets: dict[tuple[str, str], _Budget] = {}
    jobs = []
    for cell in cells:
        if (cell.bundle, cell.dataset) not in budgets:
            budgets[cell.bundle, cell.dataset] = _Budget(_files(cell, overlays), overrides)
        budget = budgets[cell.bundle, cell.dataset]
        common = {"experiment_name": experiment_name, **overrides, "seed": cell.seed, "train_fraction": cell.fraction}
        run_name = f"{experiment_name}-{cell.name}"
        run_dir = budget.home / "runs" / Path(cell.bundle).name / run_name
        mode_overlay = MODES[cell.mode][0]
        files = _files(cell, [*overlays, *([mode_overlay] if mode_overlay else [])])
        training = {"run_id": "training", "config_file": files, "run_name": run_name, **common, **budget.of(cell)}
        evaluating = {
            "run_id": "evaluating",
            "config_file": [*files, _file(cell, "evaluate")],
            "ckpt_dir": str(run_dir / "models"),
            **common,
        }
        jobs.append(Job(cell, budget.home, run_dir, budget.tracking_uri, training, evaluating))
    return jobs


class _Budget:
    """How long the cells of one bundle and dataset train."""

    def __init__(self, files: list[str], overrides: Mapping[str, Any]) -> None:
        self.files, self.overrides = files, overrides
        parser = self._parse(train_fraction=1.0, seed=0)
        self.home = Path(parser.get_parsed_content("home"))
        self.tracking_uri = os.environ.get("MLFLOW_TRACKING_URI") or parser.get_parsed_content("tracking_uri")
        self.batch_size = parser.get_parsed_content("batch_size")
        self.epochs = {
            key: parser.get_parsed_content(key) for key in ("max_epochs", "val_interval", "checkpoint_interval")
        }
        self.steps = self._steps_per_epoch(1.0, 0)
        self._known: dict[tuple[float, int], int] = {(1.0, 0): self.steps}

    def _parse(self, **changes: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI's, that a configuration is code
            workflow = ConfigWorkflow(
                config_file=self.files, logging_file=False, workflow_type="train", **{**self.overrides, **changes}
            )
        workflow.initialize()
        check_configuration(workflow)
        return workflow.parser

    def _steps_per_epoch(self, fraction: float, seed: int) -> int:
        cases = self._parse(train_fraction=fraction, seed=seed).get_parsed_content("cases")["training"]
        return math.ceil(len(cases) / self.batch_size)

    def of(self, cell: Cell) -> dict[str, int]:
        """Epochs of a cell, and between its validations and checkpoints."""
        key = (cell.fraction, cell.seed)
        if key not in self._known:
            self._known[key] = self._steps_per_epoch(*key)
        longer = self.steps / self._known[key]
        counts = {name: max(1, round(count * longer)) for name, count in self.epochs.items()}
        times = MODES[cell.mode][1]
        return {
            "max_epochs": round(counts["max_epochs"] * times),
            "val_interval": max(1, round(counts["val_interval"] * times)),
            "checkpoint_interval": counts["checkpoint_interval"],
        }


def run_cells(jobs: Sequence[Job], output_dir: str | os.PathLike[str], devices: Sequence[str | int] = ()) -> list[str]:
    """Train and evaluate all cells, one after the other on each device.

    What was finished by an earlier call is skipped; a training that was cut short goes on from its last checkpoint.
    A cell that fails does not stop the others. Of every cell ``output_dir`` holds the arguments, the state and a log.

    Args:
        jobs: from :func:`plan`.
        output_dir: folder of the experiment.
        devices: GPU numbers, or ``cpu``; one process runs on each, and a device may be named several times. Without
            any, one process runs on what the configuration chooses.

    Returns:
        A sentence about each cell that failed.

    Raises:
        ValueError: When the folder holds cells of the same name with other settings, or one that still runs.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    records = [_Record(job, folder) for job in jobs]
    open_ones = [record for record in records if record.state != "evaluated"]
    places: queue.Queue[Mapping[str, str]] = queue.Queue()
    environments = _environments(devices)
    for environment in environments:
        places.put(environment)
    for uri in {job.tracking_uri for job in jobs}:
        MlflowClient(uri).search_experiments(max_results=1)  # makes the tables, which processes must not do at once
    if len(open_ones) < len(records):
        print(f"{len(records) - len(open_ones)} of {len(records)} runs were done before.", file=sys.stderr)

    def work(record: _Record) -> str | None:
        environment = places.get()
        try:
            return record.run(environment)
        finally:
            places.put(environment)

    failures = []
    with tqdm(total=len(records), initial=len(records) - len(open_ones), unit="run", desc="experiment") as bar:
        pool = ThreadPoolExecutor(max_workers=len(environments))
        futures = [pool.submit(work, record) for record in open_ones]
        try:
            pending = set(futures)
            while pending:
                done, pending = wait(pending, timeout=1, return_when=FIRST_EXCEPTION)
                failures += [failure for future in done if (failure := future.result())]
                if done:
                    bar.update(len(done))
        finally:  # after an exception, Ctrl-C included, nothing goes on behind the user's back
            for future in futures:
                future.cancel()
            for record in open_ones:
                record.stop()
            pool.shutdown()
    return failures


class _Record:
    """A cell's place on disk: what it runs, how far it has come, and its process."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.path = folder / f"{job.cell.name}.json"
        self.log = folder / f"{job.cell.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False
        self.state = STATES[0]
        settings = {"training": job.training, "evaluating": job.evaluating}
        self.content: dict[str, Any] = {"cell": asdict(job.cell), "state": self.state, "pid": None, **settings}
        if self.path.is_file():
            self._compare(json.loads(self.path.read_text(encoding="utf-8")))

    def _compare(self, earlier: dict[str, Any]) -> None:
        plain = json.loads(json.dumps(self.content))
        different = sorted(
            key
            for part in ("training", "evaluating")
            for key in earlier[part].keys() | plain[part].keys()
            if earlier[part].get(key) != plain[part].get(key)
        )
        if different:
            raise ValueError(
                f"{self.path} was run with other values of {', '.join(dict.fromkeys(different))}; "
                "choose another experiment_name, or another output_dir."
            )
        pid = earlier["pid"]
        if pid is not None and _runs(pid, self.job.cell.name):
            raise ValueError(f"{self.job.cell.name} is still run by process {pid}; wait for it, or end it.")
        self.state = self.content["state"] = earlier["state"]

    def run(self, environment: Mapping[str, str]) -> str | None:
        """Run what is left of the cell; return what failed."""
        for entry, state in (("training", "trained"), ("evaluating", "evaluated")):
            if STATES.index(self.state) >= STATES.index(state):
                continue
            if self.stopped:
                return None
            code = self._call(entry, environment)
            if self.stopped:
                return None
            if code:
                return f"{self.job.cell.name}: {entry} ended with {code}, see {self.log}"
            self._save(state=state, pid=None)
        return None

    def _call(self, entry: str, environment: Mapping[str, str]) -> int:
        arguments = dict(self.content[entry])
        if entry == "training" and (self.job.run_dir / "models" / "last.pt").is_file():
            arguments["config_file"] = [*arguments["config_file"], _file(self.job.cell, "resume")]
        file = self.path.with_suffix(f".{entry}.json")
        write_file(file, (json.dumps(arguments, indent=4) + "\n").encode())
        command = [sys.executable, "-m", "monai.bundle", "run", "--args_file", str(file)]
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # a Ctrl-C of the terminal would reach it twice
            )
            self._save(pid=self.process.pid)
            if self.stopped:
                self.stop()
            return self.process.wait()

    def _save(self, **changes: Any) -> None:
        self.content.update(changes)
        self.state = self.content["state"]
        write_file(self.path, (json.dumps(self.content, indent=4) + "\n").encode())

    def stop(self) -> None:
        """End the process as Ctrl-C does, so that it can mark its MLflow run, or else by force."""
        self.stopped = True
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def _runs(pid: int, name: str) -> bool:
    """Whether a process that runs this cell is alive; numbers of processes are used again."""
    try:
        return any(name in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _environments(devices: Sequence[str | int]) -> list[dict[str, str]]:
    """For each process that shall run at a time, the environment that keeps it on its device.

    Raises:
        ValueError: When a device is neither a number nor ``cpu``.
    """
    if not devices:
        return [{}]
    found = []
    for device in devices:
        number = str(device).removeprefix("cuda:")
        if number != "cpu" and not number.isdigit():
            raise ValueError(f"devices must be GPU numbers or cpu, got {device!r}.")
        found.append({"CUDA_VISIBLE_DEVICES": "" if number == "cpu" else number})
    if all(environment["CUDA_VISIBLE_DEVICES"] == "" for environment in found) and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // len(found))
        found = [{**environment, "OMP_NUM_THREADS": str(threads)} for environment in found]
    return found


def _bundle_folder(bundle: str) -> Path:
    """Folder of a bundle that is given by its folder or name."""
    places = [Path(bundle), *(folder / "bundles" / str(bundle) for folder in _roots())]
    for place in places:
        if (place / "configs" / "train.json").is_file():
            return place.resolve()
    names = sorted({path.parents[1].name for root in _roots() for path in root.glob("bundles/*/configs/train.json")})
    known = f"name one of {', '.join(names)}, or " if names else ""
    raise FileNotFoundError(f"There is no bundle {bundle!r}; {known}give the path of its folder.")


def _roots() -> Iterator[Path]:
    yield Path.cwd()
    yield Path(find_home(str(Path.cwd() / "bundles" / "any")))
    yield Path(__file__).resolve().parents[2]


def _files(cell: Cell, overlays: Sequence[str]) -> list[str]:
    """Configuration files of a cell's training."""
    return [_file(cell, name) for name in ("train", cell.dataset, *overlays)]


def _file(cell: Cell, name: str) -> str:
    """Path of a configuration file that is named, or given as a path."""
    configs = Path(cell.bundle) / "configs"
    path = Path(name).resolve() if name.endswith(".json") else configs / f"{name}.json"
    if not path.is_file():
        known = sorted(p.stem for p in configs.glob("*.json") if p.stem not in ("metadata", "train", "inference"))
        raise FileNotFoundError(f"There is no {path}; overlays of the bundle are {', '.join(known)}.")
    return str(path)
