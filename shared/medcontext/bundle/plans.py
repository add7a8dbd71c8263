"""What a plan records of the data that it was made for, and the refusal of other data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from medcontext.data import data_hash, load_datalist, load_listed
from medcontext.labels import label_names

__all__ = ["check_plan", "planned_data"]


def planned_data(datalist: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a plan depends on: the names of the labels by id, and the hash of the cases that are not for testing.

    Args:
        datalist: path of the ``dataset.json``.

    Raises:
        FileNotFoundError: If there is no such file, or one of its cases is missing.
        ValueError: If it is not a valid ``dataset.json``.
    """
    names = {str(index): name for index, name in label_names(load_datalist(datalist)).items()}
    return {
        "labels": names,
        "data_hash": data_hash(*(load_listed(datalist, name) for name in ("training", "validation"))),
    }


def check_plan(parser: Any) -> None:
    """Check that a plan is for this bundle and, in training, for this dataset.

    Weights that were trained with a plan may be evaluated on other data.

    Raises:
        ValueError: If it is for another bundle, or ``dataset.json`` has changed since.
    """
    plan = parser.get_parsed_content("plan") if "plan" in parser.get() else None
    if plan is None:
        return
    bundle = parser.get_parsed_content("bundle")
    if not isinstance(plan, dict) or plan.get("bundle") != bundle:
        made_for = plan.get("bundle") if isinstance(plan, dict) else plan
        raise ValueError(f"This plan is for {made_for}, not for {bundle}; take plan_{bundle}.json.")
    if "training" not in parser.get().get("cases", {}):
        return
    datalist = Path(parser.get_parsed_content("dataset_dir")) / "dataset.json"
    for key, value in planned_data(datalist).items():
        if plan.get(key) != value:
            what = "names other labels" if key == "labels" else "lists other cases, or other files of these,"
            raise ValueError(
                f"{datalist} {what} than when it was planned; plan again: python -m medcontext plan --dataset_dir "
                f"{datalist.parent}"
            )
