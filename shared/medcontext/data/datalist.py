"""Reading dataset files in the Decathlon's format, and splitting their cases."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medcontext.checks import check_choice, check_fraction, check_integer
from medcontext.data.listed_cases import Case, case_files, case_name, check_case, check_content, refuse_unknown_sections
from medcontext.labels import Labels, ignored_id, label_names, map_labels
from medcontext.storage.files import write_file
from medcontext.storage.json_files import read_json

__all__ = [
    "Case",
    "case_files",
    "case_name",
    "cross_validation_folds",
    "data_hash",
    "describe_cases",
    "hold_out",
    "load_cases",
    "load_datalist",
    "label_mapping",
    "load_listed",
    "refuse_unknown_sections",
    "write_all_labelled",
    "write_fold",
    "write_listed",
]

logger = logging.getLogger(__name__)


def load_datalist(datalist: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a ``dataset.json``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a JSON object, or lists no cases under ``training`` or ``test``.
    """
    path = Path(datalist)
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}.")
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
    return check_content(content, path)


def load_cases(
    datalist: str | os.PathLike[str],
    section: str,
    *,
    fold: int | None = None,
    num_folds: int = 5,
    num_validation: int = 0,
    train_fraction: float = 1.0,
    train_cases: int | None = None,
    seed: int = 0,
) -> list[Case]:
    """Return the cases of one section of a dataset file, with absolute paths.

    The test cases are those that the file lists. The validation cases are, in this order of precedence: the given fold,
    which is that of the file where it gives each training case a ``fold``, else one of a seeded ``num_folds``-fold
    split of all but the test cases; those that the file lists; ``num_validation`` of the training cases, drawn with the
    seed. The training cases are the rest, of which ``train_fraction`` or ``train_cases``
    keeps a seeded subset; a smaller one is always contained in a larger one. ``rest`` are the cases left out of it.

    Where the file names a ``patient`` for each case, patients are drawn instead of cases and never divided; the numbers
    below then count patients.

    Args:
        datalist: path of the ``dataset.json``.
        section: ``training``, ``validation``, ``test`` or ``rest``.
        fold: index of the fold to validate on, or ``None`` for no folds.
        num_folds: number of folds, 2 or more.
        num_validation: training cases to hold out where the file lists no validation cases and ``fold`` is ``None``.
        train_fraction: share of the training cases to keep, above 0 and up to 1; at least one case is kept.
        train_cases: instead of a share, the number of labelled cases that the run uses, those held out by
            ``num_validation`` included, or ``None``.
        seed: seed of the split.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument is out of range, or the file has too few cases.
    """
    check_choice("section", section, ("training", "validation", "test", "rest"))
    _check_subset(train_fraction, train_cases)
    listed = {name: load_listed(datalist, name) for name in ("training", "validation", "test")}
    if section == "test":
        return listed["test"]
    order, held_out = np.random.default_rng(seed), 0
    numbers = _listed_folds(listed, datalist)
    if fold is not None and numbers:
        training, validation = _listed_fold(listed["training"], numbers, fold, datalist)
    elif fold is not None:
        training, validation = _fold(listed["training"] + listed["validation"], fold, num_folds, order)
    elif listed["validation"]:
        training, validation = listed["training"], listed["validation"]
    else:
        training, validation = hold_out(listed["training"], num_validation, order)
        held_out = num_validation
    if section == "validation":
        return validation
    if numbers and fold is None:
        logger.warning("%s gives folds to its training cases, but fold is null; give --fold to use one.", datalist)
    rest, kept = _subset(training, train_fraction, train_cases, held_out, np.random.default_rng(seed + 1))
    return kept if section == "training" else rest


def load_listed(datalist: str | os.PathLike[str], section: str) -> list[Case]:
    """Return the cases that a dataset file lists under ``section``, with absolute paths.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a valid dataset file.
    """
    folder = Path(datalist).absolute().parent
    return [_with_absolute_paths(case, folder) for case in load_datalist(datalist).get(section, [])]


