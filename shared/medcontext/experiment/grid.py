"""The training runs of an experiment."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcontext.bundle import find_bundle
from medcontext.checks import check_choice, check_fraction, check_integer

__all__ = ["MODES", "SUPERVISED_MODES", "Cell", "Rung", "config_file", "config_files", "grid"]


@dataclass(frozen=True)
class Rung:
    """Training of one mode.

    Attributes:
        overlay: the bundle's configuration file of the mode; ``None`` for ``train.json`` alone.
        equal_time: whether it trains for as many steps as fit in the time of ``medcontext``, instead of as many steps.
        unlabeled: whether it needs scans without labels.
    """

    overlay: str | None = None
    equal_time: bool = False
    unlabeled: bool = False

    @property
    def training(self) -> str:
        """Mode of the training run, which several modes of an experiment may share."""
        return self.overlay or "medcontext"


MODES: dict[str, Rung] = {
    "baseline": Rung("baseline"),
    "baseline_equal_time": Rung("baseline", equal_time=True),
    "patch_dropout": Rung("patch_dropout"),
    "masking_only": Rung("masking_only"),
    "medcontext": Rung(),
    "pseudo_labels": Rung("pseudo_labels", equal_time=True, unlabeled=True),
    "medcontext_unlabeled": Rung("medcontext_unlabeled", equal_time=True, unlabeled=True),
}
"""The ladder from plain training to all of MedContext, in which each rung adds to the one before."""

SUPERVISED_MODES = tuple(mode for mode, rung in MODES.items() if not rung.unlabeled)
"""The rungs that need labelled cases only."""


@dataclass(frozen=True)
class Cell:
    """One training run of the grid.

    Attributes:
        bundle: folder of the bundle.
        dataset: name or path of the dataset's overlay, or absolute path of a folder with a plan for each bundle.
        fraction: share of the training cases; ``None`` if ``cases`` is given.
        seed: seed of the subset, the initial weights and the crops.
        mode: one of :data:`MODES`.
        cases: number of labelled cases, those for validation included.
        fold: index of the fold that is held out, in a cross-validation.
        num_folds: number of its folds.
    """

    bundle: str
    dataset: str
    fraction: float | None
    seed: int
    mode: str
    cases: int | None = None
    fold: int | None = None
    num_folds: int | None = None

    @property
    def name(self) -> str:
        """Unique name of the cell, valid for a file."""
        return self.repetition if self.fold is None else f"{self.repetition}-fold{self.fold}of{self.num_folds}"

    @property
    def repetition(self) -> str:
        """Name that the folds of a cross-validation have in common."""
        size = f"f{self.fraction:g}" if self.cases is None else f"n{self.cases}"
        return f"{Path(self.bundle).name}-{self.dataset_name}-{self.mode}-{size}-s{self.seed}"

    @property
    def dataset_name(self) -> str:
        """Name of the dataset, without the path of its overlay; that of a planned folder."""
        return re.sub(r"[^\w.-]+", "_", Path(self.dataset).name) if self.planned else Path(self.dataset).stem

    @property
    def planned(self) -> bool:
        """Whether the dataset is a folder with plans."""
        return Path(self.dataset).is_absolute() and not self.dataset.endswith(".json")

    @property
    def overlay(self) -> str:
        """Name or path of the dataset's overlay."""
        return plan_file(self.dataset, self.bundle) if self.planned else self.dataset

    @property
    def subset(self) -> dict[str, Any]:
        """Keys of the configuration that choose the labelled cases, with their values."""
        size = {"train_fraction": self.fraction} if self.cases is None else {"train_cases": self.cases}
        return size if self.fold is None else {**size, "fold": self.fold, "num_folds": self.num_folds}


