"""The final model of a cross-validation: the ensemble of its folds, or one network trained on all labelled cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import medcontext
from medcontext.checks import check_choice
from medcontext.data.datalist import write_all_labelled
from medcontext.experiment.cross_validation import CrossValidation
from medcontext.experiment.planning import Job, checked_configuration
from medcontext.experiment.running import run_cells
from medcontext.networks import load_checkpoint, save_checkpoint
from medcontext.networks.model_file import MODEL_FILE, check_weights_hash, read_model_file, weights_hash
from medcontext.networks.state_dicts import check_finite, ensemble_state
from medcontext.networks.weights import write_model_file
from medcontext.report import circumstances, write_report
from medcontext.tracking.final_models import log_final_model
from medcontext.tracking.identity import read_identity, write_identity
from medcontext.tracking.tracker import check_tracking

__all__ = ["METHODS", "make_final_model"]

METHODS = ("ensemble", "retrain")
_OF_FOLDS = {"fold", "num_folds", "log_model", "registered_model_name"}
_OF_MEMBERS = ("weights", "epoch", "val_mean_dice", "val_mean_dice_ema")


def make_final_model(
    cross_validation: CrossValidation,
    method: str,
    folder: Path,
    devices: Sequence[str | int] = (),
    registered_model_name: str | None = None,
) -> Path:
    """Make the final model of a cross-validation, report the estimate of its Dice, and log both to MLflow.

    An interrupted call can be repeated; a training run is then resumed.

    Args:
        cross_validation: the folds.
        method: ``ensemble`` averages the probabilities of the folds' networks; ``retrain`` trains one network on all
            labelled cases, for as many epochs as the folds chose.
        folder: folder of the experiment, for arguments, state and log of a training run.
        devices: devices as for :func:`~medcontext.experiment.run_cells`.
        registered_model_name: registered model of MLflow of which it becomes a version, if any.

    Returns:
        Folder of the weights, beside which ``cross_validation`` holds the report.

    Raises:
        SystemExit: If the configuration of the folds can no longer be used, or training fails.
        ValueError: If the folds do not belong together or have changed.
    """
    check_choice("method", method, METHODS)
    source = _Source.of(cross_validation)
    cross_validation.check(source.datalist)
    check_tracking(source.tracking_uri)
    run_dir = source.home / "runs" / source.bundle / f"{cross_validation.name}-{method}"
    if method == "ensemble":
        _write_ensemble(cross_validation, run_dir)
    else:
        _retrain(cross_validation, source, run_dir, folder, devices)
    report = _write_report(cross_validation, source, run_dir, method)
    log_final_model(
        tracking_uri=source.tracking_uri,
        experiment_name=source.experiment_name,
        ckpt_dir=run_dir / "models",
        tags={"medcontext.bundle": source.bundle, "medcontext.dataset": source.dataset},
        metrics=_logged_metrics(cross_validation),
        report=report if source.log_case_names else report / "anonymous",
        note=cross_validation.sentence,
        model=None
        if registered_model_name is None
        else {"bundle_root": source.bundle_root, "registered_model_name": registered_model_name},
    )
    return run_dir / "models"


@dataclass(frozen=True)
class _Source:
    """Values of the folds' configuration."""

    home: Path
    bundle: str
    bundle_root: str
    dataset: str
    datalist: str
    tracking_uri: str
    experiment_name: str
    log_case_names: bool

    @classmethod
    def of(cls, cross_validation: CrossValidation) -> _Source:
        """Read the configuration of the first fold, and check that it can still be used."""
        arguments = cross_validation.folds[0].training
        overrides = {name: value for name, value in arguments.items() if name not in ("run_id", "config_file")}
        parser = checked_configuration(arguments["config_file"], overrides)
        values = {name: parser.get_parsed_content(name) for name in cls.__annotations__}
        return cls(**{**values, "home": Path(values["home"]), "tracking_uri": str(values["tracking_uri"])})


