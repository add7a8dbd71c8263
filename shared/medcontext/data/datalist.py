"""Reading decathlon-style dataset files and splitting their cases."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["data_hash", "list_images", "load_cases", "load_datalist"]

Case = dict[str, str]


def load_datalist(datalist: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a ``dataset.json``.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When it is no JSON object, or lists no cases under ``training`` or ``test``.
    """
    path = Path(datalist)
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(content, dict) or not (content.get("training") or content.get("test")):
        raise ValueError(f"{path} must be an object with lists of cases under 'training', 'validation' and 'test'.")
    return content


def load_cases(
    datalist: str | os.PathLike[str],
    section: str,
    *,
    fold: int | None = None,
    num_folds: int = 5,
    num_validation: int = 0,
    train_fraction: float = 1.0,
    seed: int = 0,
) -> list[Case]:
    """The cases of one section of a dataset file, with absolute paths.

    The test cases are those that the file lists. The validation cases are, in this order of precedence: the given fold
    of a seeded ``num_folds``-fold split of all but the test cases; those that the file lists; ``num_validation`` of the
    training cases, drawn with the seed. The training cases are the rest, of which ``train_fraction`` keeps a seeded
    subset; a smaller fraction is always contained in a larger one.

    Args:
        datalist: path of the ``dataset.json``.
        section: ``training``, ``validation`` or ``test``.
        fold: index of the fold to validate on, or ``None`` for no folds.
        num_folds: number of folds, 2 or more.
        num_validation: training cases to hold out where the file lists no validation cases and ``fold`` is ``None``.
        train_fraction: share of the training cases to keep, above 0 and up to 1; at least one case is kept.
        seed: of the split.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When an argument is out of range, or the file cannot give what is asked.
    """
    if section not in ("training", "validation", "test"):
        raise ValueError(f"section must be 'training', 'validation' or 'test', got {section!r}.")
    if not 0 < train_fraction <= 1:
        raise ValueError(f"train_fraction must be above 0 and at most 1, got {train_fraction}.")
    content = load_datalist(datalist)
    folder = Path(datalist).absolute().parent
    listed = {
        name: [_absolute(case, folder) for case in content.get(name, [])] for name in ("training", "validation", "test")
    }
    if section == "test":
        return listed["test"]
    order = np.random.default_rng(seed)
    if fold is not None:
        training, validation = _fold(listed["training"] + listed["validation"], fold, num_folds, order)
    elif listed["validation"]:
        training, validation = listed["training"], listed["validation"]
    else:
        training, validation = _hold_out(listed["training"], num_validation, order)
    if section == "validation":
        return validation
    keep = max(1, math.ceil(train_fraction * len(training) - 1e-9))
    chosen = sorted(np.random.default_rng(seed + 1).permutation(len(training))[:keep])
    return [training[i] for i in chosen]


def list_images(source: str | os.PathLike[str]) -> list[Case]:
    """Images to predict, as cases without labels.

    Args:
        source: one NIfTI file, a ``dataset.json`` or the folder that holds one (its test cases), or a folder of NIfTI
            files.

    Raises:
        FileNotFoundError: When there is nothing to predict.
        ValueError: When two images have the same name, so that one prediction would overwrite the other.
    """
    path = Path(source).absolute()
    datalist = path / "dataset.json" if path.is_dir() else path
    if datalist.name == "dataset.json" and datalist.is_file():
        cases = load_cases(datalist, "test")
    elif path.is_file():
        cases = [{"image": str(path)}]
    else:
        cases = [{"image": str(file)} for file in sorted([*path.glob("*.nii"), *path.glob("*.nii.gz")])]
    if not cases:
        raise FileNotFoundError(
            f"There is nothing to predict at {source}; give a NIfTI file, a folder of them, or a dataset.json "
            "with test cases as --dataset_dir."
        )
    names = [Path(case["image"]).name.split(".nii")[0] for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{source} holds several images called {twice[0]}, whose predictions would be one file; rename."
        )
    return [{"image": case["image"]} for case in cases]


def _absolute(case: dict[str, Any] | str, folder: Path) -> Case:
    files = {"image": case} if isinstance(case, str) else case
    return {key: str(folder / value) if key in ("image", "label") else value for key, value in files.items()}


def _fold(cases: list[Case], fold: int, num_folds: int, order: np.random.Generator) -> tuple[list[Case], list[Case]]:
    if not 2 <= num_folds <= len(cases) or not 0 <= fold < num_folds:
        raise ValueError(
            f"fold must be within 0..{num_folds - 1} and num_folds within 2..{len(cases)}, got fold {fold}."
        )
    chosen = set(order.permutation(len(cases))[fold::num_folds].tolist())
    return _split(cases, chosen)


def _hold_out(cases: list[Case], count: int, order: np.random.Generator) -> tuple[list[Case], list[Case]]:
    if not 0 <= count < max(len(cases), 1):
        raise ValueError(f"{count} validation cases cannot be held out of {len(cases)} training cases; hold out fewer.")
    return _split(cases, set(order.permutation(len(cases))[:count].tolist()))


def _split(cases: list[Case], chosen: set[int]) -> tuple[list[Case], list[Case]]:
    rest = [case for i, case in enumerate(cases) if i not in chosen]
    return rest, [cases[i] for i in sorted(chosen)]


def data_hash(*sections: Sequence[Case]) -> str:
    """Twelve hex digits that change with the cases of any section: their names, order and file sizes."""
    digest = hashlib.sha256()
    for cases in sections:
        digest.update(b"section")
        for case in cases:
            for key in ("image", "label"):
                if key in case:
                    path = Path(case[key])
                    digest.update(f"{path.name}:{path.stat().st_size};".encode())
    return digest.hexdigest()[:12]
