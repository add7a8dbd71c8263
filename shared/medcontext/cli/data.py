"""Commands for datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medcontext.cli.arguments import as_tuple

__all__ = ["check", "phantoms", "plan", "prepare"]


def prepare(
    dataset: str,
    output_dir: str,
    source: str | None = None,
    images: str | None = None,
    labels: str | None = None,
    modality: str | Sequence[str] | None = None,
    label_names: Mapping[str, int] | None = None,
    test_cases: int = 0,
    keep_unlabeled: bool = False,
    link: bool = False,
    allow_missing: bool = False,
    download: bool = False,
) -> None:
    """Prepare a provider's download, or your own data, as a dataset that the bundles can train on.

    Args:
        dataset: ``btcv``, ``acdc``, ``brats`` or ``hippocampus``; for your own data ``nnunet`` (a folder of nnU-Net's),
            ``decathlon`` (any of its tasks) or ``folder`` (images in one folder, labels in another).
        output_dir: folder of the dataset; an interrupted call can be repeated.
        source: the downloaded zip or tar, or a folder with its content; for ``nnunet`` and ``decathlon`` the one with
            ``dataset.json``.
        images: for ``folder``: the folder of the images.
        labels: for ``folder``: the folder of the label maps, paired with the images by name.
        modality: for ``folder``: what the images show, such as CT or MR; for several channels T1,FLAIR.
        label_names: for ``folder``: the labels' ids, such as {"liver": 1}; by default label_1 and so on.
        test_cases: hold out this number of your labelled cases for evaluation.
        keep_unlabeled: list your images without a label as unlabelled scans instead of stopping.
        link: link a provider's files instead of copying them; your own are always linked.
        allow_missing: leave out incomplete cases instead of stopping.
        download: download a Decathlon archive first: of ``brats`` or ``hippocampus`` to the folder ``source``, of
            ``decathlon`` to the path ``source``, such as data/Task09_Spleen.tar.
    """
    from medcontext.providers import prepare_data

    options = {"source": source, "images": images, "labels": labels, "modality": modality, "label_names": label_names}
    flags = {"keep_unlabeled": keep_unlabeled, "link": link, "allow_missing": allow_missing, "download": download}
    print(prepare_data(dataset, output_dir, test_cases=test_cases, **options, **flags))


def check(dataset_dir: str, voxels: bool | None = None, hashes: bool = False, audit_dir: str | None = None) -> None:
    """Check a dataset and list its problems in a table; the exit code is 1 if there are any but warnings.

    Structures that some cases list under ``unannotated`` are named with the number of cases that they rest on.

    With ``audit_dir``, the label maps of a dataset without problems are compared with each other too, and those that a
    person should look at are listed: structures missing, in pieces, exchanged, or of unusual size or intensity, and
    label maps that seem shifted from their image. These do not change the exit code.

    Args:
        dataset_dir: folder with the ``dataset.json``.
        voxels: ``True`` reads the voxels of all files, ``False`` only headers; by default, the voxels of new and
            changed files are read.
        hashes: compare the files with their SHA-256 at the time of preparation.
        audit_dir: folder for a page with pictures of the unusual label maps, ``audit.html``, and a table.
    """
    from medcontext.data import check_dataset, errors_of, load_datalist, load_listed, problems_table
    from medcontext.data.partial import annotated_in_part
    from medcontext.labels import ignored_id, label_names

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
    warnings = len(problems) - len(errors_of(problems))
    if len(problems) > warnings:
        raise SystemExit(1)
    sections = ("training", "validation", "test", *(["unlabeled"] if content.get("unlabeled") else []))
    counts = ", ".join(f"{len(content.get(name, []))} {name}" for name in sections)
    print(f"{counts} cases, no problems found{f' but {warnings} to look at' if warnings else ''}")
    cases = [case for name in sections[:3] for case in load_listed(datalist, name)]
    for name, count in annotated_in_part(cases, labels).items():
        print(f"{name} is annotated in {count} of {len(cases)} cases")
    if audit_dir is not None:
        _audit(cases, labels, ignored_id(content), audit_dir)


def _audit(cases: Sequence[Any], labels: Mapping[str, int], ignored: int | None, output_dir: str) -> None:
    from medcontext.audit import audit_cases, write_audit

    findings = audit_cases(cases, labels, ignored)
    for finding in findings:
        print(f"{finding.case}: {finding.text}")
    page = write_audit(findings, cases, labels, output_dir)
    print(f"{len({finding.case for finding in findings})} of {len(cases)} cases to look at: {page}")


def plan(
    dataset_dir: str,
    gpu_memory: float | str | None = None,
    bundles: str | Sequence[str] | None = None,
    output_dir: str | None = None,
) -> None:
    """Choose the settings for a dataset, say why, and write them as an overlay for each bundle.

    Voxels are read once; a second call recalls what it read, until the files change.

    Args:
        dataset_dir: folder with the ``dataset.json``.
        gpu_memory: memory of the GPU to train on in GiB, or ``cpu``; this machine's by default.
        bundles: names or folders of bundles, separated by commas; all by default.
        output_dir: folder of the files ``plan_<bundle>.json``; the dataset's by default.
    """
    from medcontext.planning import make_plans, plans_table, write_plans

    plans = make_plans(dataset_dir, gpu_memory, None if bundles is None else as_tuple(bundles))
    files = write_plans(plans, dataset_dir if output_dir is None else output_dir)
    print(plans_table(plans), *files, sep="\n")


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
        dataset: dataset to imitate: ``btcv``, ``acdc``, ``brats`` or ``hippocampus``.
        num_cases: total number of labelled cases; the default is the published number, but 40 for BraTS.
        size: voxels along x, y, z.
        spacing: voxel size in mm along x, y, z.
        seed: seed of the cohort.
    """
    from medcontext.phantoms import write_phantoms

    print(write_phantoms(output_dir, dataset=dataset, num_cases=num_cases, size=size, spacing=spacing, seed=seed))
