"""Commands for training."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcontext.cli.arguments import as_tuple
from medcontext.text import printable_lines

if TYPE_CHECKING:
    from medcontext.experiment import Costs, Job

__all__ = ["experiment", "finalize", "preview"]


def preview(
    config_file: str | Sequence[str],
    output: str = "preview.png",
    num_cases: int = 4,
    ckpt_dir: str | None = None,
    plane: str = "axial",
    **override: Any,
) -> None:
    """Draw training crops with their labels, what is dropped, and the predictions of the networks.

    In training, only a share ``masked_share`` of the crops is masked; here all of them are.

    Args:
        config_file: ``train.json`` of a bundle, with overlays as for training.
        output: path of the PNG to write.
        num_cases: number of training cases to draw, one crop of each.
        ckpt_dir: folder with ``model.pt`` and ``teacher.pt``, to draw their predictions too.
        plane: ``axial``, ``coronal`` or ``sagittal``.
        override: values of configuration keys, as for training.
    """
    from medcontext.bundle.preview import draw_preview

    print(draw_preview(config_file, output, num_cases=num_cases, ckpt_dir=ckpt_dir, plane=plane, **override))


def experiment(
    bundles: str | Sequence[str],
    datasets: str | Sequence[str] | None = None,
    fractions: float | Sequence[float] | None = None,
    cases: int | Sequence[int] | None = None,
    seeds: int | Sequence[int] = (0, 1, 2),
    modes: str | Sequence[str] | None = None,
    experiment_name: str = "experiment",
    overlays: str | Sequence[str] = (),
    devices: str | int | Sequence[str | int] = (),
    output_dir: str | None = None,
    dataset_dirs: str | Sequence[str] = (),
    test_fold: int | None = None,
    folds: int | None = None,
    dry_run: bool = False,
    **override: Any,
) -> None:
    """Train, evaluate and compare every combination; finished runs are skipped and interrupted ones resumed.

    All supervised modes of a dataset train for the same number of steps, regardless of the number of cases.
    ``baseline_equal_time`` and the modes with unlabelled scans train for as many steps as fit in the time of
    ``medcontext``: the time of a step of each is measured first, and kept in ``costs.json``.

    Args:
        bundles: names or folders of bundles, separated by commas.
        datasets: ``btcv``, ``acdc``, ``brats``, ``hippocampus``, or an overlay of your own by path; ``btcv`` if no
            ``dataset_dirs`` are given either.
        fractions: shares of the training cases; all of them by default.
        cases: numbers of labelled cases, those for validation included, instead of fractions.
        seeds: seeds of the runs; a verdict needs at least three.
        modes: ``baseline``, ``baseline_equal_time``, ``patch_dropout``, ``masking_only``, ``medcontext`` and, with
            unlabelled scans, ``pseudo_labels`` and ``medcontext_unlabeled``; all but the last two by default.
        experiment_name: MLflow experiment, and prefix of the runs' names.
        overlays: further configuration files of the bundles by name, such as ``phantom``, or your own by path.
        devices: GPU numbers, or ``cpu``, separated by commas; one run at a time on each.
        output_dir: folder of logs, states and the comparison; ``<home>/runs/experiments/<experiment_name>`` by default.
        dataset_dirs: folders of your own datasets, each with its ``dataset.json`` and the plans of
            ``python -m medcontext plan``.
        test_fold: fifth of the training cases, 0 to 4, that is tested on and not trained on, to choose settings without
            the test cases.
        folds: number of folds of a cross-validation, each of which is held out once and evaluated; ``finalize`` then
            makes the final model.
        dry_run: print the runs and their lengths without running them.
        override: values of configuration keys, as for training.
    """
    from medcontext.cli.results import compare
    from medcontext.experiment import (
        SUPERVISED_MODES,
        grid,
        known_costs,
        measure_costs,
        plan,
        run_cells,
        with_equal_time,
    )

    folders = [str(folder) for folder in as_tuple(dataset_dirs)]
    cells = grid(
        as_tuple(bundles),
        as_tuple(datasets) if datasets is not None else () if folders else ("btcv",),
        as_tuple(1.0 if fractions is None else fractions) if cases is None or fractions is not None else None,
        as_tuple(seeds),
        SUPERVISED_MODES if modes is None else as_tuple(modes),
        None if cases is None else as_tuple(cases),
        folders,
        folds,
    )
    jobs = plan(
        cells, experiment_name=experiment_name, overlays=as_tuple(overlays), overrides=override, test_fold=test_fold
    )
    folder = Path(output_dir or jobs[0].home / "runs" / "experiments" / experiment_name)
    if dry_run:
        for line in _lengths(jobs, known_costs(jobs, folder)):
            print(line)
        return
    jobs = with_equal_time(jobs, measure_costs(jobs, folder, as_tuple(devices)))
    failures = run_cells(jobs, folder, as_tuple(devices))
    for failure in failures:
        print(printable_lines(failure), file=sys.stderr)
    if len(failures) < len(jobs) and len({job.cell.mode for job in jobs}) > 1:
        compare(experiment_name, str(folder / "comparison"), tracking_uri=jobs[0].tracking_uri)
    if failures:
        raise SystemExit(f"medcontext: {len(failures)} of {len(jobs)} runs failed; call again after fixing the cause.")
    if folds is not None:
        print(f"The final model: python -m medcontext finalize --experiment_name {experiment_name}")


def finalize(
    experiment_name: str,
    method: str = "ensemble",
    cross_validation: str | None = None,
    devices: str | int | Sequence[str | int] = (),
    output_dir: str | None = None,
    registered_model_name: str | None = None,
) -> None:
    """Make the final model of a cross-validation, for evaluation, prediction and export like any other.

    It prints the cross-validated Dice, in which each case was segmented by the network that did not train on it, and
    writes it as a report. The same call resumes an interrupted one.

    Args:
        experiment_name: name of an experiment that was run with ``--folds``.
        method: ``ensemble`` averages the probabilities of the folds' networks; ``retrain`` trains one network on all
            labelled cases, up to the epoch in which the folds' mean Dice was best.
        cross_validation: name of the cross-validation, if the experiment has several.
        devices: GPU number, or ``cpu``, to train on.
        output_dir: folder of the experiment, if it was given.
        registered_model_name: log the model to MLflow, as a version of this registered model.
    """
    from medcontext.experiment import experiment_dir, make_final_model, read_cross_validation

    folder = Path(output_dir) if output_dir is not None else experiment_dir(str(experiment_name))
    chosen = read_cross_validation(folder, cross_validation)
    ckpt_dir = make_final_model(chosen, method, folder, as_tuple(devices), registered_model_name)
    print(printable_lines(chosen.sentence))
    if chosen.evidence is not None:
        print(printable_lines(chosen.evidence.sentence))
    print(ckpt_dir)


def _lengths(jobs: Sequence[Job], costs: Costs) -> Iterator[str]:
    """Return one line per cell with the length of its training run, as far as it is known."""
    from medcontext.experiment import MODES, with_equal_time

    for job in with_equal_time(jobs, costs):
        known = not MODES[job.cell.mode].equal_time or job.cell.mode in costs.get(job.place, {})
        epochs = f"{job.training['max_epochs']} epochs" if known else "as many epochs as fit, once costs are measured"
        yield f"{job.cell.name}: {epochs}"
