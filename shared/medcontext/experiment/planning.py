"""Arguments and number of steps of each training run of an experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcontext.bundle import check_configuration, one_sentence, open_workflow
from medcontext.data.datalist import cross_validation_folds, write_fold
from medcontext.experiment.grid import MODES, Cell, config_file, config_files
from medcontext.storage.addresses import without_password

__all__ = ["Job", "checked_configuration", "plan"]

SET_BY_GRID = {"run_name", "train_fraction", "train_cases", "seed", "mode", "resume", "output_dir", "ckpt_dir"}


@dataclass(frozen=True)
class Job:
    """Training run and evaluation of a cell.

    Attributes:
        cell: the cell of the grid.
        home: folder of data and runs.
        run_dir: folder of the training run's outputs.
        tracking_uri: MLflow database or server.
        training: arguments of the training run, as for ``monai.bundle run``.
        evaluating: arguments of the evaluation; empty for none.
        reference: arguments of the same run in the mode ``medcontext``, whose time the modes of equal time take.
    """

    cell: Cell
    home: Path
    run_dir: Path
    tracking_uri: str
    training: dict[str, Any]
    evaluating: dict[str, Any]
    reference: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run, which begins with that of the experiment."""
        return self.run_dir.name

    @property
    def place(self) -> tuple[str, str]:
        """Bundle and dataset, which share a budget."""
        return self.cell.bundle, self.cell.dataset


def plan(
    cells: Sequence[Cell],
    *,
    experiment_name: str,
    overlays: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    test_fold: int | None = None,
) -> list[Job]:
    """Check every configuration and determine the arguments of each cell, for equally many steps.

    All subsets of a dataset train for as many steps as the whole dataset does in the configured ``max_epochs``: fewer
    cases are seen more often. :func:`~medcontext.experiment.with_equal_time` then changes the modes of equal time.

    Folds train for ``max_epochs``. They are evaluated on the cases held out, without postprocessing, which these chose.

    Args:
        cells: cells from :func:`~medcontext.experiment.grid`.
        experiment_name: MLflow experiment, and the beginning of the runs' names.
        overlays: names of further configuration files of the bundle, such as ``phantom``, or paths of your own.
        overrides: values of configuration keys, as for training; ``unlabeled`` and ``unlabeled_dir`` are only for the
            modes with unlabelled scans.
        test_fold: fold of the training cases, of five, to test on instead of the test cases; no run trains on it.

    Raises:
        SystemExit: If a configuration or the data cannot be used, with one sentence.
        ValueError: If ``overrides`` has keys that the grid sets, or a password.
    """
    overrides = dict(overrides or {})
    reserved = SET_BY_GRID if test_fold is None else SET_BY_GRID | {"datalist"}
    if any(cell.num_folds for cell in cells):
        reserved = reserved | {"fold", "num_folds"}
    if any(cell.planned for cell in cells):
        reserved = reserved | {"dataset", "dataset_dir"}
    if reserved & overrides.keys():
        raise ValueError(f"the grid itself sets {', '.join(sorted(reserved & overrides.keys()))}; leave that out.")
    uri = str(overrides.get("tracking_uri", ""))
    if without_password(uri) != uri:
        raise ValueError(
            "tracking_uri has a password or token, which the files of an experiment would keep; leave it out and give "
            "the address by the variable MLFLOW_TRACKING_URI."
        )
    unlabeled: dict[str, Any] = {
        name: overrides.pop(name) for name in ("unlabeled", "unlabeled_dir") if name in overrides
    }
    budgets: dict[tuple[str, str], _Budget] = {}
    jobs = []
    for cell in cells:
        if (cell.bundle, cell.dataset) not in budgets:
            files = config_files(cell, overlays, "medcontext")
            place = {"dataset_dir": cell.dataset} if cell.planned else {}  # even if the folder was moved since
            budgets[cell.bundle, cell.dataset] = _Budget(files, {**overrides, **place}, test_fold, cell.num_folds)
        budget = budgets[cell.bundle, cell.dataset]
        scans = unlabeled if MODES[cell.mode].unlabeled else {}
        files = config_files(cell, overlays, cell.mode)
        budget.check(files, scans, cell)
        common = {"experiment_name": experiment_name, **budget.overrides, "seed": cell.seed, **cell.subset}
        run_name = f"{experiment_name}-{cell.name}"
        run_dir = budget.home / "runs" / Path(cell.bundle).name / run_name
        training = {
            "run_id": "training",
            "config_file": files,
            "run_name": run_name,
            **common,
            **budget.epochs_of(cell),
        }
        evaluating = {
            "run_id": "evaluating",
            "config_file": [*files, config_file(cell, "evaluate")],
            "ckpt_dir": str(run_dir / "models"),
            **common,
            **budget.evaluation_of(cell),
        }
        reference = {**training, "config_file": budget.files}
        uri = budget.tracking_uri
        jobs.append(Job(cell, budget.home, run_dir, uri, training | scans, evaluating | scans, reference))
    return jobs


