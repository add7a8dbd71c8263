"""Compare with nnU-Net v2, trained on the same labelled cases for as much processor time; see nnunet.sh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fire
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from tqdm import tqdm

from evidence import SETTINGS, Setting, csv_file, dice_columns, experiment_folder, merge_rows, read_settings
from evidence_tables import COLUMNS, DEFAULT, NNUNET
from medcontext.data import case_name, load_cases, load_datalist
from medcontext.experiment import Job, checked_configuration
from medcontext.labels import label_names
from medcontext.metrics import case_metrics, summarise
from medcontext.scans import read_header, read_volume
from medcontext.scans.geometry import voxel_sizes
from repository import ROOT

PYTHON = ROOT / ".venv-nnunet" / "bin" / "python"
ENDING = ".nii.gz"


def run(
    data: str | None = None,
    output_dir: str | None = None,
    only: str | Sequence[str] = ("hippocampus-6", "hippocampus-24"),
    draws: int = 3,
    seconds: float | None = None,
    batch_size: int | None = None,
    test_fold: int | None = None,
    settings: str = str(SETTINGS),
    csv: str | None = None,
) -> None:
    """Train nnU-Net on each draw, predict the test cases, and add their Dice to the CSV file; finished draws are kept.

    Args:
        data: as for ``evidence.py run``.
        output_dir: raw and preprocessed data, networks and label maps; ``nnunet`` beside the table's runs by default.
        only: names of settings, separated by commas.
        draws: draws of the labelled cases, from the seed 0.
        seconds: processor time of each, in s; by default that of ``medcontext`` in the CSV file.
        batch_size: crops in a step, instead of as many as nnU-Net plans for a GPU of 8 GB.
        test_fold: as for ``evidence.py run``.
        settings: as for ``evidence.py run``.
        csv: as for ``evidence.py run``.
    """
    folder = Path(output_dir) if output_dir else experiment_folder(None, test_fold).with_name("nnunet")
    path = csv_file(csv, test_fold)
    for setting in read_settings(settings, only):
        budget = _processor_seconds(path, setting.name) if seconds is None else seconds
        drawn = replace(setting, draws={DEFAULT: draws})
        for job in drawn.plan(data, "nnunet", test_fold=test_fold):
            configuration = checked_configuration(job.training["config_file"], _overrides(job))
            own = folder / f"{setting.name}-s{job.cell.seed}"
            if not (own / "predictions" / "training.json").is_file():
                train(job, configuration, own.absolute(), budget, batch_size)
            merge_rows(path, [row(job, configuration, setting, own, test_fold)])


def _processor_seconds(path: Path, setting: str) -> float:
    rows = pd.read_csv(path, keep_default_na=False) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    own = rows[rows[["setting", "variant", "mode"]].eq([setting, "", DEFAULT]).all(axis=1)]
    if own.empty:
        raise ValueError(f"{path} has no runs of {DEFAULT} for {setting}; collect them, or give --seconds.")
    return float(own["processor_seconds"].mean())


def train(job: Job, configuration: Any, folder: Path, seconds: float, batch_size: int | None) -> None:
    """Train nnU-Net on a job's labelled cases, those for validation included, and predict its test cases.

    nnU-Net needs no validation cases, so all labels train.
    """
    shutil.rmtree(folder, ignore_errors=True)
    datalist = configuration.get_parsed_content("datalist")
    cases = configuration.get_parsed_content("cases")
    name = f"Dataset001_{job.cell.dataset_name}"
    raw = folder / "raw" / name
    _link(cases["training"] + cases["validation"], raw / "imagesTr", raw / "labelsTr")
    _link(load_cases(datalist, "test"), folder / "images")
    (raw / "dataset.json").write_text(json.dumps(_description(datalist, len(list((raw / "labelsTr").iterdir())))))
    places = {f"nnUNet_{kind}": str(folder / kind) for kind in ("raw", "preprocessed", "results")}
    words = [PYTHON, ROOT / "ci" / "nnunet_train.py", name, seconds, batch_size or 0, folder / "images"]
    log = folder / "nnunet.log"
    with log.open("w") as file:
        words = [str(word) for word in (*words, folder / "predictions")]
        ended = subprocess.run(words, env=os.environ | places, stdout=file, stderr=file)
    if ended.returncode:
        raise ValueError(f"nnU-Net ended with code {ended.returncode}; see {log}.")


def _overrides(job: Job) -> dict[str, Any]:
    return {name: value for name, value in job.training.items() if name not in ("run_id", "config_file")}


def _link(cases: Iterable[dict[str, Any]], images: Path, labels: Path | None = None) -> None:
    for case in cases:
        channels = [case["image"]] if isinstance(case["image"], str) else case["image"]
        for channel, image in enumerate(channels):
            _link_file(image, images / f"{case_name(case)}_{channel:04}{ENDING}")
        if labels is not None:
            _link_file(case["label"], labels / f"{case_name(case)}{ENDING}")


def _link_file(source: str, link: Path) -> None:
    if not source.endswith(ENDING):
        raise ValueError(f"nnU-Net reads one kind of file at a time, here {ENDING}, got {source}.")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(source)


def _description(datalist: str, number: int) -> dict[str, Any]:
    """What nnU-Net wants to know about a dataset."""
    return {
        "channel_names": load_datalist(datalist)["modality"],
        "labels": {"background": 0, **_ids(datalist)},
        "numTraining": number,
        "file_ending": ENDING,
    }


def _ids(datalist: str) -> dict[str, int]:
    """The labels' ids in the files, which are those of nnU-Net's label maps."""
    return {name: value for value, name in label_names(load_datalist(datalist)).items() if value}


def row(job: Job, configuration: Any, setting: Setting, folder: Path, test_fold: int | None) -> dict[str, Any]:
    """The CSV file's row of a draw."""
    datalist, reported = (configuration.get_parsed_content(key) for key in ("datalist", "reported"))
    ids = _ids(datalist)
    labels = {name: ids[name] for name in reported}
    scores = [_scores(case, folder / "predictions", labels) for case in tqdm(load_cases(datalist, "test"), "scoring")]
    record = json.loads((folder / "predictions" / "training.json").read_text(encoding="utf-8"))
    return {
        "setting": setting.name.removesuffix(f"-{setting.variant}"),
        "variant": setting.variant,
        "dataset": job.cell.dataset_name,
        "source": setting.source,
        "bundle": setting.bundle,
        "labelled_cases": job.cell.cases,
        "mode": NNUNET,
        "draw": job.cell.seed,
        "steps": record["steps"],
        "processor_seconds": record["processor_seconds"],
        **dice_columns(summarise(pd.concat(scores)), test_fold),
        "commit": "",
        "version": f"nnU-Net {record['version']}, batches of {record['batch_size']}",
    }


def _scores(case: dict[str, Any], predictions: Path, labels: Mapping[str, int]) -> pd.DataFrame:
    """Metrics of a case on its own grid, as those of our runs."""
    path, name = str(case["label"]), case_name(case)
    label, prediction = (torch.from_numpy(_whole(file)) for file in (path, str(predictions / f"{name}{ENDING}")))
    spacing = voxel_sizes(read_header(path).affine)
    return pd.DataFrame(case_metrics(prediction, label, labels, spacing)).assign(case=name)


def _whole(path: str) -> npt.NDArray[np.int16]:
    return np.rint(np.asarray(read_volume(path).dataobj)).astype(np.int16)


if __name__ == "__main__":
    try:
        fire.Fire({"run": run})
    except (ValueError, OSError) as error:
        sys.exit(f"nnunet: {error}")
