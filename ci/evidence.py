"""Train, collect and show what MedContext is worth on few labelled scans.

python ci/evidence.py budget     the shortest training run at which the baseline is trained out, found on a fold
python ci/evidence.py run        all runs of evidence/settings.json; finished ones are skipped
python ci/evidence.py collect    shared/docs/results/evidence.csv from the finished runs
python ci/evidence.py write      the README's table, the figure, evidence.md and variants.md from the CSV files

Defaults are chosen on a fold of the training cases: ``run`` and ``collect`` with ``--settings
ci/evidence/variants.json --test_fold 0`` train the variants and write shared/docs/results/variants.csv.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
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
from medcontext.metrics import MetricSummary, summarise
from medcontext.tracking import resolve_tracking_uri
from medcontext.tracking.identity import read_identity
from repository import ROOT

FOLDER = ROOT / "ci" / "evidence"
SETTINGS = FOLDER / "settings.json"
RESULTS = ROOT / "shared" / "docs" / "results"

FACTORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Shares of the configured epochs that ``budget`` tries in turn."""
RISE = 0.005
"""A training run is long enough if the next longer one gains less mean Dice."""


@dataclass(frozen=True)
class Setting:
    """Some labelled cases of a dataset, on which the modes are compared.

    Attributes:
        name: name for ``--only``, the base and the variant for a variant.
        bundle: name of the bundle.
        dataset: name of the dataset and of its overlay, the bundle's or one beside the settings.
        cases: number of labelled cases, those for validation included.
        draws: by mode, how many draws of these cases.
        overlays: names of further overlays.
        source: where the data come from.
        overrides: values of configuration keys.
        variant: what the overrides change, where they vary another setting.
    """

    name: str
    bundle: str
    dataset: str
    cases: int
    draws: dict[str, int]
    overlays: list[str] = field(default_factory=list)
    source: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    variant: str = ""

    def cells(self) -> list[Cell]:
        """Return the training runs, draw by draw."""
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

    A setting that names a ``base`` in ``settings.json`` is a variant of it: it adds overrides, and has its own draws.
    Variants are compared with the baseline of their ``group``, by default with that of the base.

    Raises:
        ValueError: If there is none of a name.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    sources = content.get("sources", {})
    settings = {setting.name: setting for setting in (_setting(item, sources) for item in content["settings"])}
    names = list(settings) if only is None else [only] if isinstance(only, str) else list(only)
    unknown = [name for name in names if name not in settings]
    if unknown:
        raise ValueError(f"There is no setting {', '.join(unknown)}; there are {', '.join(settings)}.")
    return [settings[name] for name in names]


def _setting(item: dict[str, Any], sources: Mapping[str, str]) -> Setting:
    if "base" not in item:
        return Setting(**item, source=sources[item["dataset"]])
    (base,) = read_settings(SETTINGS, item["base"])
    variant, overrides = item.get("variant", ""), {**base.overrides, **item.get("overrides", {})}
    group = item.get("group", base.name)
    name = f"{group}-{variant}" if variant else group
    return replace(base, name=name, variant=variant, overrides=overrides, draws=item["draws"])


def run(
    data: str | None = None,
    output_dir: str | None = None,
    only: str | Sequence[str] | None = None,
    parallel: int = 1,
    minutes: float | None = None,
    test_fold: int | None = None,
    settings: str = str(SETTINGS),
    csv: str | None = None,
) -> None:
    """Train and evaluate what the CSV file of results lacks, and resume what was cut short.

    Args:
        data: folder that holds a folder of each dataset; ``<home>/data`` for those that it lacks.
        output_dir: costs, states and logs; ``<home>/runs/experiments/evidence`` by default.
        only: names of settings, separated by commas.
        parallel: training runs at a time, on the GPU if there is one.
        minutes: stop then; the same call resumes.
        test_fold: to choose settings without the test cases, as for ``medcontext experiment``.
        settings: another file of settings.
        csv: results that ``collect`` wrote; ``evidence.csv``, or ``variants.csv`` with a fold.
    """
    started, folder, devices = time.monotonic(), experiment_folder(output_dir, test_fold), _devices(parallel)
    experiment, done = _experiment(test_fold), _collected(csv_file(csv, test_fold))
    jobs: list[Job] = []
    for setting in read_settings(settings, only):
        planned = setting.plan(data, experiment, test_fold=test_fold)
        todo = [job for job in planned if (setting.name, job.cell.mode, job.cell.seed) not in done]
        jobs += with_equal_time(todo, measure_costs(todo, folder, devices))
    left = None if minutes is None else minutes - (time.monotonic() - started) / 60
    failures = run_cells(jobs, folder, devices, left)
    if failures:
        raise SystemExit("\n".join(failures))


def _experiment(test_fold: int | None) -> str:
    return "evidence" if test_fold is None else f"evidence-fold{test_fold}"


def experiment_folder(output_dir: str | None, test_fold: int | None = None) -> Path:
    """Folder of costs, states and logs."""
    home = Path(find_home(str(ROOT / "bundles" / "any")))
    return Path(output_dir) if output_dir else home / "runs" / "experiments" / _experiment(test_fold)


def csv_file(csv: str | None, test_fold: int | None) -> Path:
    """File of results, of the test cases or of a fold."""
    return Path(csv) if csv else RESULTS / ("evidence.csv" if test_fold is None else "variants.csv")


