"""Settings that must be equal between two rungs of the ladder for a fair pair."""

from __future__ import annotations

from medcontext.comparison.runs import TrackedRun, settings_root

__all__ = ["unfair_differences", "variant_differences"]

# a run's names and folders, its cases (compared by hash), its length (compared by steps), and observers
_IDENTITY = {
    *("bundle_root", "home", "dataset_dir", "datalist", "output_dir", "ckpt_dir", "experiment_name", "run_name"),
    *("tracking_uri", "log_case_names", "resume", "mlflow_tags", "cases", "train_cases", "train_fraction"),
    *("fold", "seed", "validation_cases", "max_epochs", "val_interval", "checkpoint_interval"),
    # observers of the training run
    *("preview_interval", "system_metrics", "tracking_wait", "log_model", "registered_model_name"),
}
# settings that change speed and memory alone; `phantom` holds the choices of phantom.json
_MACHINE = {
    *("device", "rank", "cache_rate", "cache_dir", "num_workers", "batched_passes", "sw_batch_size"),
    *("imports", "initialize", "finalize", "training", "run", "phantom"),
}
# settings of MedContext itself, patch dropout, or unlabelled scans, whose keys begin with `unlabeled`
_METHOD = {
    *("mode", "masking", "organ_dropout", "token_masking", "masked_share", "teacher"),
    *("context_weight", "context_ramp", "context_end", "consistency", "consistency_weight"),
    *("confidence", "burn_in"),
}
_UNLABELED = "unlabeled"
_UNSET = "not set"


def unfair_differences(run: TrackedRun, control: TrackedRun) -> list[str]:
    """Return settings in which a run differs from one of another rung although it should not.

    Compared are the logged hyperparameters and, for those that are not plain numbers or text (network, optimizer,
    schedule, intensities, augmentation), the configurations as written. Names, folders, the length of the training run,
    settings of speed alone, and those of MedContext, patch dropout or scans without labels may differ. If one of the
    two did not keep its configuration, only the hyperparameters are compared.

    Args:
        run: a run of one rung.
        control: a run of another.

    Returns:
        Differences such as ``learning_rate 0.001 instead of 0.002``, in the order of the names.
    """
    different = _setting_differences(run, control, free=_IDENTITY | _MACHINE | _METHOD)
    return [
        f"{name} {_shortened(theirs)} instead of {_shortened(ours)}"
        for name, (ours, theirs) in different.items()
        if not name.startswith(_UNLABELED)
    ]


def variant_differences(run: TrackedRun, other: TrackedRun) -> list[str]:
    """Return the names of settings, number of steps included, in which two runs of the same rung and cases differ."""
    steps = [] if run.steps == other.steps else ["steps"]
    return [*steps, *_setting_differences(run, other, free=_IDENTITY | _MACHINE)]


def _setting_differences(run: TrackedRun, other: TrackedRun, free: set[str]) -> dict[str, tuple[str, str]]:
    both_have_configs = bool(run.config) and bool(other.config)
    ours, theirs = (run.settings, other.settings) if both_have_configs else (run.params, other.params)
    return {
        name: (ours.get(name, _UNSET), theirs.get(name, _UNSET))
        for name in sorted(ours.keys() | theirs.keys())
        if settings_root(name) not in free and ours.get(name) != theirs.get(name)
    }


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"
