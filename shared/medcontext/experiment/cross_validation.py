"""Cross-validations of an experiment: their folds, their estimate of the Dice, and the budget that they choose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from medcontext.bundle import find_home
from medcontext.data import data_hash
from medcontext.data.datalist import cross_validation_folds
from medcontext.experiment.grid import Cell
from medcontext.handlers.component_choice import COMPONENTS_FILE
from medcontext.metrics import ComponentEvidence, MetricSummary, choose_components, summarise
from medcontext.networks.model_file import MODEL_FILE, read_settings
from medcontext.report import checkpoint_sha256
from medcontext.storage.json_files import read_json
from medcontext.storage.tables import read_csv_text

__all__ = ["Budget", "CrossValidation", "Fold", "experiment_dir", "read_cross_validation"]

_BY_FOLD = {"fold", "run_name", "resume"}
"""Keys of the configuration in which folds differ."""
_WEIGHTS = {"val_mean_dice": "student_last", "val_mean_dice_ema": "last"}
"""Value of ``select_checkpoint`` that takes the weights of a validation's column."""


class Budget(NamedTuple):
    """Length of a training run, and the weights to take at its end, as ``select_checkpoint`` names them."""

    epochs: int
    select_checkpoint: str


@dataclass(frozen=True)
class Fold:
    """Training run of a fold, with its evaluation on the cases that were held out.

    Attributes:
        cell: its cell of the grid.
        run_dir: folder of the run.
        state: ``new``, ``trained`` or ``evaluated``.
        training: arguments of the training run.
        log: file with its log.
    """

    cell: Cell
    run_dir: Path
    state: str
    training: Mapping[str, Any]
    log: Path

    @property
    def ckpt_path(self) -> Path:
        """The weights."""
        return self.run_dir / "models" / MODEL_FILE

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the training run."""
        return _read_json(self.run_dir / "train_config.json")

    def metrics(self) -> pd.DataFrame:
        """Return one row per held-out case and label."""
        return _read_table(self.run_dir / "evaluation" / "metrics.csv", ["case", "label"])

    def evaluation_info(self) -> dict[str, Any]:
        """Return what the evaluation says of weights and cases."""
        info: dict[str, Any] = _read_json(self.run_dir / "evaluation" / "summary.json").get("info", {})
        return info


@dataclass(frozen=True)
class CrossValidation:
    """All folds of a cross-validation, in their order.

    Attributes:
        name: beginning of the names of its runs.
        folds: the folds.
    """

    name: str
    folds: tuple[Fold, ...]

    @property
    def ckpt_paths(self) -> list[Path]:
        """The weights of the folds."""
        return [fold.ckpt_path for fold in self.folds]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings that all weights need.

        Raises:
            ValueError: If there are none, or they differ.
        """
        for path in self.ckpt_paths:
            if not read_settings(path):
                raise ValueError(f"No model.json beside {path} says what the weights need; train the folds again.")
        return read_settings(self.ckpt_paths)

    def check(self, datalist: str) -> None:
        """Check that the folds were trained alike, on the cases that the dataset has, and evaluated with their weights.

        Args:
            datalist: path of the ``dataset.json``.

        Raises:
            ValueError: If a check fails.
        """
        first = self.folds[0]
        number, seed = len(self.folds), first.cell.seed
        held_out = cross_validation_folds(datalist, number, seed)
        _ = self.settings
        for fold, cases in zip(self.folds, held_out, strict=True):
            differing = _differing_keys(first.config, fold.config)
            if differing:
                raise ValueError(
                    f"{first.run_dir.name} and {fold.run_dir.name} were trained with different {', '.join(differing)}; "
                    "cross-validate again under another experiment_name."
                )
            info = fold.evaluation_info()
            if info.get("data_hash") != data_hash(cases):
                raise ValueError(
                    f"{datalist} has other cases than when {fold.run_dir.name} was evaluated; cross-validate again "
                    "under another experiment_name."
                )
            if info.get("checkpoint_sha256") != checkpoint_sha256(fold.ckpt_path):
                raise ValueError(
                    f"{fold.ckpt_path} has changed since it was evaluated, so its Dice is unknown; cross-validate "
                    "again under another experiment_name."
                )

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per case and label, each of the network that did not see the case in training."""
        tables = [fold.metrics() for fold in self.folds]
        names = [name for table in tables for name in table["case"].unique()]
        if len(set(names)) < len(names):  # files of one name in several folders
            tables = [
                table.assign(case=f"fold{fold.cell.fold}/" + table["case"])
                for fold, table in zip(self.folds, tables, strict=True)
            ]
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def summary(self) -> MetricSummary:
        """Averages over all cases, with intervals."""
        return summarise(self.metrics)

    @property
    def sentence(self) -> str:
        """The estimate in words."""
        low, high = self.summary.mean_dice_interval
        return (
            f"{self.name}: mean Dice {self.summary.mean_dice:.3f} (95 % interval {low:.3f} to {high:.3f}) over "
            f"{self.summary.cases} cases in {len(self.folds)} folds, each segmented by the network that did not train "
            "on it."
        )

    @cached_property
    def evidence(self) -> ComponentEvidence | None:
        """Labels of which only the largest component is kept, by the cases of all folds; ``None`` without counts."""
        files = [path.with_name(COMPONENTS_FILE) for path in self.ckpt_paths]
        if not all(file.is_file() for file in files):
            return None
        return choose_components(pd.concat([_read_table(file, ["case", "label", "structure"]) for file in files]))

    def budget(self) -> Budget:
        """Return the epoch, and whose weights, with the highest mean of the folds' validation Dice.

        Epochs that not all folds validated, because some ended early, do not count. A cross-validation that takes the
        last state takes it here too.

        Raises:
            ValueError: If no epoch was validated in all folds.
        """
        select = str(self.folds[0].config.get("select_checkpoint", "best"))
        if select.endswith("last"):
            return Budget(int(self.folds[0].training["max_epochs"]), select)
        columns = [name for name in _WEIGHTS if not (select.startswith("student") and name.endswith("_ema"))]
        tables = [pd.read_csv(fold.ckpt_path.with_name("history.csv")).set_index("epoch") for fold in self.folds]
        curves = [table.reindex(columns=columns).stack().dropna() for table in tables]
        means = pd.concat(curves, axis=1, join="inner").mean(axis=1)
        if means.empty:
            raise ValueError(
                f"{self.name}: no epoch has a validation Dice in all folds, so they choose none; take the ensemble."
            )
        best: Any = means.idxmax()
        return Budget(int(best[0]), _WEIGHTS[best[1]])


def experiment_dir(experiment_name: str) -> Path:
    """Return the folder of an experiment in the home of the working directory or the repository.

    Raises:
        FileNotFoundError: If there is none.
    """
    roots = (Path.cwd(), Path(__file__).resolve().parents[3])
    homes = [Path(find_home(str(root / "bundles" / "any"))) for root in roots]
    folders = [home / "runs" / "experiments" / experiment_name for home in homes]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"There is no {folders[0]}; name an experiment that was run with --folds, or give its folder as output_dir."
    )


def read_cross_validation(folder: Path, name: str | None = None) -> CrossValidation:
    """Return a complete cross-validation of an experiment.

    Args:
        folder: folder of the experiment.
        name: name of the cross-validation; not needed where there is only one.

    Raises:
        ValueError: If there is none, there are several and none is named, or a fold is missing or not finished.
    """
    found: dict[str, list[Fold]] = {}
    for path in sorted(folder.glob("*.json")):
        for fold in _read_fold(path):
            experiment = path.stem.removesuffix(f"-{fold.cell.name}")
            found.setdefault(f"{experiment}-{fold.cell.repetition}-{fold.cell.num_folds}folds", []).append(fold)
    if not found:
        raise ValueError(f"{folder} holds no cross-validation; run the experiment with --folds 5.")
    names = ", ".join(found)
    if name is None and len(found) > 1:
        raise ValueError(f"{folder} holds {len(found)} cross-validations; name one by --cross_validation: {names}.")
    name = name or next(iter(found))
    if name not in found:
        raise ValueError(f"{folder} holds no cross-validation {name!r}; there are {names}.")
    return CrossValidation(name, tuple(_complete(name, found[name])))


def _read_fold(path: Path) -> Iterator[Fold]:
    """Yield the fold that a file of an experiment describes, if it does."""
    record = _read_json(path)
    if (record.get("cell") or {}).get("num_folds") is not None:
        run_dir = Path(record["evaluating"]["ckpt_dir"]).parent
        yield Fold(Cell(**record["cell"]), run_dir, record["state"], record["training"], path.with_suffix(".log"))


def _complete(name: str, folds: Iterable[Fold]) -> Sequence[Fold]:
    by_number = {fold.cell.fold: fold for fold in folds}
    number = next(iter(by_number.values())).cell.num_folds or 0
    missing = [str(index) for index in range(number) if index not in by_number]
    if missing:
        raise ValueError(f"{name} has no fold {', '.join(missing)}; run the experiment again, with --folds {number}.")
    for index in range(number):
        if by_number[index].state != "evaluated":
            raise ValueError(
                f"Fold {index} of {name} is not finished (see {by_number[index].log}); run the same experiment again, "
                "which resumes it."
            )
    return [by_number[index] for index in range(number)]


def _differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in one.keys() | other.keys() if key not in _BY_FOLD and one.get(key) != other.get(key))


def _read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file.

    Raises:
        ValueError: If it is missing or damaged.
    """
    try:
        content = read_json(path, finite=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); cross-validate again under another experiment_name."
        ) from error
    return content if isinstance(content, dict) else {}


def _read_table(path: Path, texts: list[str]) -> pd.DataFrame:
    """Read a table of :func:`medcontext.storage.tables.csv_bytes`, some columns of which are texts."""
    table = pd.read_csv(path, dtype=dict.fromkeys(texts, str))
    return table.assign(**{name: read_csv_text(table[name]) for name in texts})
