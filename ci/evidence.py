"""Train, collect and show what MedContext is worth on few labelled scans.

python ci/evidence.py budget     the shortest training at which the baseline is trained out, found on a fold
python ci/evidence.py run        all runs of evidence/settings.json; what is done is skipped
python ci/evidence.py collect    shared/docs/results/evidence.csv from the finished runs
python ci/evidence.py write      the README's table, the figure, and shared/docs/results/evidence.md from the CSV file
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fire
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from monai.utils import path_to_sqlite_uri

from evidence_tables import COLUMNS, KEY, update_documents
from medcontext.bundle import find_home
from medcontext.experiment import Cell, Job, grid, measure_costs, plan, run_cells, with_equal_time
from medcontext.handlers.mlflow_tracker import RUN_FILE
from medcontext.metrics import summarise
from repository import ROOT

FOLDER = ROOT / "ci" / "evidence"
SETTINGS = FOLDER / "settings.json"
CSV = ROOT / "shared" / "docs" / "results" / "evidence.csv"

FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Shares of the configured epochs that ``budget`` tries in turn."""
RISE = 0.005
"""A training whose validation Dice rises by less over its last quarter is long enough."""


@dataclass(frozen=True)
class Setting:
    """Some labelled cases of a dataset, on which the modes are compared.

    Attributes:
        name: what ``--only`` calls it.
        bundle: name of the bundle.
        dataset: name of the dataset and of its overlay, the bundle's or one beside the settings.
        cases: number of labelled cases, those for validation included.
        draws: by mode, how many draws of these cases.
        overlays: names of further overlays.
        overrides: values of configuration keys.
    """

    name: str
    bundle: str
    dataset: str
    cases: int
    draws: dict[str, int]
    overlays: list[str] = field(default_factory=list)
    overrides: dict[str, Any] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """The trainings, draw by draw."""
        seeds = range(max(self.draws.values()))
        cells = grid([self.bundle], [self._overlay(self.dataset)], None, seeds, self.draws, cases=[self.cases])
        return [cell for cell in cells if cell.seed < self.draws[cell.mode]]

    def plan(self, data: str | None, experiment: str, **changes: Any) -> list[Job]:
        """What they run, with the data in ``<data>/<dataset>`` or, where that is not, in the home."""
        folder = None if data is None else Path(data).resolve() / self.dataset
        place = {} if folder is None or not folder.is_dir() else {"dataset_dir": str(folder)}
        overlays = [self._overlay(name) for name in self.overlays]
        overrides = {**place, **self.overrides, **changes.pop("overrides", {})}
        cells = changes.pop("cells", None) or self.cells()
        return plan(
            cells, experiment_name=f"{experiment}-{self.name}", overlays=overlays, overrides=overrides, **changes
        )

    def _overlay(self, name: str) -> str:
        of_bundle = ROOT / "bundles" / self.bundle / "configs" / f"{name}.json"
        return name if of_bundle.is_file() else str(FOLDER / f"{name}.json")


def read_settings(path: str | os.PathLike[str], only: str | Sequence[str] | None = None) -> list[Setting]:
    """The settings of a file, or some of them by name.

    Raises:
        ValueError: If there is none of a name.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    settings = {item["name"]: Setting(**item) for item in content["settings"]}
    names = list(settings) if only is None else [only] if isinstance(only, str) else list(only)
    unknown = [name for name in names if name not in settings]
    if unknown:
        raise ValueError(f"There is no setting {', '.join(unknown)}; there are {', '.join(settings)}.")
    return [settings[name] for name in names]


def run(
    data: str | None = None,
    output_dir: str | None = None,
    only: str | Sequence[str] | None = None,
    parallel: int = 1,
    minutes: float | None = None,
    test_fold: int | None = None,
    settings: str = str(SETTINGS),
) -> None:
    """Train and evaluate what is not done yet, and resume what was cut short.

    Args:
        data: folder that holds a folder of each dataset; ``<home>/data`` for those that it lacks.
        output_dir: costs, states and logs; ``<home>/runs/experiments/evidence`` by default.
        only: names of settings, separated by commas.
        parallel: trainings at a time, on the GPU if there is one.
        minutes: stop then; the same call goes on.
        test_fold: to choose settings without the test cases, as for ``medcontext experiment``.
        settings: another file of settings.
    """
    started, folder, devices = time.monotonic(), _folder(output_dir, test_fold), _devices(parallel)
    experiment = "evidence" if test_fold is None else f"evidence-fold{test_fold}"
    jobs: list[Job] = []
    for setting in read_settings(settings, only):
        planned = setting.plan(data, experiment, test_fold=test_fold)
        jobs += with_equal_time(planned, measure_costs(planned, folder, devices))
    left = None if minutes is None else minutes - (time.monotonic() - started) / 60
    failures = run_cells(jobs, folder, devices, left)
    if failures:
        raise SystemExit("\n".join(failures))


def _folder(output_dir: str | None, test_fold: int | None = None) -> Path:
    name = "evidence" if test_fold is None else f"evidence-fold{test_fold}"
    home = Path(find_home(str(ROOT / "bundles" / "any")))
    return Path(output_dir) if output_dir else home / "runs" / "experiments" / name


def _devices(parallel: int) -> list[str]:
    return ["0" if torch.cuda.is_available() else "cpu"] * parallel


def budget(
    data: str | None = None,
    output_dir: str | None = None,
    only: str | Sequence[str] | None = None,
    draws: int = 2,
    parallel: int = 1,
    settings: str = str(SETTINGS),
) -> None:
    """Find the shortest training of the baseline whose validation Dice hardly rises over the last quarter.

    Trainings of growing length validate on a fold of the training cases that nothing trains on, four times each. Of
    every setting the first is told that is long enough, in epochs of the whole training set, as ``max_epochs`` of its
    overlay counts them, and in steps.

    Args:
        data: as for ``run``.
        output_dir: ``<home>/runs/experiments/evidence-budget`` by default.
        only: names of settings, separated by commas.
        draws: of the labelled cases, over which the rise is averaged.
        parallel: trainings at a time.
        settings: another file of settings.
    """
    folder = Path(output_dir) if output_dir else _folder(None).with_name("evidence-budget")
    for setting in read_settings(settings, only):
        for factor in FACTORS:
            jobs = _of_length(setting, data, factor, draws)
            failures = run_cells(jobs, folder / f"{factor:g}", _devices(parallel))
            if failures:
                raise SystemExit("\n".join(failures))
            curves = [validation_dice(job.run_dir) for job in jobs]
            rise = sum(curve.iloc[-1] - curve.iloc[-2] for curve in curves) / len(curves)
            dice, steps = sum(curve.iloc[-1] for curve in curves) / len(curves), curves[0].index[-1]
            print(
                f"{setting.name}: {factor:g} of max_epochs, {steps} steps: Dice {dice:.4f}, rise {rise:+.4f}",
                flush=True,
            )
            if rise < RISE:
                break
        else:
            print(f"{setting.name}: none is long enough; raise max_epochs.")


def _of_length(setting: Setting, data: str | None, factor: float, draws: int) -> list[Job]:
    """Baselines of a share of the configured length, that validate four times on the fold."""
    cells = replace(setting, draws={"baseline": draws}).cells()
    fold = "$medcontext.data.load_cases(@datalist, 'test')"
    jobs = setting.plan(data, f"budget{factor:g}", cells=cells, test_fold=0, overrides={"cases#validation": fold})
    changed = []
    for job in jobs:
        quarter = max(1, round(job.training["max_epochs"] * factor / 4))
        training = {**job.training, "max_epochs": 4 * quarter, "val_interval": quarter}
        evaluating = {name: value for name, value in job.evaluating.items() if name != "cases#validation"}
        changed.append(replace(job, training=training, evaluating=evaluating))
    return changed


def validation_dice(run_dir: Path) -> pd.Series[float]:
    """By step, the better of the validated networks' mean Dice."""
    table = pd.read_csv(run_dir / "models" / "history.csv").set_index("step")
    return table.filter(regex="^val_mean_dice").max(axis=1).dropna()


