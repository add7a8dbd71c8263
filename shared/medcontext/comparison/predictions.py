"""Label maps of other tools, scored on the test cases of the compared runs by the same metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from tqdm import tqdm

from medcontext.comparison.runs import TrackedRun
from medcontext.data.datalist import Case, case_name, data_hash, hashed_name, load_cases, load_datalist
from medcontext.data.partial import UNANNOTATED, without_ignored
from medcontext.labels import ignored_id, label_names
from medcontext.metrics import case_metrics, summarise
from medcontext.scans import corner_distance, is_volume_file, read_volume, shift_tolerance, volume_name
from medcontext.scans.geometry import voxel_sizes

__all__ = ["Predictions", "score_predictions"]

_FORM = re.compile(r"(?P<name>[\w.-]+)(@(?P<seed>\d+))?=(?P<folder>.+)")
_MOST = 5  # problems that a message lists

Folders: TypeAlias = dict[str, dict[str | None, Path]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scored label maps of another tool, of which neither the budget nor the training cases are known.

    Attributes:
        name: the user's name for the tool.
        tables: one row per test case and label, as those of :class:`TrackedRun`, by the seed of the draw that a set of
            label maps belongs to; ``None`` for one set for all draws.
        test: digests of the test cases.
    """

    name: str
    tables: Mapping[str | None, pd.DataFrame]
    test: tuple[str, ...]

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the labels and the draws."""
        return float(np.mean([summarise(table, resamples=1).mean_dice for table in self.tables.values()]))

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of the mean Dice over other test cases, each case averaged over the draws."""
        rows = pd.concat(self.tables.values()).groupby(["case", "label"], sort=False, as_index=False)["dice"].mean()
        return summarise(rows.assign(missed=False, spurious=False)).mean_dice_interval

    def count(self, column: str) -> int:
        """Return how many labels are ``missed`` or ``spurious`` over all draws."""
        return sum(int(table[column].sum()) for table in self.tables.values())

    def beside(self, run: TrackedRun) -> pd.DataFrame | None:
        """Return the scores to compare a run with: those of its seed, or of all; ``None`` if there are none."""
        if self.test != tested_cases(run):
            return None
        return self.tables.get(run.tags["seed"], self.tables.get(None))


@dataclass(frozen=True, eq=False)
class _Reference:
    """Test cases with their names in the runs' tables, and the ids of what is measured in the dataset's files.

    ``names`` are those of the ids, ``allowed`` the values that predictions may hold, and ``ignored`` the id of voxels
    that are left out.
    """

    datalist: Path
    cases: Mapping[str, Case]
    labels: Mapping[str, Sequence[int]]
    names: Mapping[int, str]
    allowed: frozenset[int]
    ignored: int | None


def tested_cases(run: TrackedRun) -> tuple[str, ...]:
    """Return the digests of a run's test cases."""
    return tuple(sorted(digest for digest, _ in run.inputs.get("test", ())))


def score_predictions(
    given: Sequence[str], runs: Sequence[TrackedRun], dataset_dir: str | None = None
) -> list[Predictions]:
    """Score folders of label maps in the ids of the dataset's files, on the original grid of each test case.

    A file belongs to the test case whose image or label map has its name, without ``_seg`` and ``_0000``, as nnU-Net
    and this package name predictions.

    Args:
        given: ``NAME=FOLDER`` for one set of label maps, which is compared with all draws, or ``NAME@SEED=FOLDER`` for
            each draw of the same labelled cases.
        runs: runs that are compared.
        dataset_dir: folder of their dataset; by default where they say that it is, if it is there.

    Raises:
        ValueError: If a folder is given otherwise, the runs' test cases are not found, or label maps are missing,
            superfluous, on another grid, or have other ids than the dataset; the message lists them.
    """
    folders = _folders(given)
    usable = [run for run in runs if not run.problem]
    run, datalist = _run_and_datalist(usable, dataset_dir)
    reference = _reference(run, datalist)
    return [
        Predictions(
            name,
            {seed: _score(name, folder, reference) for seed, folder in sets.items()},
            tested_cases(run),
        )
        for name, sets in folders.items()
    ]


