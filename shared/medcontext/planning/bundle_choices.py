"""Choices that depend on the bundle and the budget."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import psutil
import torch

from medcontext.networks.sizes import crop_divisors
from medcontext.planning.budget import Budget
from medcontext.planning.choice import Choice
from medcontext.planning.cost import (
    GIB,
    OPERATIONS_PER_SECOND,
    StepCost,
    check_crop,
    resolved_network,
    step_bytes,
    step_cost,
    step_seconds,
)
from medcontext.planning.crops import Size, crops_of, largest_crop
from medcontext.planning.dataset_choices import cell_size, training_cases
from medcontext.planning.fingerprint import Fingerprint, Triple
from medcontext.planning.geometry import along, is_thick, median_shape, target_spacing
from medcontext.planning.recipe import CPU_KEYS, Recipe

__all__ = ["bundle_choices"]

CPU_VOXELS = 64**3
"""Voxels of the largest crop that a CPU trains on within hours."""
CPU_STEPS = 3000
LEAST_CROPS = 2
"""Crops of a step, fewer of which leave batch normalisation and the loss too noisy."""


class _Planned:
    """The crop and what follows from it, for one bundle."""

    def __init__(self, fingerprint: Fingerprint, recipe: Recipe, budget: Budget, classes: int) -> None:
        self.fingerprint, self.recipe, self.budget, self.classes = fingerprint, recipe, budget, classes
        self.on_cpu = budget.gib is None
        self.spacing, self.why_spacing = target_spacing(fingerprint)
        self.thick = is_thick(self.spacing)
        shape = median_shape(fingerprint, self.spacing)
        self.shape: Triple = along(shape, recipe.orientation)
        self.definition, self.why_network = recipe.network(thick=self.thick, longest=max(shape), on_cpu=self.on_cpu)
        self.optimizer = str((recipe.file("phantom") if self.on_cpu else recipe.train)["optimizer"]["_target_"])
        self.costs: dict[Size, StepCost] = {}
        self.crop = self._largest_crop()
        check_crop(self.network_of(self.crop), self.crop)
        self.crops = self._crops()

    def network_of(self, crop: Size) -> dict[str, Any]:
        return resolved_network(self.definition, len(self.fingerprint.channels), self.classes, crop)

    def bytes_of(self, crop: Size, crops: int = LEAST_CROPS) -> float:
        if crop not in self.costs:
            self.costs[crop] = step_cost(self.network_of(crop), crop)
        return step_bytes(self.costs[crop], crop, crops, self.classes, self.optimizer, half=not self.on_cpu)

    def _largest_crop(self) -> Size:
        crops = crops_of(self.shape, crop_divisors(self.definition))
        if self.budget.gib is None:
            return next((crop for crop in crops if prod(crop) <= CPU_VOXELS), crops[-1])
        crop = largest_crop(crops, self.bytes_of, self.budget.gib * GIB)
        if crop is None:
            least = crops[-1]
            raise ValueError(
                f"gpu_memory {self.budget.name} is too little for {self.recipe.name}: a step with its smallest crop, "
                f"{' × '.join(map(str, least))}, takes about {self.bytes_of(least) / GIB:.1f} GiB; give more, plan for "
                "--gpu_memory cpu, or leave it out of --bundles."
            )
        return crop

    def _crops(self) -> int:
        """Return the crops of a step: those of the recipe, or as many as the memory holds."""
        if self.budget.gib is None:
            return LEAST_CROPS
        counts = range(max(self.recipe.crops, LEAST_CROPS), LEAST_CROPS, -1)
        return next((n for n in counts if self.bytes_of(self.crop, n) <= self.budget.gib * GIB), LEAST_CROPS)

    @property
    def whole(self) -> bool:
        """Whether a crop holds the median scan."""
        return all(size >= length for size, length in zip(self.crop, self.shape, strict=True))


def bundle_choices(
    fingerprint: Fingerprint, recipe: Recipe, budget: Budget, *, classes: int, held_out: int
) -> list[Choice]:
    """Return what a bundle needs for the data within a budget.

    Args:
        fingerprint: the data.
        recipe: the bundle.
        budget: the memory to train in.
        classes: classes, background included.
        held_out: training cases that are held out for validation.

    Raises:
        ValueError: If the network takes no crop that the budget allows.
    """
    planned = _Planned(fingerprint, recipe, budget, classes)
    orientation = recipe.orientation
    cells, why_cells = cell_size(fingerprint, planned.spacing, planned.thick)
    cases = training_cases(fingerprint, held_out)
    batch, samples, why_batch = _batch(planned, cases)
    dropout = {**recipe.train["organ_dropout"], "cell_size": [int(size) for size in along(cells, orientation)]}
    return [
        Choice("orientation", orientation, "axes of this network; spacing and roi_size follow it"),
        Choice("spacing", list(along(planned.spacing, orientation)), f"mm; {planned.why_spacing}"),
        Choice("roi_size", list(planned.crop), _why_crop(planned)),
        Choice(
            "network_def",
            planned.definition,
            planned.why_network,
            str(planned.definition["_target_"]).rpartition(".")[2],
        ),
        Choice("batch_size", batch, why_batch),
        Choice("num_samples", samples, "crops of a scan; half around background, half around labels in turn"),
        *_recipe_keys(planned),
        Choice("organ_dropout", dropout, why_cells, f"cells of {', '.join(map(str, dropout['cell_size']))}"),
        *_lengths(planned, cases, batch),
        *_cache(planned),
        *_estimates(planned, batch * samples),
    ]


def _why_crop(planned: _Planned) -> str:
    shape = " × ".join(f"{length:.0f}" for length in planned.shape)
    limit = (
        f"{CPU_VOXELS} voxels, which a CPU can train on"
        if planned.budget.gib is None
        else f"{planned.budget.gib:g} GiB ({planned.budget.why})"
    )
    divisors = " × ".join(map(str, crop_divisors(planned.definition)))
    reason = "it, rounded up" if planned.whole else f"the largest part of it within {limit}"
    return f"the median scan has {shape} voxels; {reason}, in multiples of {divisors}"


def _batch(planned: _Planned, cases: int) -> tuple[int, int, str]:
    """Return scans of a step, crops of a scan, and the reason."""
    recipe = planned.recipe.train
    batch = planned.crops if planned.whole or recipe["batch_size"] > 1 or planned.on_cpu else 1
    batch = min(batch, cases)
    samples = max(planned.crops // batch, 1)
    return batch, samples, f"scans of a step, {batch * samples} crops in all"


def _recipe_keys(planned: _Planned) -> list[Choice]:
    if not planned.on_cpu:
        return [Choice("sw_batch_size", planned.crops, "windows at once, as many as crops of a step")]
    phantom = planned.recipe.file("phantom")
    shown = {"optimizer": "AdamW"}
    return [Choice(key, phantom[key], "that of phantom.json, for a CPU", shown.get(key)) for key in CPU_KEYS]


def _lengths(planned: _Planned, cases: int, batch: int) -> list[Choice]:
    """Return epochs, and those between validations and saves."""
    steps, validations, saves = (CPU_STEPS, 8, 40) if planned.on_cpu else (planned.recipe.steps, 100, 500)
    epochs = ceil(steps / ceil(cases / batch))
    reason = "what a CPU does in hours" if planned.on_cpu else "as in train.json"
    return [
        Choice("max_epochs", epochs, f"{steps} steps, {reason}, of {cases} training cases an epoch"),
        Choice("val_interval", max(1, epochs // validations), f"{min(validations, epochs)} validations"),
        Choice("checkpoint_interval", max(1, epochs // saves), f"{min(saves, epochs)} saves"),
    ]


def _cache(planned: _Planned) -> list[Choice]:
    """Return the share of the cases that fit into half of this machine's memory, where that is not all."""
    voxels = sum(
        prod(length * edge / to for length, edge, to in zip(case.shape, case.spacing, planned.spacing, strict=True))
        for case in planned.fingerprint.cases
    )
    needed = 4 * voxels * (len(planned.fingerprint.channels) + 1)
    share = psutil.virtual_memory().total / 2 / needed
    if share >= 1:
        return []
    why = (
        f"all cases take {needed / GIB:.0f} GiB, more than half of this machine's memory; cache_dir keeps them on disk"
    )
    return [Choice("cache_rate", round(share, 2), why)]