def _write_ensemble(cross_validation: CrossValidation, run_dir: Path) -> None:
    """Write ``model.pt`` with the weights of all folds, and ``model.json``."""
    path, states = run_dir / "models" / MODEL_FILE, []
    for ckpt_path in cross_validation.ckpt_paths:
        states.append(load_checkpoint(ckpt_path))
        check_weights_hash(ckpt_path, states[-1])
        check_finite(states[-1], ckpt_path)
    state = ensemble_state(states)
    infos = [read_model_file(ckpt_path) for ckpt_path in cross_validation.ckpt_paths]
    members = [
        {
            "run": fold.run_dir.name,
            **{key: info[key] for key in _OF_MEMBERS if key in info},
            "sha256": weights_hash(member),
        }
        for fold, info, member in zip(cross_validation.folds, infos, states, strict=True)
    ]
    content = {
        "members": members,
        "version": medcontext.__version__,
        "dataset": infos[0].get("dataset"),
        "settings": cross_validation.settings,
        **_evidence_of(cross_validation),
        "sha256": {MODEL_FILE: weights_hash(state)},
        "sha256_before": read_model_file(path).get("sha256"),
    }
    write_model_file(path, content)
    save_checkpoint(state, path)
    write_identity(path.parent, **{**read_identity(path.parent), "run_name": run_dir.name})


def _retrain(
    cross_validation: CrossValidation, source: _Source, run_dir: Path, folder: Path, devices: Sequence[str | int]
) -> None:
    """Train one network on all labelled cases, unless an earlier call did.

    Raises:
        SystemExit: If training fails.
    """
    first, budget = cross_validation.folds[0], cross_validation.budget()
    training = {
        **{name: value for name, value in first.training.items() if name not in _OF_FOLDS},
        "run_name": run_dir.name,
        "datalist": write_all_labelled(source.datalist, source.home),
        "validation_cases": 0,
        "early_stopping": None,
        "max_epochs": budget.epochs,
        "select_checkpoint": budget.select_checkpoint,
    }
    cell = replace(first.cell, fold=None, num_folds=None)
    for failure in run_cells([Job(cell, source.home, run_dir, source.tracking_uri, training, {})], folder, devices):
        raise SystemExit(f"medcontext: {failure}")
    path = run_dir / "models" / MODEL_FILE
    write_model_file(path, read_model_file(path) | _evidence_of(cross_validation))


def _evidence_of(cross_validation: CrossValidation) -> dict[str, Any]:
    """Return what ``model.json`` holds of a cross-validation: its estimate, and the postprocessing that it chose."""
    summary, evidence = cross_validation.summary, cross_validation.evidence
    estimate = {
        "folds": len(cross_validation.folds),
        "cases": summary.cases,
        "mean_dice": summary.mean_dice,
        "mean_dice_interval_95": list(summary.mean_dice_interval),
        "dice": summary.labels["dice_mean"].to_dict(),
    }
    return {"cross_validation": estimate} | ({} if evidence is None else {"postprocessing": asdict(evidence)})


def _write_report(cross_validation: CrossValidation, source: _Source, run_dir: Path, method: str) -> Path:
    """Write tables and page of the estimate, and return their folder."""
    folder, evidence = run_dir / "cross_validation", cross_validation.evidence
    budget = f"{cross_validation.budget().epochs} epochs on all cases" if method == "retrain" else None
    info = {
        "bundle": source.bundle,
        "dataset": source.dataset,
        "cross_validation": (
            f"{len(cross_validation.folds)} folds; each case was segmented by the network that did not train on it, "
            "without postprocessing; it helped to choose the epoch of that network"
        ),
        "final_model": f"ensemble of {len(cross_validation.folds)} networks" if budget is None else budget,
        "postprocessing": None if evidence is None else evidence.sentence,
        "runs": ", ".join(fold.run_dir.name for fold in cross_validation.folds),
        **circumstances(),
    }
    write_report(
        folder,
        cross_validation.metrics,
        cases={},
        labels=cross_validation.settings.get("reported", cross_validation.settings["labels"]),
        info={name: value for name, value in info.items() if value is not None},
        anonymous_dir=folder / "anonymous",
    )
    return folder


def _logged_metrics(cross_validation: CrossValidation) -> dict[str, float]:
    summary = cross_validation.summary
    low, high = summary.mean_dice_interval
    by_label = {f"cv_dice_{label}": float(dice) for label, dice in summary.labels["dice_mean"].items()}
    return {"cv_mean_dice": summary.mean_dice, "cv_mean_dice_low": low, "cv_mean_dice_high": high, **by_label}