def _folders(given: Sequence[str]) -> Folders:
    folders: Folders = {}
    for text in given:
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(
                f"predictions must be NAME=FOLDER, or NAME@SEED=FOLDER for the draw of a seed, got {text!r}."
            )
        sets, seed = folders.setdefault(found["name"], {}), found["seed"]
        if seed in sets or (sets and None in (seed, *sets)):
            raise ValueError(f"predictions name {found['name']!r} twice; give each folder a name or a seed of its own.")
        sets[seed] = Path(found["folder"]).expanduser()
        if not sets[seed].is_dir():
            raise ValueError(f"predictions: there is no folder {sets[seed]} of {found['name']}.")
    return folders


def _run_and_datalist(runs: Sequence[TrackedRun], dataset_dir: str | None) -> tuple[TrackedRun, Path]:
    """Return a run and the dataset file with the same test cases, of the same names and sizes of files."""
    by_test = {tested_cases(run): run for run in runs}
    if dataset_dir is None and len(by_test) > 1:
        names = ", ".join(sorted({run.tags["dataset"] for run in runs}))
        raise ValueError(f"The runs have {len(by_test)} sets of test cases ({names}); say which with --dataset_dir.")
    recorded = (run.params.get("datalist", "") for run in by_test.values())
    for datalist in map(Path, recorded if dataset_dir is None else [f"{dataset_dir}/dataset.json"]):
        if dataset_dir is not None or datalist.is_file():
            run = by_test.get((data_hash(load_cases(datalist, "test")),))
            if run is not None:
                return run, datalist
    if dataset_dir is None:
        raise ValueError("The test cases of the runs are not where they were; give their dataset as --dataset_dir.")
    raise ValueError(
        f"The test cases of {dataset_dir} are not those of the runs, by their names and sizes; give the dataset that "
        "the runs were evaluated on."
    )


def _reference(run: TrackedRun, datalist: Path) -> _Reference:
    cases = {case_name(case): case for case in load_cases(datalist, "test")}
    for names in (cases, {hashed_name(name): case for name, case in cases.items()}):
        if set(names) == set(run.table["case"]):
            content = load_datalist(datalist)
            ids = label_names(content)
            labels = {label: _ids_in_files(run, label, ids) for label in dict.fromkeys(run.table["label"])}
            allowed = {0, *ids, *(number for members in labels.values() for number in members)}
            structures = ids or _network_names(run)
            return _Reference(datalist, names, labels, structures, frozenset(allowed), ignored_id(content))
    raise ValueError(f"The test cases of {datalist} have other names than in the evaluation of {run.name}.")


def _network_names(run: TrackedRun) -> dict[int, str]:
    """Return the names of the ids that a run's network learned."""
    return {int(text): key[7:] for key, text in run.params.items() if key.startswith("labels.")}


def _ids_in_files(run: TrackedRun, label: str, names: Mapping[int, str]) -> list[int]:
    """Return the ids in the dataset's files of a reported label, or of all labels of a region."""
    in_files = {name: number for number, name in names.items()}
    if label in in_files:
        return [in_files[label]]
    network = _network_names(run)
    members = json.loads(run.params.get(f"reported.{label}", "[]"))
    members = members if isinstance(members, list) else [members]
    found = [in_files.get(network.get(number, "")) if names else number for number in members]
    known = [number for number in found if number is not None]
    if not known or len(known) < len(found):
        raise ValueError(f"The runs report {label!r}, for which dataset.json has no ids; name it under its labels.")
    return known


