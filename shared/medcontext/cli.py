"""The commands of ``python -m medcontext``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import torch
from monai.bundle import create_workflow
from monai.data.utils import set_rnd
from monai.utils import set_determinism

from medcontext.bundle import build_network, check_configuration
from medcontext.collection import read_collection
from medcontext.comparison import GROUP_BY, compare_runs
from medcontext.comparison.report import PAGE
from medcontext.convert import convert_checkpoint, describe_conversion
from medcontext.data import case_name, check_dataset, label_names, load_datalist, problems_table
from medcontext.data.phantom_layouts import pack_phantoms as pack
from medcontext.data.phantoms import write_phantoms
from medcontext.data.prepare import prepare_dataset
from medcontext.download import download_bundle
from medcontext.experiment import (
    MODES,
    SUPERVISED_MODES,
    Costs,
    Job,
    grid,
    known_costs,
    measure_costs,
    plan,
    run_cells,
    with_equal_time,
)
from medcontext.handlers.checkpoints import MODEL_FILE, TEACHER_FILE, CheckpointWriteError
from medcontext.handlers.mlflow_outbox import send_kept
from medcontext.keys import MedContextKeys
from medcontext.networks import load_weights
from medcontext.report import preview_figure
from medcontext.report.phantoms import draw_phantoms

__all__ = [
    "check",
    "compare",
    "convert_weights",
    "download",
    "experiment",
    "gallery",
    "main",
    "pack_phantoms",
    "phantoms",
    "prepare",
    "preview",
    "send_unsent",
]


def phantoms(
    output_dir: str,
    dataset: str = "btcv",
    num_cases: int | None = None,
    size: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    seed: int = 0,
) -> None:
    """Write a generated cohort in the layout of a real dataset.

    Args:
        output_dir: folder of the cohort; a finished one with the same parameters is reused.
        dataset: whose twin to write: ``btcv``, ``acdc``, ``brats`` or ``hippocampus``.
        num_cases: labelled cases in all; the default is the published number, but 40 for BraTS.
        size: voxels along x, y, z.
        spacing: voxel size in mm along x, y, z.
        seed: of the cohort.
    """
    print(write_phantoms(output_dir, dataset=dataset, num_cases=num_cases, size=size, spacing=spacing, seed=seed))


def pack_phantoms(phantoms_dir: str, layout: str, output: str) -> None:
    """Pack a generated cohort as the real dataset is downloaded, to try ``prepare`` without it.

    Args:
        phantoms_dir: folder of a finished cohort.
        layout: ``btcv_zip``, ``btcv_folder``, ``acdc_zip``, ``acdc_folder``, ``acdc_nnunet``, ``brats_msd_tar``,
            ``brats_msd_folder``, ``brats_2021``, ``brats_2023``, ``hippocampus_msd_tar`` or ``hippocampus_msd_folder``.
        output: the archive or folder to write; an existing one is never overwritten.
    """
    print(pack(phantoms_dir, layout, output))


def gallery(output: str = "phantoms.png", dataset: str = "btcv", seed: int = 0) -> None:
    """Draw eight generated cases.

    Args:
        output: the PNG to write.
        dataset: whose twin to draw: ``btcv``, ``acdc``, ``brats`` or ``hippocampus``.
        seed: of the cohort.
    """
    print(draw_phantoms(output, dataset=dataset, seed=seed))


def prepare(
    dataset: str,
    source: str,
    output_dir: str,
    link: bool = False,
    allow_missing: bool = False,
    download: bool = False,
) -> None:
    """Bring a provider's download into the form that the bundles train on.

    Args:
        dataset: ``btcv``, ``acdc``, ``brats`` or ``hippocampus``.
        source: the downloaded zip or tar, or a folder that holds what was in it.
        output_dir: where the dataset shall lie; a call that was cut off can be repeated.
        link: make symbolic links instead of copies.
        allow_missing: leave incomplete cases out instead of refusing.
        download: get the Decathlon's archive of BraTS or the hippocampus first, into the folder ``source``.
    """
    print(prepare_dataset(dataset, source, output_dir, link=link, allow_missing=allow_missing, download=download))


def check(dataset_dir: str, voxels: bool | None = None, hashes: bool = False) -> None:
    """List everything that is wrong with a dataset in a table; exit code 1 if anything is.

    Args:
        dataset_dir: folder with the ``dataset.json``.
        voxels: ``True`` reads the voxels of all files, ``False`` headers alone; by default those files are read that
            were not read before, or have changed.
        hashes: compare the files with the SHA-256 from when they were prepared.
    """
    datalist = Path(dataset_dir) / "dataset.json"
    content = load_datalist(datalist)
    if "labels" not in content or not isinstance(content.get("modality"), dict):
        raise ValueError(f"{datalist} must have objects under 'labels' (id to name) and 'modality' (channel to name).")
    labels = {name: index for index, name in label_names(content).items() if index}
    problems = check_dataset(
        datalist, in_channels=len(content["modality"]), labels=labels, voxels=voxels, hashes=hashes
    )
    if problems:
        print(problems_table(problems))
        raise SystemExit(1)
    sections = ("training", "validation", "test", *(["unlabeled"] if content.get("unlabeled") else []))
    print(", ".join(f"{len(content.get(name, []))} {name}" for name in sections) + " cases, no problems found")


def preview(
    config_file: str | Sequence[str],
    output: str = "preview.png",
    num_cases: int = 4,
    ckpt_dir: str | None = None,
    plane: str = "axial",
    **override: Any,
) -> None:
    """Draw what training sees: crops, their labels, what is dropped, and what the networks make of it.

    In training only ``masked_share`` of the crops are masked; here all of them are.

    Args:
        config_file: ``train.json`` of a bundle, with overlays as for training.
        output: the PNG to write.
        num_cases: number of training cases to draw, one crop of each.
        ckpt_dir: folder with ``model.pt`` and ``teacher.pt``, to draw their predictions too.
        plane: ``axial``, ``coronal`` or ``sagittal``.
        override: values of configuration keys, as for training.
    """
    workflow = create_workflow(config_file=config_file, logging_file=False, **{"masked_share": 1.0, **override})
    check_configuration(workflow)
    for name in ("cases", "labels", "spacing", "orientation", "seed", "device"):
        if name not in workflow.properties:
            workflow.add_property(name, "True", name)
    transform = workflow.train_preprocessing
    set_determinism(workflow.seed)
    set_rnd(transform, workflow.seed)
    crops = [_first(transform(case)) for case in workflow.cases["training"][:num_cases]]
    if ckpt_dir is not None:
        _predict(workflow, crops, Path(ckpt_dir))
    figure = preview_figure(
        crops,
        workflow.labels,
        spacing=workflow.spacing,
        orientation=workflow.orientation,
        plane=plane,
        titles=[case_name(case) for case in workflow.cases["training"][:num_cases]],
    )
    figure.savefig(output)
    print(output)


def _first(crops: Any) -> dict[str, Any]:
    crop: dict[str, Any] = crops[0] if isinstance(crops, list) else crops
    if MedContextKeys.CONTEXT_MASK not in crop:
        raise ValueError("This configuration drops nothing; preview it without baseline.json.")
    return crop


@torch.no_grad()
def _predict(workflow: Any, crops: list[dict[str, Any]], ckpt_dir: Path) -> None:
    network = workflow.network_def.to(workflow.device).eval()
    for file, source, target in (
        (MODEL_FILE, MedContextKeys.MASKED_IMAGE, MedContextKeys.MASKED_PRED),
        (TEACHER_FILE, MedContextKeys.MASKED_IMAGE, MedContextKeys.TEACHER_PRED),
    ):
        if file == TEACHER_FILE and not (ckpt_dir / file).is_file():
            continue  # of an earlier version's control
        load_weights(network, ckpt_dir / file)
        for crop in crops:
            crop[target] = network(crop[source][None].to(workflow.device))[0].cpu()


def convert_weights(
    source: str,
    config_file: str | Sequence[str],
    output: str = MODEL_FILE,
    strict: bool = True,
    entry: str | None = None,
    **override: Any,
) -> None:
    """Make a bundle's ``model.pt`` of a published checkpoint; put it into a folder to give as ``--ckpt_dir``.

    Args:
        source: the published file; code in it is never run.
        config_file: ``train.json`` of the bundle, with overlays as for training.
        output: the file to write; an existing one is never overwritten.
        strict: with ``False`` take a checkpoint that holds a part of the network, such as its encoder alone.
        entry: which network to take from a file that holds several, such as ``student_state_dict``.
        override: values of configuration keys, as for training.
    """
    workflow = create_workflow(config_file=config_file, logging_file=False, **override)
    report = convert_checkpoint(source, build_network(workflow), output, strict=strict, entry=entry)
    print(f"{describe_conversion(report, source)}\n{output}")


def download(name: str | None = None, *, source: str, bundle_dir: str = ".") -> None:
    """Download a bundle from any collection, check it, and unpack it; without a name list what there is.

    Args:
        name: of the bundle, or ``NAME@VERSION``; without a version the latest.
        source: address or path of the collection's ``model_info.json``, or of the folder that holds it.
        bundle_dir: folder to put the bundle's folder into; an existing bundle is never overwritten, and a call that was
            cut off can be repeated.
    """
    if name is not None:
        print(download_bundle(str(name), str(source), str(bundle_dir)))
        return
    for bundle in read_collection(str(source)).bundles:
        print(bundle.name, bundle.version)


def experiment(
    bundles: str | Sequence[str],
    datasets: str | Sequence[str] = "btcv",
    fractions: float | Sequence[float] | None = None,
    cases: int | Sequence[int] | None = None,
    seeds: int | Sequence[int] = (0, 1, 2),
    modes: str | Sequence[str] = SUPERVISED_MODES,
    experiment_name: str = "experiment",
    overlays: str | Sequence[str] = (),
    devices: str | int | Sequence[str | int] = (),
    output_dir: str | None = None,
    test_fold: int | None = None,
    dry_run: bool = False,
    **override: Any,
) -> None:
    """Train and evaluate every combination, skip what is done, resume what was cut short, and compare.

    All supervised modes of a dataset take equally many steps, whatever their number of cases. ``baseline_equal_time``
    and the modes with unlabelled scans take as many as fit in the time of ``medcontext``: what a step of each costs is
    measured first, and kept in ``costs.json``.

    Args:
        bundles: names or folders of bundles, separated by commas.
        datasets: ``btcv``, ``acdc``, ``brats``, ``hippocampus``, or an overlay of your own by path.
        fractions: shares of the training cases; all of them by default.
        cases: numbers of labelled cases, those for validation included, instead of fractions.
        seeds: at least three are needed to tell anything.
        modes: among ``baseline``, ``baseline_equal_time``, ``patch_dropout``, ``masking_only``, ``medcontext`` and,
            with unlabelled scans, ``pseudo_labels`` and ``medcontext_unlabeled``.
        experiment_name: MLflow experiment, and the beginning of the runs' names.
        overlays: further configuration files of the bundles by name, such as ``phantom``, or your own by path.
        devices: GPU numbers, or ``cpu``, separated by commas; one run at a time on each.
        output_dir: logs, states and the comparison; ``<home>/runs/experiments/<experiment_name>`` by default.
        test_fold: 0 to 4, to choose settings without the test cases: test on this fifth of the training cases instead,
            on which nothing trains.
        dry_run: only print what would be run.
        override: values of configuration keys, as for training.
    """
    cells = grid(
        _tuple(bundles),
        _tuple(datasets),
        _tuple(1.0 if fractions is None else fractions) if cases is None or fractions is not None else None,
        _tuple(seeds),
        _tuple(modes),
        None if cases is None else _tuple(cases),
    )
    jobs = plan(
        cells, experiment_name=experiment_name, overlays=_tuple(overlays), overrides=override, test_fold=test_fold
    )
    folder = Path(output_dir or jobs[0].home / "runs" / "experiments" / experiment_name)
    if dry_run:
        _print_plan(jobs, known_costs(jobs, folder))
        return
    jobs = with_equal_time(jobs, measure_costs(jobs, folder, _tuple(devices)))
    failures = run_cells(jobs, folder, _tuple(devices))
    for failure in failures:
        print(failure, file=sys.stderr)
    if len(failures) < len(jobs) and len({job.cell.mode for job in jobs}) > 1:
        compare(experiment_name, str(folder / "comparison"), tracking_uri=jobs[0].tracking_uri)
    if failures:
        raise SystemExit(f"medcontext: {len(failures)} of {len(jobs)} runs failed; call again when that is mended.")


def _print_plan(jobs: Sequence[Job], costs: Costs) -> None:
    for job in with_equal_time(jobs, costs):
        known = not MODES[job.cell.mode].equal_time or job.cell.mode in costs.get(job.place, {})
        epochs = f"{job.training['max_epochs']} epochs" if known else "as many epochs as fit, once costs are measured"
        print(f"{job.cell.name}: {epochs}")


def compare(
    experiment: str,
    output_dir: str,
    group_by: str | Sequence[str] = GROUP_BY,
    tracking_uri: str | None = None,
    log_to_mlflow: bool = True,
) -> None:
    """Tell from the runs in MLflow whether MedContext helps, and which rung of the ladder carries the gain.

    Args:
        experiment: name of the MLflow experiment.
        output_dir: folder for the page, its pictures and the tables.
        group_by: names of tags or hyperparameters, separated by commas.
        tracking_uri: database or server; by default ``$MLFLOW_TRACKING_URI``, else ``mlruns.db`` of the home.
        log_to_mlflow: log the result to the experiment too, in place of an earlier one by the same names.
    """
    comparison = compare_runs(
        str(experiment),
        output_dir,
        group_by=[str(name) for name in _tuple(group_by)],
        tracking_uri=tracking_uri,
        log_to_mlflow=log_to_mlflow,
    )
    for group in comparison.groups:
        print(group.sentence)
        for step in group.ladder.steps:
            print(f"  {step.line}")
    print(Path(output_dir) / PAGE)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def send_unsent(ckpt_dir: str, tracking_uri: str | None = None) -> None:
    """Send what MLflow did not take while it was away.

    Args:
        ckpt_dir: folder of the run's checkpoints, beside which it is kept.
        tracking_uri: MLflow's address, if it is another than that of the training.
    """
    print(f"{send_kept(ckpt_dir, tracking_uri)} entries sent to MLflow")


def main() -> None:
    """Run a command; a user's mistake ends it with one sentence."""
    commands = {name: globals()[name] for name in __all__ if name != "main"}
    try:
        fire.Fire(commands, name="medcontext")
    except (ValueError, OSError, CheckpointWriteError) as error:
        sys.exit(f"medcontext: {error}")
    except KeyboardInterrupt:
        print("medcontext: interrupted; the same command goes on, or does it again.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
