"""MLflow runs as training runs and their evaluations leave them, with results made up for a test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from monai.utils import path_to_sqlite_uri

from medcontext.comparison import TrackedRun

CONFIG: dict[str, Any] = {
    "network_def": {"_target_": "UNETR", "feature_size": 16},
    "masking": "$medcontext.transforms.RandOrganDropoutd()",
    "train": {"handlers": [{"_target_": "medcontext.handlers.ProgressBar"}], "inferer": {"_target_": "SimpleInferer"}},
}
# of a step: 7/3, as the method with its second pass costs
SECONDS = {
    **{"medcontext": 0.7, "baseline": 0.3, "masking_only": 0.3, "patch_dropout": 0.3},
    **{"pseudo_labels": 1.4, "medcontext_unlabeled": 1.4},
}


def table(dice: Mapping[str, Sequence[float | None]], hd95: float = 3.0) -> pd.DataFrame:
    """Metrics of cases a, b, …: Dice by label, ``None`` where neither has it, 0 a miss, -1 a spurious prediction."""
    rows = [
        {
            "case": chr(ord("a") + at),
            "label": label,
            "dice": None if value is None else max(value, 0.0),
            "hd95_mm": hd95 if value is not None and value > 0 else None,
            "missed": value == 0,
            "spurious": value == -1,
        }
        for label, values in dice.items()
        for at, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def tracked_run(
    mode: str = "medcontext",
    metrics: pd.DataFrame | None = None,
    *,
    seed: int = 0,
    steps: int = 300,
    name: str | None = None,
    end_time: int = 0,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    test: str = "test0",
    cases: int | None = 15,
    validation: int | None = None,
    values: Mapping[str, float] | None = None,
    problem: str = "",
) -> TrackedRun:
    """A run as it is read, without a store."""
    known = {"bundle": "medcontext_unetr", "version": "1.0", "dataset": "btcv", "mode": mode, "data_hash": "hash0"}
    known |= {"train_fraction": "1.0", "fold": "None", "seed": str(seed), "steps": str(steps), **(tags or {})}
    run_name = name or f"{mode}-{steps}-s{known['seed']}"
    return TrackedRun(
        id=f"id of {run_name}",
        name=run_name,
        status="FINISHED",
        end_time=end_time,
        tags=known,
        params={"learning_rate": "0.0001", **(params or {})},
        metrics={"train_seconds": steps * SECONDS[mode], "peak_memory_mib": 1000.0, **(values or {})},
        inputs={"training": (("hash0", cases),), "validation": (("hash1", validation),), "test": ((test, 3),)},
        config=CONFIG if config is None else config,
        table=table({"liver": [0.8, 0.9]}) if metrics is None else metrics,
        problem=problem,
    )


class Store:
    """An experiment in a SQLite database.

    Args:
        folder: where database and artifacts lie.
        experiment: its name.
        tracking_uri: of a server, instead of the database.
    """

    def __init__(self, folder: Path, experiment: str = "grid", tracking_uri: str | None = None) -> None:
        self.uri = tracking_uri or str(path_to_sqlite_uri(str(folder / "mlruns.db")))
        self.client = mlflow.MlflowClient(self.uri)
        location = None if tracking_uri else (folder / "artifacts" / experiment).as_uri()
        self.experiment, self.folder = experiment, folder
        self.id = self.client.create_experiment(experiment, artifact_location=location)

    def log(
        self,
        mode: str,
        metrics: pd.DataFrame | str | None,
        *,
        name: str | None = None,
        seed: int = 0,
        steps: int = 300,
        status: str = "FINISHED",
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = CONFIG,
        test: str = "test0",
        cases: int = 15,
        values: Mapping[str, float] | None = None,
    ) -> str:
        """Log a run and return its identifier; a tag of ``None`` is left out."""
        known = {"bundle": "medcontext_unetr", "version": "1.0", "dataset": "btcv", "mode": mode, "data_hash": "hash0"}
        known |= {"train_fraction": "1.0", "fold": "None", "seed": str(seed), "steps": str(steps), **(tags or {})}
        logged = {"mode": mode, "seed": seed, "learning_rate": "0.0001", "max_epochs": steps // 3, **(params or {})}
        run_name = name or f"{mode}-{steps}-s{seed}"
        run_id = self.client.create_run(self.id, run_name=run_name).info.run_id
        seconds = {"train_seconds": steps * SECONDS.get(mode, 1.0), "peak_memory_mib": 1000.0, **(values or {})}
        if isinstance(metrics, pd.DataFrame):
            seconds["test_mean_dice"] = float(metrics.groupby("label")["dice"].mean().mean())
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, value, 0, steps) for key, value in seconds.items()],
            params=[Param(key, str(value)) for key, value in logged.items()],
            tags=[RunTag(f"medcontext.{key}", str(value)) for key, value in known.items() if value is not None],
        )
        for section, digest, count in (("training", known["data_hash"], cases), ("test", test, 3)):
            data = Dataset("btcv", str(digest), "local", "{}", profile=json.dumps({"num_cases": count}))
            self.client.log_inputs(run_id, [DatasetInput(data, [InputTag(MLFLOW_DATASET_CONTEXT, section)])])
        if metrics is not None:
            text = metrics if isinstance(metrics, str) else metrics.to_csv(index=False)
            self.client.log_text(run_id, text, "evaluation/metrics.csv")
        if config is not None:
            self.client.log_dict(run_id, dict(config), "train_config.json")
        self.client.set_terminated(run_id, status)
        return str(run_id)