def checked_configuration(config_file: Sequence[str], overrides: Mapping[str, Any]) -> Any:
    """Return the parser of a training run's configuration, before anything is built.

    Raises:
        SystemExit: If it cannot be used, with one sentence.
    """
    workflow = open_workflow(config_file, **overrides)
    check_configuration(workflow)
    return workflow.parser


class _Budget:
    """Length of the training runs of one bundle and dataset."""

    def __init__(
        self, files: list[str], overrides: Mapping[str, Any], test_fold: int | None, num_folds: int | None
    ) -> None:
        self.files, self.overrides = files, dict(overrides)
        self.split = {} if num_folds is None else {"fold": 0, "num_folds": num_folds}
        parser = self._parse(files, seed=0)
        self.home = Path(parser.get_parsed_content("home"))
        if test_fold is not None:
            with one_sentence("test_fold"):
                self.overrides["datalist"] = write_fold(parser.get_parsed_content("datalist"), self.home, test_fold)
            parser = self._parse(files, seed=0)
        self.datalist = str(parser.get_parsed_content("datalist"))
        self.tracking_uri = str(parser.get_parsed_content("tracking_uri"))
        self.batch_size = parser.get_parsed_content("batch_size")
        self.epochs = {
            key: parser.get_parsed_content(key) for key in ("max_epochs", "val_interval", "checkpoint_interval")
        }
        self.steps = self._steps_per_epoch(parser)
        self._steps_of_subset: dict[tuple[Any, ...], int] = {}
        self._checked: set[tuple[Any, ...]] = set()

    def check(self, files: Sequence[str], unlabeled: Mapping[str, Any], cell: Cell) -> None:
        """Check the configuration of a mode with unlabelled scans, where it differs from the others."""
        key = (*files, cell.fraction, cell.cases)
        if MODES[cell.mode].unlabeled and key not in self._checked:
            self._parse(files, **unlabeled, seed=cell.seed, **cell.subset)
            self._checked.add(key)

    def _parse(self, files: Sequence[str], **changes: Any) -> Any:
        return checked_configuration(files, {**self.overrides, **self.split, **changes})

    def _steps_per_epoch(self, parser: Any) -> int:
        return math.ceil(len(parser.get_parsed_content("cases")["training"]) / self.batch_size)

    def epochs_of(self, cell: Cell) -> dict[str, int]:
        """Return the epochs of a cell, and between its validations and checkpoints."""
        if cell.num_folds is not None:
            return dict(self.epochs)
        key = (cell.fraction, cell.cases, cell.seed)
        if key not in self._steps_of_subset:
            self._steps_of_subset[key] = self._steps_per_epoch(self._parse(self.files, seed=cell.seed, **cell.subset))
        factor = self.steps / self._steps_of_subset[key]
        return {name: max(1, round(count * factor)) for name, count in self.epochs.items()}

    def evaluation_of(self, cell: Cell) -> dict[str, Any]:
        """Return what the evaluation of a fold needs besides: the cases held out, and no postprocessing."""
        if cell.fold is None or cell.num_folds is None:
            return {}
        with one_sentence("folds"):
            cross_validation_folds(self.datalist, cell.num_folds, cell.seed)
            file = write_fold(self.datalist, self.home, cell.fold, cell.num_folds, cell.seed)
        return {"datalist": file, "largest_components": []}