def _with_absolute_paths(case: object, folder: Path) -> Case:
    checked = check_case(case)
    return {key: _join(folder, value) if key in ("image", "label") else value for key, value in checked.items()}


def _join(folder: Path, value: str | Sequence[str]) -> str | list[str]:
    return str(folder / value) if isinstance(value, str) else [str(folder / path) for path in value]


def _check_subset(train_fraction: float, train_cases: int | None) -> None:
    check_fraction("train_fraction", train_fraction, above_zero=True)
    if train_cases is None:
        return
    check_integer("train_cases", train_cases, minimum=1, remedy="give a number of cases, or null for all")
    if train_fraction < 1:
        raise ValueError(
            f"train_cases {train_cases} and train_fraction {train_fraction} both choose the training cases; give one."
        )


def _subset(
    cases: list[Case], fraction: float, number: int | None, held_out: int, order: np.random.Generator
) -> tuple[list[Case], list[Case]]:
    """Divide cases into those left out and those kept, which together with the ``held_out`` ones are ``number``."""
    patients = _patients(cases)
    if number is None:
        keep = max(1, math.ceil(fraction * len(patients) - 1e-9))
    elif held_out < number <= held_out + len(patients):
        keep = number - held_out
    else:
        counted = f", {held_out} of them for validation (validation_cases)" if held_out else ""
        raise ValueError(
            f"train_cases must be from {held_out + 1} to {held_out + len(patients)}, all labelled cases that there "
            f"are{counted}, got {number}."
        )
    return _split(cases, patients, order.permutation(len(patients))[:keep])


def _patients(cases: list[Case]) -> list[Hashable]:
    """Return the patients in the order of their first cases; a case without a patient is one of its own."""
    return list(dict.fromkeys(_patient(case, i) for i, case in enumerate(cases)))


def _patient(case: Case, index: int) -> Hashable:
    return str(case["patient"]) if "patient" in case else index


def _fold(cases: list[Case], fold: int, num_folds: int, order: np.random.Generator) -> tuple[list[Case], list[Case]]:
    patients = _patients(cases)
    if num_folds > len(patients):
        kind = "patients" if len(patients) < len(cases) else "cases"
        raise ValueError(f"There are {len(patients)} {kind} for {num_folds} folds; choose fewer folds.")
    if not 2 <= num_folds <= len(patients) or not 0 <= fold < num_folds:
        raise ValueError(
            f"fold must be within 0..{num_folds - 1} and num_folds within 2..{len(patients)}, got fold {fold}."
        )
    return _split(cases, patients, order.permutation(len(patients))[fold::num_folds])


def _listed_folds(listed: Mapping[str, list[Case]], datalist: str | os.PathLike[str]) -> list[int]:
    """Return the fold that the file gives to each training case, in their order, or none if it gives none."""
    given = [case.get("fold") for case in listed["training"]]
    if given.count(None) == len(given):
        return []
    if not all(isinstance(fold, int) and not isinstance(fold, bool) for fold in given) or listed["validation"]:
        raise ValueError(
            f"{datalist} gives folds to training cases; give each of them one, a whole number, and list no validation "
            "cases beside them, or remove the folds."
        )
    return [int(fold) for fold in given if fold is not None]


def _listed_fold(
    cases: list[Case], numbers: list[int], fold: int, datalist: str | os.PathLike[str]
) -> tuple[list[Case], list[Case]]:
    known = sorted(set(numbers))
    if fold not in known or len(known) < 2:
        raise ValueError(
            f"fold must be one of two or more that {datalist} gives to its training cases "
            f"({', '.join(map(str, known))}), got {fold}."
        )
    training = [case for case, number in zip(cases, numbers, strict=True) if number != fold]
    return training, [case for case, number in zip(cases, numbers, strict=True) if number == fold]


