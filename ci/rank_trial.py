"""Try whether ranked scans are worth more labels than random ones, in simulated rounds on real scans.

python ci/rank_trial.py run --dataset_dir DIR --work_dir DIR    train, rank and test; finished rounds are kept
python ci/rank_trial.py write                                   shared/docs/results/ranking.md from the CSV file

DIR is a prepared ``hippocampus``. Each round trains a small network from scratch on the cases labelled so far, tests it
on a fifth of the training cases that no round labels, and labels four more: those that ``rank`` puts first, or random
ones. The test cases of the dataset are not touched.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np
import pandas as pd
import torch
from monai.bundle import run as run_bundle
from monai.transforms import Compose, EnsureChannelFirstd, Orientationd, Spacingd
from monai.utils import path_to_sqlite_uri
from scipy import stats

from medcontext.data import case_name, load_cases
from medcontext.data.datalist import Case
from medcontext.ranking import TrainedNetwork, rank_scans
from medcontext.reliability import label_dice
from medcontext.scans import LoadLabelMapd
from medcontext.storage.files import write_file
from medcontext.storage.json_files import json_text
from repository import ROOT

RESULTS = ROOT / "shared" / "docs" / "results"
TABLE = RESULTS / "ranking.csv"
CONFIGS = ROOT / "bundles" / "medcontext_unetr" / "configs"

SEEDS, STRATEGIES, ROUNDS, ADDED = (0, 1, 2), ("random", "rank"), (4, 8, 12), 4
STEPS = 120
CONDITIONS = f"""Networks trained on the cases labelled so far, of which four were added either as `rank` orders the
others or at random: a small U-Net, {STEPS} steps at 1.5 mm, from the same four cases in both. Mean Dice of 28 training
cases of the hippocampus that no round labels, with the 95 % interval of the gain over seeds. Made by
`ci/rank_trial.py`.

