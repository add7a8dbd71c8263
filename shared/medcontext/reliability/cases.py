"""Cases that a network did not see in training."""

from __future__ import annotations

import os

from medcontext.data.datalist import Case, case_name, hashed_name, load_listed
from medcontext.networks.model_file import read_model_file

__all__ = ["trained_names", "unseen_cases"]


def trained_names(ckpt_path: str | os.PathLike[str]) -> set[str] | None:
    """Return the hashed names of the cases that weights were trained on, with or without labels.

    Args:
        ckpt_path: the weights; ``model.json`` beside them lists the cases.

    Returns:
        Names as :func:`~medcontext.data.datalist.hashed_name` gives them; ``None`` if nothing is known.
    """
    known = read_model_file(ckpt_path).get("cases") or {}
    if "training" not in known:
        return None
    return {str(name) for section in ("training", "unlabeled") for name in known.get(section, {}).get("cases", [])}


def unseen_cases(datalist: str | os.PathLike[str], ckpt_path: str | os.PathLike[str]) -> list[Case]:
    """Return the labelled cases of a dataset that weights were not trained on, its test cases aside.

    These are the cases held out for validation, such as those of a fold, and those that ``train_cases`` left out.
    Cases of a patient whose other cases were trained on are left out too.

    Args:
        datalist: path of the ``dataset.json``.
        ckpt_path: the weights.

    Returns:
        The cases; none if ``model.json`` beside the weights does not say which cases they were trained on.
    """
    trained = trained_names(ckpt_path)
    if trained is None:
        return []
    listed = [case for name in ("training", "validation") for case in load_listed(datalist, name) if "label" in case]
    seen = [hashed_name(case_name(case)) in trained for case in listed]
    patients = {str(case["patient"]) for case, known in zip(listed, seen, strict=True) if known and "patient" in case}
    return [
        case for case, known in zip(listed, seen, strict=True) if not known and str(case.get("patient")) not in patients
    ]