def _collected(csv: Path) -> set[tuple[str, str, int]]:
    """Name of the setting, mode and draw of the runs that are in a CSV file."""
    if not csv.is_file():
        return set()
    rows = pd.read_csv(csv, keep_default_na=False)
    names = [f"{setting}-{variant}" if variant else setting for setting, variant in rows[["setting", "variant"]].values]
    return set(zip(names, rows["mode"], rows["draw"], strict=True))


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
    """Find the shortest training run of the baseline that a longer one hardly improves on.

    Training runs of growing length are tested on a fold of the training cases that none of them trains on. In each, the
    learning rate decays to 0, so that the end of a single run's curve is always flat and says nothing about its length.
    The budget is reported in steps and as a share of ``max_epochs`` in the setting's overlay.

    Args:
        data: as for ``run``.
        output_dir: ``<home>/runs/experiments/evidence-budget`` by default.
        only: names of settings, separated by commas.
        draws: of the labelled cases, over which Dice is averaged.
        parallel: training runs at a time.
        settings: another file of settings.
    """
    folder = Path(output_dir) if output_dir else experiment_folder(None).with_name("evidence-budget")
    for setting in read_settings(settings, only):
        reached, enough = -math.inf, "none is long enough; raise max_epochs"
        for factor in FACTORS:
            jobs = _of_length(setting, data, factor, draws)
            failures = run_cells(jobs, folder, _devices(parallel))
            if failures:
                raise SystemExit("\n".join(failures))
            results = [_results(job.run_dir) for job in jobs]
            dice, steps = statistics.mean(summary.mean_dice for summary, _ in results), int(results[0][1]["step"])
            print(f"{setting.name}: {factor:g} of max_epochs, {steps} steps: Dice {dice:.4f}", flush=True)
            if dice - reached < RISE:
                break
            reached, enough = dice, f"{factor:g} of max_epochs, {steps} steps, are enough"
        print(f"{setting.name}: {enough}.")


def _of_length(setting: Setting, data: str | None, factor: float, draws: int) -> list[Job]:
    """Baselines of a share of the configured length, tested on the fold."""
    cells = replace(setting, draws={"baseline": draws}).cells()
    jobs = setting.plan(data, f"budget{factor:g}", cells=cells, test_fold=0)
    return [
        replace(job, training={**job.training, "max_epochs": max(1, round(job.training["max_epochs"] * factor))})
        for job in jobs
    ]


def _results(run_dir: Path) -> tuple[MetricSummary, pd.Series[Any]]:
    """Summary of the test, and the last row of the training run's history."""
    cases = pd.read_csv(run_dir / "evaluation" / "metrics.csv", dtype={"case": str, "label": str})
    return summarise(cases), pd.read_csv(run_dir / "models" / "history.csv").iloc[-1]


def collect(
    output_dir: str | None = None, csv: str | None = None, settings: str = str(SETTINGS), test_fold: int | None = None
) -> None:
    """Add the results of finished runs to the CSV file, in place of earlier ones of the same setting, mode and draw.

    Args:
        output_dir: as for ``run``.
        csv: as for ``run``.
        settings: as for ``run``.
        test_fold: as for ``run``.
    """
    folder = experiment_folder(output_dir, test_fold)
    path = csv_file(csv, test_fold)
    by_experiment = {f"{_experiment(test_fold)}-{setting.name}": setting for setting in read_settings(settings)}
    files = [file for file in sorted(folder.glob("evidence*.json")) if "." not in file.stem]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    finished = [
        (record, by_experiment[record["training"]["experiment_name"]])
        for record in records
        if record.get("state") == "evaluated" and record["training"]["experiment_name"] in by_experiment
    ]
    if not finished:
        raise ValueError(f"{folder} holds no finished runs; name their folder by --output_dir.")
    total = merge_rows(path, [row(record, setting, test_fold) for record, setting in finished])
    print(f"{path}: {total} runs, {len(finished)} of them from {folder}")


def merge_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write rows into a CSV file, in place of earlier ones of the same key; return how many it has then."""
    found = pd.DataFrame(rows, columns=COLUMNS)
    if path.is_file():
        found = pd.concat([pd.read_csv(path, keep_default_na=False), found]).drop_duplicates(KEY, keep="last")
    path.parent.mkdir(parents=True, exist_ok=True)
    found.sort_values(KEY).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    return len(found)


def row(record: dict[str, Any], setting: Setting, test_fold: int | None) -> dict[str, Any]:
    """The CSV file's row of a finished run.

    Args:
        record: what the experiment keeps of it.
        setting: the setting that the run belongs to.
        test_fold: fold of the training cases that it was tested on.
    """
    run_dir, cell = Path(record["evaluating"]["ckpt_dir"]).parent, Cell(**record["cell"])
    summary, history = _results(run_dir)
    uri = resolve_tracking_uri(default=path_to_sqlite_uri(str(run_dir.parents[2] / "mlruns.db")))
    tags = MlflowClient(uri).get_run(read_identity(run_dir / "models")["mlflow_run_id"]).data.tags
    return {
        "setting": setting.name.removesuffix(f"-{setting.variant}"),
        "variant": setting.variant,
        "dataset": cell.dataset_name,
        "source": setting.source,
        "bundle": Path(cell.bundle).name,
        "labelled_cases": cell.cases,
        "mode": cell.mode,
        "draw": cell.seed,
        "steps": int(history["step"]),
        "processor_seconds": float(history["train_processor_seconds"]),
        **dice_columns(summary, test_fold),
        "commit": tags.get(MLFLOW_GIT_COMMIT, ""),
        "version": tags.get("medcontext.version", ""),
    }


def dice_columns(summary: MetricSummary, test_fold: int | None) -> dict[str, Any]:
    """The columns of a row that say how well it did, and on what."""
    dice = summary.labels["dice_mean"]
    return {
        "mean_dice": summary.mean_dice,
        "dice": "; ".join(f"{label} {value:.4f}" for label, value in dice.items() if not math.isnan(value)),
        "tested_on": "test cases" if test_fold is None else f"fold {test_fold} of the training cases",
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
