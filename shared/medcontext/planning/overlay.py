"""Plans of a dataset for several bundles, as overlays of their configurations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcontext.bundle import bundle_names, find_bundle, planned_data
from medcontext.faults import explained
from medcontext.planning.budget import budget_of
from medcontext.planning.bundle_choices import bundle_choices
from medcontext.planning.choice import Choice, table
from medcontext.planning.dataset_choices import dataset_choices
from medcontext.planning.fingerprint import read_fingerprint
from medcontext.planning.recipe import Recipe
from medcontext.storage.files import write_file
from medcontext.storage.json_files import json_text

__all__ = ["Plan", "make_plans", "plans_table", "write_plans"]


@dataclass(frozen=True)
class Plan:
    """Settings of one bundle for a dataset.

    Attributes:
        bundle: name of the bundle.
        of_data: choices that are the same for all bundles.
        of_bundle: choices of this bundle.
        made_for: what it depends on, as the key ``plan`` records it.
    """

    bundle: str
    of_data: Sequence[Choice]
    of_bundle: Sequence[Choice]
    made_for: dict[str, Any]

    @property
    def overlay(self) -> dict[str, Any]:
        """Top-level keys of the configuration with their values."""
        choices = [*self.of_data, *self.of_bundle]
        return {"plan": self.made_for, **{choice.setting: choice.value for choice in choices if choice.is_key}}


def make_plans(
    dataset_dir: str | os.PathLike[str], gpu_memory: float | str | None = None, bundles: Sequence[str] | None = None
) -> list[Plan]:
    """Choose the settings of each bundle for a dataset.

    Args:
        dataset_dir: folder with the ``dataset.json``.
        gpu_memory: memory of the GPU to train on in GiB, ``"cpu"``, or ``None`` for this machine.
        bundles: names or folders of bundles, ``None`` for all that are found.

    Raises:
        FileNotFoundError: If there is no such dataset or bundle.
        ValueError: If the budget is no number or too small, or nothing can be planned for the data; the message says
            what to do.
    """
    budget = budget_of(gpu_memory)
    recipes = [Recipe(find_bundle(bundle)) for bundle in (bundle_names() if bundles is None else bundles)]
    if not recipes:
        raise FileNotFoundError("No bundle is found here; give the path of its folder as --bundles.")
    fingerprint = read_fingerprint(dataset_dir)
    of_data = dataset_choices(fingerprint)
    values = {choice.setting: choice.value for choice in of_data}
    made_for = {**planned_data(fingerprint.datalist), "gpu_memory": budget.name}
    return [
        Plan(
            recipe.name,
            of_data,
            bundle_choices(
                fingerprint,
                recipe,
                budget,
                classes=len(values["labels"]) + 1,
                held_out=values["validation_cases"],
            ),
            {"bundle": recipe.name, **made_for},
        )
        for recipe in recipes
    ]


def write_plans(plans: Sequence[Plan], folder: str | os.PathLike[str]) -> list[Path]:
    """Write each plan as ``plan_<bundle>.json``, replacing an earlier one.

    Args:
        plans: plans from :func:`make_plans`.
        folder: folder of the files.

    Raises:
        OSError: If the folder cannot be written to; the message says what to do.
    """
    with explained(lambda error: _unwritable(error, Path(folder))):
        return [
            write_file(Path(folder) / f"plan_{plan.bundle}.json", json_text(plan.overlay).encode()) for plan in plans
        ]


def _unwritable(error: Exception, folder: Path) -> Exception | None:
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or str(error)
    return OSError(f"The plans cannot be written to {folder} ({reason}); give another folder as --output_dir.")


def plans_table(plans: Sequence[Plan]) -> str:
    """Return the choices of all plans with their reasons as text."""
    parts = [table("All bundles:", plans[0].of_data)] if plans else []
    return "\n\n".join([*parts, *(table(f"{plan.bundle}:", plan.of_bundle) for plan in plans)])