def grid(
    bundles: Iterable[str],
    datasets: Iterable[str],
    fractions: Iterable[float] | None,
    seeds: Iterable[int],
    modes: Iterable[str],
    cases: Iterable[int] | None = None,
    dataset_dirs: Iterable[str] = (),
    folds: int | None = None,
) -> list[Cell]:
    """Return all combinations, seed by seed, so that an interrupted experiment still compares modes.

    Args:
        bundles: folders of bundles, or names of those under ``bundles`` in the working directory or the home.
        datasets: names of dataset overlays, or paths of your own.
        fractions: shares of the training cases, above 0 and up to 1; ``None`` if ``cases`` are given.
        seeds: whole numbers, 0 or more.
        modes: names from :data:`MODES`.
        cases: numbers of labelled cases, those for validation included, instead of ``fractions``.
        dataset_dirs: folders of further datasets, each with its ``dataset.json`` and a plan for every bundle.
        folds: number of folds of a cross-validation over all cases that are not for testing; ``None`` for none.

    Raises:
        TypeError: If a seed, a share or a number of cases or folds is not a number.
        ValueError: If a list is empty, or has repeated or unknown entries, if the cases are chosen twice, if two
            datasets have the same name, or if a cross-validation is to leave cases out.
        FileNotFoundError: If there is no such bundle, dataset or plan.
    """
    if (fractions is None) == (cases is None):
        raise ValueError("fractions and cases both choose the cases to train on; give one of them.")
    axes: dict[str, list[Any]] = {
        "bundles": [str(find_bundle(bundle)) for bundle in bundles],
        "datasets": [*map(str, datasets), *(str(Path(folder).resolve()) for folder in dataset_dirs)],
        "fractions": [None] if fractions is None else list(fractions),
        "cases": [None] if cases is None else list(cases),
        "seeds": list(seeds),
        "folds": [None] if folds is None else list(range(_checked_folds(folds, fractions, cases))),
        "modes": list(modes),
    }
    for name, values in axes.items():
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} must name at least one, and each only once, got {values}.")
    _check_values(axes)
    cells = [
        Cell(bundle, dataset, None if fraction is None else float(fraction), seed, mode, number, fold, folds)
        for seed, bundle, dataset, fraction, number, fold, mode in itertools.product(
            *(axes[name] for name in ("seeds", "bundles", "datasets", "fractions", "cases", "folds", "modes"))
        )
    ]
    _check_datasets(cells)
    return cells


def _checked_folds(folds: int, fractions: Iterable[float] | None, cases: Iterable[int] | None) -> int:
    if cases is not None or list(fractions or ()) != [1.0]:
        raise ValueError("A cross-validation uses all labelled cases; leave fractions and cases out, or folds.")
    return check_integer("folds", folds, minimum=2, remedy="leave it out for no cross-validation")


def plan_file(dataset_dir: str, bundle: str) -> str:
    """Return the path of a folder's plan for a bundle, given by name or folder."""
    return str(Path(dataset_dir) / f"plan_{Path(bundle).name}.json")


def _check_datasets(cells: Sequence[Cell]) -> None:
    """Raise ValueError if two datasets have the same name, FileNotFoundError without a plan for a folder."""
    datasets: dict[str, str] = {}
    for cell in cells:
        other = datasets.setdefault(cell.dataset_name, cell.dataset)
        if other != cell.dataset:
            raise ValueError(
                f"{other} and {cell.dataset} are both called {cell.dataset_name}, so their runs could not be told "
                "apart; rename one folder and plan again."
            )
        datalist = Path(cell.dataset) / "dataset.json"
        if cell.planned and not datalist.is_file():
            raise FileNotFoundError(f"There is no {datalist}; name the folder of a prepared dataset in dataset_dirs.")
        if cell.planned and not Path(cell.overlay).is_file():
            raise FileNotFoundError(
                f"There is no {cell.overlay}; make it with: python -m medcontext plan --dataset_dir {cell.dataset}"
            )


def _check_values(axes: dict[str, list[Any]]) -> None:
    for mode in axes["modes"]:
        check_choice("each of modes", mode, MODES)
    for value in axes["seeds"]:
        check_integer("each of seeds", value, minimum=0, remedy="give whole numbers, such as 0 or 1")
    for value in axes["fractions"]:
        if value is not None:
            check_fraction("each of fractions", value, above_zero=True)
    for value in axes["cases"]:
        if value is not None:
            check_integer("each of cases", value, minimum=1, remedy="give numbers of labelled cases, such as 6")


def config_files(cell: Cell, overlays: Sequence[str], mode: str) -> list[str]:
    """Return the configuration files of a cell's training run, in one of :data:`MODES`."""
    overlay = MODES[mode].overlay
    return [config_file(cell, name) for name in ("train", cell.overlay, *overlays, *([overlay] if overlay else []))]


def config_file(cell: Cell, name: str) -> str:
    """Return the path of a configuration file that is given by name or path."""
    configs = Path(cell.bundle) / "configs"
    path = Path(name).resolve() if name.endswith(".json") else configs / f"{name}.json"
    if not path.is_file():
        known = sorted(p.stem for p in configs.glob("*.json") if p.stem not in ("metadata", "train", "inference"))
        raise FileNotFoundError(f"There is no {path}; overlays of the bundle are {', '.join(known)}.")
    return str(path)