Data: Medical Segmentation Decathlon, Task04 (Antonelli et al., Nature Communications 2022), CC-BY-SA 4.0."""
SETTINGS: Mapping[str, Any] = {
    "spacing": [1.5, 1.5, 1.5],
    "roi_size": [24, 32, 24],
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": "@in_channels",
        "out_channels": "@out_channels",
        "channels": [8, 16, 32, 32],
        "strides": [2, 2, 2],
        "num_res_units": 1,
        "norm": "instance",
    },
    "batch_size": 1,
    "num_samples": 4,
    "validation_cases": 0,
    "preview_interval": 0,
    "system_metrics": False,
    "num_workers": 0,
    "device": "cpu",
}


def run(dataset_dir: str, work_dir: str) -> None:
    """Run all rounds that the table lacks.

    Args:
        dataset_dir: folder of the prepared dataset.
        work_dir: folder for networks and lists of cases.
    """
    datalist = Path(dataset_dir) / "dataset.json"
    test, pool = (load_cases(datalist, name, fold=0) for name in ("validation", "training"))
    pairs = [ROUNDS[:2], ROUNDS[2:]]  # the first gain of all seeds before the next
    for rounds, seed in itertools.product(pairs, SEEDS):
        for cases, strategy in itertools.product(rounds, STRATEGIES):
            if (seed, strategy, cases) not in _known():
                _round(seed, strategy, cases, pool, test, datalist, Path(work_dir))


def _known() -> dict[tuple[int, str, int], dict[str, Any]]:
    """Return the finished rounds."""
    rows = pd.read_csv(TABLE, dtype={"labelled": str}).to_dict("records") if TABLE.is_file() else []
    return {(int(row["seed"]), str(row["strategy"]), int(row["cases"])): row for row in rows}


def _round(
    seed: int, strategy: str, cases: int, pool: Sequence[Case], test: Sequence[Case], datalist: Path, work: Path
) -> None:
    """Train and test with so many cases, and append the result to the table."""
    order = [case_name(pool[i]) for i in np.random.default_rng(seed).permutation(len(pool))]
    first = cases == ROUNDS[0]
    earlier = _known()
    if first and (seed, STRATEGIES[0], cases) in earlier:  # the start is the same for all
        return _append({**earlier[seed, STRATEGIES[0], cases], "strategy": strategy})
    before = [] if first else str(earlier[seed, strategy, cases - ADDED]["labelled"]).split()
    if first:
        names = order[:cases]
    elif strategy == "random":
        names = before + [name for name in order if name not in before][:ADDED]
    else:
        names = before + _ranked(work / _folder(seed, strategy, cases - ADDED), pool, before)[:ADDED]
    folder = work / _folder(seed, strategy, cases)
    chosen = [case for name in names for case in pool if case_name(case) == name]
    content = {**json.loads(datalist.read_text()), "training": chosen, "validation": [], "test": list(test)}
    write_file(folder / "dataset.json", json_text({**content, "unlabeled": []}).encode())
    dice = _mean_dice(_train(folder, cases, seed), test)
    _append({"seed": seed, "strategy": strategy, "cases": cases, "mean_dice": dice, "labelled": " ".join(names)})


def _folder(seed: int, strategy: str, cases: int) -> str:
    return f"seed{seed}_{STRATEGIES[0] if cases == ROUNDS[0] else strategy}_{cases}"


def _ranked(folder: Path, pool: Sequence[Case], labelled: Sequence[str]) -> list[str]:
    """Return the names of the other cases in the order of the network of a round."""
    named = {case_name(case): {"image": case["image"], "case": case_name(case)} for case in pool}
    known = [named.pop(name) for name in labelled]
    trained = TrainedNetwork(folder / "run" / "models", "cpu")
    return [str(scan.case["case"]) for scan in rank_scans(trained, list(named.values()), known)]


def _train(folder: Path, cases: int, seed: int) -> TrainedNetwork:
    """Return a network trained on the cases in a folder."""
    epochs, models = math.ceil(STEPS / cases), folder / "run" / "models"
    places = {
        "dataset_dir": str(folder),
        "output_dir": str(folder / "run"),
        "ckpt_dir": str(models),
        "tracking_uri": path_to_sqlite_uri(str(folder.parent / "mlruns.db")),
        "resume": (models / "last.pt").is_file(),
    }
    length = {"max_epochs": epochs, "checkpoint_interval": epochs, "seed": seed}
    files = [str(CONFIGS / f"{name}.json") for name in ("train", "hippocampus", "phantom")]
    run_bundle("training", config_file=files, logging_file=False, **SETTINGS, **places, **length)
    return TrainedNetwork(models, "cpu")


def _mean_dice(trained: TrainedNetwork, test: Sequence[Case]) -> float:
    """Return the mean Dice over cases and labels at the spacing of the network."""
    reader = Compose(
        [
            LoadLabelMapd("label"),
            EnsureChannelFirstd("label"),
            Orientationd("label", axcodes="RAS", labels=None),
            Spacingd("label", pixdim=SETTINGS["spacing"], mode="nearest"),
        ]
    )
    dice = []
    for case in test:
        prediction = trained.predict(trained.load(case)).argmax(1)[0]
        label: Any = reader({"label": case["label"]})
        dice.append(label_dice(prediction.as_tensor(), label["label"][0].as_tensor(), trained.settings["labels"]))
    return float(torch.stack(dice).nanmean())


def _append(row: Mapping[str, Any]) -> None:
    earlier = list(_known().values())
    write_file(TABLE, pd.DataFrame([*earlier, row]).to_csv(index=False, float_format="%.4f").encode())


def write() -> None:
    """Write the table and the verdict from the CSV file."""
    lines = [f"# Labelling ranked scans or random ones\n\n{CONDITIONS}\n", *result_lines(pd.read_csv(TABLE))]
    write_file(RESULTS / "ranking.md", ("\n".join(lines) + "\n").encode())


def result_lines(table: pd.DataFrame) -> Iterator[str]:
    """Yield a table of the gains by number of labelled cases, and the verdict.

    Args:
        table: a row for each network with ``seed``, ``strategy``, ``cases`` and ``mean_dice``.
    """
    yield "| labelled cases | seeds | random | ranked | gain |"
    yield "|---|---|---|---|---|"
    beaten = []
    for cases in ROUNDS[1:]:
        rows = table[table["cases"] == cases]
        dice = rows.pivot_table(index="seed", columns="strategy", values="mean_dice")
        dice = dice.reindex(columns=list(STRATEGIES)).dropna()
        gains = (dice["rank"] - dice["random"]).tolist()
        if gains:
            means = f"{dice['random'].mean():.3f} | {dice['rank'].mean():.3f}"
            beaten.append(len(gains) >= len(SEEDS) and interval(gains)[0] > 0)
            yield f"| {cases} | {len(gains)} | {means} | {gain_text(gains)} |"
    verdict = "beat" if all(beaten) else "did not clearly beat"
    yield f"\nRanking {verdict} random choice here." if beaten else "\nNothing has been compared yet."


def interval(gains: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean over seeds, by Student's t; NaN for a single one."""
    if len(gains) < 2:
        return math.nan, math.nan
    half = stats.t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / math.sqrt(len(gains))
    return statistics.fmean(gains) - half, statistics.fmean(gains) + half


def gain_text(gains: Sequence[float]) -> str:
    """Return a mean, with its interval if there are several seeds."""
    low, high = interval(gains)
    bounds = "" if math.isnan(low) else f" ({low:+.3f} to {high:+.3f})"
    return f"{statistics.fmean(gains):+.3f}{bounds}".replace("-", "−")


if __name__ == "__main__":
    fire.Fire({"run": run, "write": write})