def hold_out(
    cases: list[Case], count: int, order: np.random.Generator, *, name: str = "validation_cases"
) -> tuple[list[Case], list[Case]]:
    """Divide training cases into those kept and those held out.

    Args:
        cases: the training cases.
        count: number of patients, or of cases where none are named, to hold out.
        order: random generator that draws them.
        name: name of the number, for messages.

    Raises:
        ValueError: If none would be left to train on.
    """
    patients = _patients(cases)
    if not 0 <= count < max(len(patients), 1):
        raise ValueError(f"{name} {count} cannot be held out of {len(patients)} training cases; hold out fewer.")
    return _split(cases, patients, order.permutation(len(patients))[:count])


def _split(cases: list[Case], patients: list[Hashable], indices: Iterable[int]) -> tuple[list[Case], list[Case]]:
    """Return the cases of all other patients, and those of the patients at the given indices."""
    chosen = {patients[index] for index in indices}
    is_chosen = [_patient(case, i) in chosen for i, case in enumerate(cases)]
    rest = [case for case, taken in zip(cases, is_chosen, strict=True) if not taken]
    return rest, [case for case, taken in zip(cases, is_chosen, strict=True) if taken]


def data_hash(*sections: Sequence[Case]) -> str:
    """Return twelve hex digits that change with the cases of any section: names, order, sizes, what is annotated.

    A missing file has no size.
    """
    digest = hashlib.sha256()
    for cases in sections:
        digest.update(b"section")
        for case in cases:
            for path in map(Path, case_files(case)):
                size = path.stat().st_size if path.exists() else ""
                digest.update(f"{path.name}:{size};".encode(errors="surrogatepass"))
            digest.update("".join(f"without {name};" for name in sorted(case.get("unannotated", []))).encode())
    return digest.hexdigest()[:12]


def describe_cases(sections: Mapping[str, Sequence[Case]], *, names: bool = False) -> dict[str, dict[str, Any]]:
    """Describe the cases of a run, section by section, for its log.

    Args:
        sections: cases by section name; empty sections are left out.
        names: give the cases' names, instead of twelve digits of the SHA-256 of each.

    Returns:
        For each section ``hash``, from :func:`data_hash`, and the list ``cases``.
    """
    return {
        section: {"hash": data_hash(cases), "cases": [_log_name(case, names) for case in cases]}
        for section, cases in sections.items()
        if cases
    }


