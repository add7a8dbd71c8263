"""Finding what is wrong with a dataset before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

__all__ = ["check_cases"]

AFFINE_TOLERANCE = 1e-3  # mm


def check_cases(
    sections: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    in_channels: int,
    labels: Mapping[str, int],
    check_labels: bool = True,
) -> list[str]:
    """All problems of a dataset, one sentence each; an empty list means that it can be trained on.

    Looks for missing and unreadable files, wrong numbers of axes or channels, images and labels of different shape or
    place, label values beyond the declared classes, labels without any class, and cases that stand in two sections.

    Args:
        sections: cases by section name, each with absolute paths under ``image`` and ``label``.
        in_channels: channels that the network takes; more than one are expected as the fourth axis.
        labels: declared foreground classes by name.
        check_labels: read the voxels of the labels too, not only the headers.
    """
    problems: list[str] = []
    seen: dict[str, str] = {}
    allowed = {0, *labels.values()}
    for section, cases in sections.items():
        for case in cases:
            image = case["image"]
            if image in seen:
                problems.append(f"{image} is listed under {seen[image]} and {section}; list each case once.")
            seen[image] = section
            problems += _check_case(case, in_channels, allowed if check_labels else None)
    return problems


def _check_case(case: Mapping[str, str], in_channels: int, allowed: set[int] | None) -> list[str]:
    missing = [
        f"{case[key]} is missing." for key in ("image", "label") if key in case and not Path(case[key]).is_file()
    ]
    if "label" not in case:
        missing.append(f"{case['image']} has no label; add one, or leave the case out.")
    if missing:
        return missing
    try:
        image, label = nib.load(case["image"]), nib.load(case["label"])
    except Exception as error:
        return [f"{case['image']} or its label cannot be read ({error})."]
    problems = _check_geometry(case, image, label, in_channels)
    return problems if problems or allowed is None else _check_values(case["label"], label, allowed)


def _check_geometry(case: Mapping[str, str], image: Any, label: Any, in_channels: int) -> list[str]:
    axes = 3 if in_channels == 1 else 4
    if len(image.shape) != axes or (axes == 4 and image.shape[3] != in_channels):
        expected = "three axes" if axes == 3 else f"four axes, the last with {in_channels} channels"
        return [f"{case['image']} has shape {image.shape}; in_channels {in_channels} asks for {expected}."]
    if image.shape[:3] != label.shape[:3] or len(label.shape) != 3:
        return [f"{case['label']} has shape {label.shape}, its image {image.shape}; they must be of the same grid."]
    if not np.allclose(image.affine, label.affine, atol=AFFINE_TOLERANCE):
        return [f"{case['label']} lies elsewhere than its image (their affines differ); resample it onto the image."]
    return []


def _check_values(path: str, label: Any, allowed: set[int]) -> list[str]:
    try:
        values = set(np.unique(np.asanyarray(label.dataobj)).tolist())
    except Exception as error:
        return [f"{path} cannot be read ({error})."]
    surplus = sorted(values - allowed)
    if surplus:
        shown = ", ".join(f"{value:g}" for value in surplus[:5])
        return [f"{path} holds the values {shown}, which `labels` does not declare; declare or remap them."]
    return [] if values - {0} else [f"{path} holds no labelled voxel; leave the case out."]