def _estimates(planned: _Planned, crops: int) -> list[Choice]:
    """Return memory and hours, which are no keys."""
    needed = planned.bytes_of(planned.crop, crops) / GIB
    kind = "main memory" if planned.on_cpu else "GPU memory"
    steps = CPU_STEPS if planned.on_cpu else planned.recipe.steps
    hours, why = _hours(planned, steps, crops)
    return [
        Choice(
            "memory",
            None,
            f"{kind} of a step, counted from the network; data and validation add to it",
            f"about {needed:.1f} GiB",
            False,
        ),
        Choice("time", None, why, f"about {hours:.1f} hours" if hours >= 0.1 else "minutes", False),
    ]


def _hours(planned: _Planned, steps: int, crops: int) -> tuple[float, str]:
    """Return the hours of a training run, and how they are known."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if planned.on_cpu or device == "cuda":
        device = "cpu" if planned.on_cpu else device
        seconds = step_seconds(planned.network_of(planned.crop), planned.crop, crops, device)
        return (
            steps * seconds / 3600,
            f"{steps} steps as one timed here ({seconds:.2g} s), without loading and validation",
        )
    operations = 3 * crops * planned.costs[planned.crop].operations
    seconds = operations / OPERATIONS_PER_SECOND
    return steps * seconds / 3600, (
        f"a rough estimate: {steps} steps of {operations / 1e12:.1f} × 10¹² operations on a GPU that does "
        f"{OPERATIONS_PER_SECOND / 1e12:.0f} × 10¹² a second, without loading and validation"
    )
