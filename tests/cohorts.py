"""Tiny cohorts of any spacing and number of classes, and facts about cases that exist nowhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medcontext.planning.fingerprint import CaseFacts, ChannelFacts, Fingerprint


def write_cohort(
    folder: Path,
    *,
    classes: int = 1,
    cases: int = 3,
    shape: Sequence[int] = (12, 16, 10),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    air: float = -1000.0,
    channels: int = 1,
    **content: Any,
) -> Path:
    """Write cases whose labels are boxes, brighter with their id, in air."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    listed = []
    for number in range(cases):
        label = np.zeros(shape, np.uint8)
        starts = np.linspace(0, shape[1] - 2, classes).astype(int)
        for index, start in enumerate(starts, start=1):
            label[2:-2, start : start + 2, 1:-1] = index
        image = np.where(label, 40.0 + 5 * label, air)[..., None] + rng.normal(0, 2, (*shape, channels))
        affine = np.diag([*spacing, 1.0])
        nib.save(
            nib.Nifti1Image(image.squeeze(-1) if channels == 1 else image, affine), folder / f"case{number}.nii.gz"
        )
        nib.save(nib.Nifti1Image(label, affine), folder / f"label{number}.nii.gz")
        listed.append({"image": f"case{number}.nii.gz", "label": f"label{number}.nii.gz"})
    names = {"0": "background", **{str(index): f"organ {index}" for index in range(1, classes + 1)}}
    (folder / "dataset.json").write_text(json.dumps({"labels": names, "training": listed, **content}))
    return folder


def channel(values: Sequence[float] = (0.0, 100.0), lowest: float = -1000.0, zeros: float = 0.0) -> ChannelFacts:
    """A channel whose foreground has these values, evenly often."""
    quantiles = np.quantile(values, (np.arange(200) + 0.5) / 200).tolist() if values else []
    return ChannelFacts(lowest, zeros, quantiles, float(np.mean(values or [0])), float(np.std(values or [0])))


def facts(
    *,
    name: str = "case",
    shape: Sequence[float] = (10, 10, 10),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    channels: Sequence[ChannelFacts] = (channel(),),
    organs: Mapping[int, Sequence[float]] | None = None,
) -> CaseFacts:
    def triple(values: Sequence[float]) -> tuple[float, float, float]:
        first, second, third = values
        return first, second, third

    extents = {index: triple(extent) for index, extent in (organs or {1: (8.0, 8.0, 8.0)}).items()}
    return CaseFacts(name, triple(shape), triple(spacing), channels, extents)


def fingerprint(
    *cases: CaseFacts,
    channels: Sequence[str] = ("",),
    names: Mapping[int, str] | None = None,
    datalist: Path = Path("dataset.json"),
) -> Fingerprint:
    return Fingerprint(datalist, names or {1: "liver"}, channels, cases)
