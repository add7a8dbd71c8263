"""Choices that are the same for all bundles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medcontext.data import load_cases, load_listed, sided_labels
from medcontext.literals import as_literal
from medcontext.planning.choice import Choice
from medcontext.planning.fingerprint import CaseFacts, ChannelFacts, Fingerprint, Triple
from medcontext.planning.geometry import thickness

__all__ = ["cell_size", "dataset_choices", "training_cases", "validation_cases"]

LEAST_CELL, LARGEST_CELL, PARTS = 2, 8, 4
COMPUTED_TOMOGRAPHY = {"CT", "CTA", "CECT", "NCCT"}
HOUNSFIELD_AIR = -200.0
"""Value that only scans in Hounsfield units fall below."""
EXTREME = 10.0
"""Ratio of voxel edges beyond which a header is more likely wrong than right."""
MOSTLY_ZERO = 0.5


def dataset_choices(fingerprint: Fingerprint) -> list[Choice]:
    """Return what follows from the data alone.

    Raises:
        ValueError: If scans of several modalities are mixed, or the foreground of CT has a single intensity.
    """
    folder = fingerprint.datalist.parent
    name = re.sub(r"[^\w.-]+", "_", folder.resolve().name).strip("._-") or "dataset"
    labels = _labels(fingerprint)
    return [
        Choice("dataset", name, "the folder's name"),
        Choice("dataset_dir", as_literal(str(folder.resolve())), "what was planned", str(folder.resolve())),
        Choice("in_channels", len(fingerprint.channels), "channels of the images"),
        Choice(
            "out_channels", "$medcontext.data.count_classes(@labels)", "background and labels", str(len(labels) + 1)
        ),
        Choice("labels", labels, _why_labels(fingerprint, labels), ", ".join(f"{k} {v}" for k, v in labels.items())),
        Choice("reported", "@labels", "all labels", "all labels"),
        _mirroring(labels),
        intensity(fingerprint),
        validation_cases(fingerprint),
        *_remarks(fingerprint),
    ]


def _labels(fingerprint: Fingerprint) -> dict[str, int]:
    present = {index for case in fingerprint.cases for index in case.organs}
    if not present:
        raise ValueError(f"No case of {fingerprint.datalist} has a labelled voxel; there is nothing to learn from.")
    return {fingerprint.names[index]: number for number, index in enumerate(sorted(present), start=1)}


def _why_labels(fingerprint: Fingerprint, labels: Mapping[str, int]) -> str:
    absent = [name for name in fingerprint.names.values() if name not in labels]
    why = "by name from dataset.json; predictions have these ids"
    return f"{why}; left out, since no case has it: {', '.join(absent)}" if absent else why


def _mirroring(labels: Mapping[str, int]) -> Choice:
    pairs = sided_labels(labels)
    names = "; ".join(" and ".join(pair) for pair in pairs)
    why = (
        f"no axis is mirrored along which sided labels would change places: {names}" if pairs else "no label has a side"
    )
    value = "$medcontext.data.sided_labels(@labels)"
    return Choice("sided_labels", value, why, f"{len(pairs)} pair{'s' * (len(pairs) > 1)}" if pairs else "none")


def intensity(fingerprint: Fingerprint) -> Choice:
    """Return the transform of the intensities: for CT one window for all scans, otherwise a z-score of each scan."""
    named = [name.upper() for name in fingerprint.channels if name]
    if named and all(set(re.split(r"[\W_\d]+", name)) & COMPUTED_TOMOGRAPHY for name in named):
        return _window(fingerprint, f"CT by dataset.json ({', '.join(fingerprint.channels)})")
    if named:
        return _z_score(fingerprint, f"{', '.join(fingerprint.channels)} by dataset.json")
    _refuse_mixture(fingerprint.cases)
    if _is_hounsfield(fingerprint.cases[0]):
        return _window(
            fingerprint, f"taken for CT, since all scans fall below {HOUNSFIELD_AIR:g}; dataset.json says nothing"
        )
    return _z_score(
        fingerprint, f"taken for no CT, since no scan falls below {HOUNSFIELD_AIR:g}; dataset.json says nothing"
    )


def _is_hounsfield(case: CaseFacts) -> bool:
    return all(channel.lowest < HOUNSFIELD_AIR for channel in case.channels)


def _refuse_mixture(cases: Sequence[CaseFacts]) -> None:
    """Raise ValueError if some scans look like CT and others do not."""
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for case in cases:
        kinds[_is_hounsfield(case)].append(case.name)
    if kinds[True] and kinds[False]:
        fewer, others = sorted(kinds.values(), key=len)
        raise ValueError(
            f"Scans of several modalities are mixed: {len(kinds[True])} fall below {HOUNSFIELD_AIR:g} as CT does, "
            f"{len(kinds[False])} do not ({', '.join(fewer[:3])} differ from {others[0]} and its like); list one kind, "
            "or name the modality in dataset.json if they are the same."
        )


def _window(fingerprint: Fingerprint, reason: str) -> Choice:
    """Clip to the foreground's percentiles 0.5 and 99.5 and take z-scores with its mean and standard deviation."""
    channels = [channel for case in fingerprint.cases for channel in case.channels if len(channel.quantiles)]
    low, high = (float(value) for value in np.percentile([c.quantiles for c in channels], (0.5, 99.5)))
    mean, sd = _pooled(channels)
    if not sd or low == high:
        raise ValueError(
            f"All labelled voxels of {fingerprint.datalist} have the value {mean:g} in the images; check that "
            "these are no label maps."
        )
    numbers = {"a_min": low, "a_max": high, "b_min": (low - mean) / sd, "b_max": (high - mean) / sd}
    rounded = {name: float(f"{value:.5g}") for name, value in numbers.items()}
    value = {"_target_": "ScaleIntensityRanged", "keys": "image", **rounded, "clip": True}
    statistics = f"z-scores with their mean {mean:.4g} and standard deviation {sd:.4g}"
    why = f"{reason}; percentiles 0.5 and 99.5 of the labelled voxels, {statistics}"
    return Choice("intensity", value, why, f"clipped to {low:.4g} … {high:.4g}, z-scores")