def hashed_name(name: str) -> str:
    """Return twelve hex digits that stand for a case where its name must not be shown."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]


def _log_name(case: Case, plain: bool) -> str:
    name = case_name(case)
    return name if plain else hashed_name(name)


def cross_validation_folds(datalist: str | os.PathLike[str], num_folds: int, seed: int = 0) -> list[list[Case]]:
    """Return the cases of each fold, of which every case but those for testing is in one.

    Args:
        datalist: path of the ``dataset.json``.
        num_folds: number of folds, 2 or more.
        seed: seed of the split.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there are fewer cases, or the file gives its cases other folds.
    """
    numbers = set(_listed_folds({name: load_listed(datalist, name) for name in ("training", "validation")}, datalist))
    if numbers and numbers != set(range(num_folds)):
        raise ValueError(
            f"{datalist} gives its training cases the folds {', '.join(map(str, sorted(numbers)))}; number them from "
            f"0, and ask for as many as there are, not for {num_folds}."
        )
    split = {"num_folds": num_folds, "seed": seed}
    return [load_cases(datalist, "validation", fold=fold, **split) for fold in range(num_folds)]


def write_fold(
    datalist: str | os.PathLike[str], home: str | os.PathLike[str], fold: int, num_folds: int = 5, seed: int = 0
) -> str:
    """Write a dataset file whose test cases are a fold of the training cases.

    It serves to choose settings without looking at the test cases, and to evaluate a network on the fold that it was
    validated on. The folds are those of :func:`load_cases` and include cases listed for validation. Unlabelled scans
    stay as they are.

    Args:
        datalist: path of the ``dataset.json``.
        home: folder for derived data; the file is in ``folds/<name>`` in it.
        fold: index of the fold to test on.
        num_folds: number of folds, 2 or more.
        seed: seed of the split.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If there is no such dataset file.
        ValueError: If there is no such fold.
    """
    training, test = (
        load_cases(datalist, section, fold=fold, num_folds=num_folds, seed=seed)
        for section in ("training", "validation")
    )
    name = f"fold{fold}of{num_folds}" + (f"-seed{seed}" if seed else "")
    return _write_derived(datalist, home, name, training=training, test=test)


def write_all_labelled(datalist: str | os.PathLike[str], home: str | os.PathLike[str]) -> str:
    """Write a dataset file whose cases for training and validation are all for training, without folds.

    Args:
        datalist: path of the ``dataset.json``.
        home: folder for derived data, as for :func:`write_fold`.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If there is no such dataset file.
    """
    labelled = [case for section in ("training", "validation") for case in load_listed(datalist, section)]
    training = [{key: value for key, value in case.items() if key != "fold"} for case in labelled]
    return _write_derived(datalist, home, "all", training=training, test=load_listed(datalist, "test"))


def write_listed(training: Sequence[Any], validation: Sequence[Any], home: str | os.PathLike[str]) -> str:
    """Write a dataset file of cases that are given as lists, with absolute paths.

    Args:
        training: cases with ``image`` and ``label``.
        validation: cases to validate on.
        home: folder for derived data; the file is in ``listed`` in it, under a name that changes with the cases.

    Returns:
        The path of the file.

    Raises:
        ValueError: If there are no training cases, or a case lacks its image or label.
    """
    if not training:
        raise ValueError("There are no labelled cases to train on; label some, or hold out fewer for validation.")
    lists = {"training": training, "validation": validation}
    written = {name: [_with_absolute_paths(case, Path.cwd()) for case in cases] for name, cases in lists.items()}
    path = Path(home) / "listed" / f"{data_hash(*written.values())}.json"
    write_file(path, (json.dumps(written, indent=4) + "\n").encode())
    return str(path)


def _write_derived(
    datalist: str | os.PathLike[str],
    home: str | os.PathLike[str],
    name: str,
    *,
    training: Sequence[Case],
    test: Sequence[Case],
) -> str:
    content = load_datalist(datalist)
    folder = Path(datalist).absolute().parent
    others = {
        name: [_with_absolute_paths(case, folder) for case in content[name]]
        for name in ("unlabeled",)
        if name in content
    }
    written = {**content, **others, "training": training, "validation": [], "test": test}
    source = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    stem = Path(datalist).stem
    file = name if stem == "dataset" else f"{stem}-{name}"
    path = Path(home) / "folds" / f"{folder.name}-{source}" / f"{file}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(written, indent=4) + "\n").encode())
    return str(path)


def label_mapping(datalist: str | os.PathLike[str], labels: Labels) -> list[list[int]]:
    """Return original and target labels for MONAI's ``MapLabelValued``, matched by name.

    ``dataset.json`` names the ids in the files, the configuration those of the network. Labels that the configuration
    does not mention become background, so a network can be trained on some of a dataset's organs, or on another edition
    of it.

    Args:
        datalist: path of the ``dataset.json``.
        labels: names with the network's ids. A region, a name with several ids, is a union of the network's ids; each
            of these must also have a name of its own, which is looked up in ``dataset.json``.

    Returns:
        The ids in the files, in order, and the ids that they become: equal where ``dataset.json`` names no labels.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If ``dataset.json`` lacks a name, or an id of a region has no name of its own.
    """
    content = load_datalist(datalist)
    return map_labels(label_names(content), labels, ignored_id(content))