def collect(output_dir: str | None = None, csv: str = str(CSV), settings: str = str(SETTINGS)) -> None:
    """Add the results of finished runs to the CSV file, in place of earlier ones of the same setting, mode and draw.

    Args:
        output_dir: as for ``run``.
        csv: the file.
        settings: another file of settings, for the datasets' sources.
    """
    folder, path = _folder(output_dir), Path(csv)
    sources = json.loads(Path(settings).read_text(encoding="utf-8"))["sources"]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*-s*.json"))]
    finished = [record for record in records if record.get("state") == "evaluated"]
    if not finished:
        raise ValueError(f"{folder} holds no finished runs; name their folder by --output_dir.")
    found = pd.DataFrame([row(record, sources) for record in finished], columns=COLUMNS)
    if path.is_file():
        found = pd.concat([pd.read_csv(path), found]).drop_duplicates(KEY, keep="last")
    path.parent.mkdir(parents=True, exist_ok=True)
    found.sort_values(KEY).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    print(f"{path}: {len(found)} runs, {len(finished)} of them from {folder}")


def row(record: dict[str, Any], sources: dict[str, str]) -> dict[str, Any]:
    """The CSV file's row of a finished run.

    Args:
        record: what the experiment keeps of it.
        sources: of the datasets, by name.
    """
    run_dir, cell = Path(record["evaluating"]["ckpt_dir"]).parent, Cell(**record["cell"])
    summary = summarise(pd.read_csv(run_dir / "evaluation" / "metrics.csv", dtype={"case": str, "label": str}))
    history = pd.read_csv(run_dir / "models" / "history.csv").iloc[-1]
    uri = os.environ.get("MLFLOW_TRACKING_URI") or path_to_sqlite_uri(str(run_dir.parents[2] / "mlruns.db"))
    run_id = json.loads((run_dir / "models" / RUN_FILE).read_text(encoding="utf-8"))["run_id"]
    tags = MlflowClient(uri).get_run(run_id).data.tags
    dice = summary.labels["dice_mean"]
    return {
        "dataset": cell.dataset_name,
        "source": sources[cell.dataset_name],
        "bundle": Path(cell.bundle).name,
        "labelled_cases": cell.cases,
        "mode": cell.mode,
        "draw": cell.seed,
        "steps": int(history["step"]),
        "processor_seconds": float(history["train_processor_seconds"]),
        "mean_dice": summary.mean_dice,
        "dice": "; ".join(f"{label} {value:.4f}" for label, value in dice.items() if not math.isnan(value)),
        "commit": tags.get(MLFLOW_GIT_COMMIT, ""),
        "version": tags.get("medcontext.version", ""),
    }


def write(check: bool = False, root: str = str(ROOT)) -> None:
    """Write the README's table, the figure and the list of all pairs from the CSV file.

    Args:
        check: write nothing, and exit with 1 if a document says otherwise than the CSV file.
        root: folder of the repository.
    """
    different = update_documents(Path(root), check=check)
    if check and different:
        sys.exit(f"{', '.join(different)} and evidence.csv differ; run python ci/evidence.py write.")


if __name__ == "__main__":
    try:
        fire.Fire({function.__name__: function for function in (budget, run, collect, write)})
    except (ValueError, OSError) as error:
        sys.exit(f"evidence: {error}")