def _pooled(channels: Sequence[ChannelFacts]) -> tuple[float, float]:
    """Return mean and standard deviation of the foreground, in which each scan counts the same."""
    mean = float(np.mean([channel.mean for channel in channels]))
    square = float(np.mean([channel.sd**2 + channel.mean**2 for channel in channels]))
    return mean, float(np.sqrt(max(square - mean**2, 0.0)))


def _z_score(fingerprint: Fingerprint, reason: str) -> Choice:
    zeros = float(np.median([channel.zeros for case in fingerprint.cases for channel in case.channels]))
    value: dict[str, Any] = {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True}
    if zeros > MOSTLY_ZERO:
        value["nonzero"] = True
        reason += f"; {zeros:.0%} of a scan is exactly 0, and left out"
    each = "each channel of each scan" if len(fingerprint.channels) > 1 else "each scan"
    return Choice("intensity", value, f"{reason}; {each} by itself", "z-score of each scan")


def validation_cases(fingerprint: Fingerprint) -> Choice:
    """Return how many training cases choose the checkpoint."""
    listed = len(load_listed(fingerprint.datalist, "validation"))
    if listed:
        return Choice("validation_cases", 0, f"dataset.json lists {listed} validation cases", f"{listed} listed")
    cases = load_listed(fingerprint.datalist, "training")
    patients = len({case.get("patient", index) for index, case in enumerate(cases)})
    if patients == 1:
        return Choice("validation_cases", 0, "a single case trains; the last moving average becomes the model")
    kind = "patients" if any("patient" in case for case in cases) else "training cases"
    return Choice(
        "validation_cases", max(1, round(patients / 5)), f"a fifth of {patients} {kind} chooses the checkpoint"
    )


def training_cases(fingerprint: Fingerprint, held_out: int) -> int:
    """Return the number of cases of an epoch."""
    return len(load_cases(fingerprint.datalist, "training", num_validation=held_out))


def cell_size(fingerprint: Fingerprint, spacing: Triple, thick: bool) -> tuple[list[int], str]:
    """Return the cells of organ dropout along R, A and S in voxels of a spacing in mm, and the reason for them.

    A cell is a quarter of the median organ, so that it is coarser than the detail of its outline; along thick slices it
    is one slice.
    """
    by_label: dict[int, list[Triple]] = {}
    for case in fingerprint.cases:
        for index, extent in case.organs.items():
            by_label.setdefault(index, []).append(extent)
    organ = np.median([np.median(extents, axis=0) for extents in by_label.values()], axis=0)
    cells = [
        min(max(round(size / edge / PARTS), LEAST_CELL), LARGEST_CELL)
        for size, edge in zip(organ, spacing, strict=True)
    ]
    why = (
        f"a quarter of the median organ ({' × '.join(f'{size:.0f}' for size in organ)} mm right, front, top), "
        f"{LEAST_CELL} to {LARGEST_CELL} voxels"
    )
    if thick:
        cells[int(np.argmax(spacing))] = 1
        why += "; one thick slice"
    return cells, why


def _remarks(fingerprint: Fingerprint) -> list[Choice]:
    """Return what a person should look at before training."""
    extreme = [case for case in fingerprint.cases if thickness(case.spacing) > EXTREME]
    if not extreme:
        return []
    case = max(extreme, key=lambda one: thickness(one.spacing))
    sizes = " × ".join(f"{size:.3g}" for size in case.spacing)
    why = (
        f"voxels of {case.name} are {sizes} mm; if that is not so, correct the headers; if it is, networks of volumes "
        "see little across such slices"
    )
    return [Choice("look at", f"{len(extreme)} cases beyond {EXTREME:g}:1", why, is_key=False)]
