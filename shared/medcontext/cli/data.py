"""Commands about datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["check", "phantoms", "prepare"]


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
    from medcontext.providers import prepare_dataset

    print(prepare_dataset(dataset, source, output_dir, link=link, allow_missing=allow_missing, download=download))


def check(dataset_dir: str, voxels: bool | None = None, hashes: bool = False) -> None:
    """List everything that is wrong with a dataset in a table; exit code 1 if anything is.

    Args:
        dataset_dir: folder with the ``dataset.json``.
        voxels: ``True`` reads the voxels of all files, ``False`` headers alone; by default those files are read that
            were not read before, or have changed.
        hashes: compare the files with the SHA-256 from when they were prepared.
    """
    from medcontext.data import check_dataset, load_datalist, problems_table
    from medcontext.labels import label_names

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
    from medcontext.phantoms import write_phantoms

    print(write_phantoms(output_dir, dataset=dataset, num_cases=num_cases, size=size, spacing=spacing, seed=seed))