def _score(name: str, folder: Path, reference: _Reference) -> pd.DataFrame:
    """Return the metrics of all label maps in a folder, or raise ValueError with all their problems."""
    files, problems = _files_of_cases(folder, reference.cases)
    rows: list[dict[str, Any]] = []
    for case, file in tqdm(files.items(), desc=f"scoring {name}", unit="case", disable=None):
        label, affine = _read(reference.cases[case]["label"])
        try:
            prediction, own_affine = _read(file)
        except Exception as error:  # nibabel raises various kinds for a damaged file
            problems.append(f"{file.name} cannot be read ({' '.join(str(error).split())[:100]})")
            continue
        clauses = list(_differences(prediction, own_affine, label.shape, affine, reference.allowed))
        problems += [f"{file.name} {clause}" for clause in clauses]
        if not problems:
            rows += [{"case": case, **row} for row in _measured(prediction, label, affine, case, reference)]
    if problems:
        more = f"; and {len(problems) - _MOST} more" if len(problems) > _MOST else ""
        raise ValueError(f"The predictions {name} in {folder} cannot be scored: {'; '.join(problems[:_MOST])}{more}.")
    return pd.DataFrame(rows)


def _measured(
    prediction: npt.NDArray[np.float32],
    label: npt.NDArray[np.float32],
    affine: npt.NDArray[np.float64],
    case: str,
    reference: _Reference,
) -> list[dict[str, Any]]:
    """Return the metrics of a case by what is annotated in it."""
    predicted, truth = (np.rint(values).astype(np.int32) for values in (prediction, label))
    left_out = reference.cases[case].get(UNANNOTATED, [])
    return case_metrics(
        torch.as_tensor(predicted),
        torch.as_tensor(without_ignored(truth, reference.ignored)),
        reference.labels,
        voxel_sizes(affine).tolist(),
        unannotated=[index for index, name in reference.names.items() if name in left_out],
    )


def _files_of_cases(folder: Path, cases: Mapping[str, Case]) -> tuple[dict[str, Path], list[str]]:
    """Return the label map of each case, and which are missing, superfluous or given twice."""
    case_of = {alias: name for name, case in cases.items() for alias in _aliases(case)}
    files: dict[str, Path] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        stem = volume_name(path).removesuffix("_seg")
        if not is_volume_file(path) or stem.endswith("_probabilities"):
            continue
        case = case_of.get(stem)
        if case is None:
            problems.append(f"{path.name} belongs to no test case")
        elif case in files:
            problems.append(f"{files[case].name} and {path.name} belong to the same case")
        else:
            files[case] = path
    missing = [case_name(case) for name, case in cases.items() if name not in files]
    if missing:
        problems.insert(0, f"there is no label map of {', '.join(missing)}")
    return files, problems


def _aliases(case: Case) -> set[str]:
    """Return the names by which a label map of a case may be called, without ending."""
    image, label = case_name(case), volume_name(case["label"]).removesuffix("_seg")
    return {image, image.removesuffix("_0000"), label}


def _read(path: str | Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Return voxels and affine of a label map."""
    volume = read_volume(str(path))
    return np.asarray(volume.dataobj, dtype=np.float32), np.asarray(volume.affine)


def _differences(
    prediction: npt.NDArray[np.float32],
    own_affine: npt.NDArray[np.float64],
    shape: tuple[int, ...],
    affine: npt.NDArray[np.float64],
    allowed: frozenset[int],
) -> Iterator[str]:
    """Yield in which respects a label map cannot belong to its case."""
    if prediction.shape != shape:
        yield f"has shape {prediction.shape} instead of {shape}"
    else:
        moved = corner_distance(shape, own_affine, affine)
        if not moved <= shift_tolerance(affine):
            yield f"lies {moved:.3g} mm away from its case (their affines differ)"
    other = sorted(set(np.unique(prediction).tolist()) - allowed)
    if other:
        shown = ", ".join(f"{value:g}" for value in other[:_MOST])
        yield f"holds the values {shown}, which are no label ids of the dataset"
