"""Whether keeping only the largest connected component of a label raises its Dice, after nnU-Net's postprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from monai.transforms import KeepLargestConnectedComponent

from medcontext.labels import IGNORED, Labels, label_ids, unannotated_ids

__all__ = ["ComponentEvidence", "choose_components", "component_counts"]

COUNTS = ("predicted", "common")
"""Counts of voxels that depend on whether only the largest component is kept."""


@dataclass(frozen=True)
class ComponentEvidence:
    """Labels of which only the largest component is kept, and why.

    Attributes:
        largest_components: names of these labels, none where nothing is gained.
        cases: number of cases that decided.
        dice: mean Dice of each label over the cases in which it counts, of the ``whole`` prediction and of its
            ``largest`` component; NaN if it counts in none.
    """

    largest_components: list[str]
    cases: int
    dice: dict[str, dict[str, float]]

    @property
    def sentence(self) -> str:
        """What was chosen, in words."""
        cases = f"{self.cases} validation case{'s' if self.cases > 1 else ''}"
        gains = {name: self.dice[name]["largest"] - self.dice[name]["whole"] for name in self.largest_components}
        if not gains:
            return f"No label gains Dice on {cases} if only its largest component is kept."
        kept = ", ".join(f"{name} ({gain:+.3f} Dice)" for name, gain in gains.items())
        return f"Only the largest component is kept of {kept}, by {cases}."


def component_counts(
    prediction: torch.Tensor,
    label: torch.Tensor,
    labels: Labels,
    reported: Labels,
    unannotated: Sequence[Sequence[int]] = (),
) -> list[dict[str, Any]]:
    r"""Count the voxels of each predicted label and of its largest component.

    Args:
        prediction: one-hot (C, \*spatial).
        label: the reference, a label map (1, \*spatial).
        labels: names with one id each; regions are ignored.
        reported: labels and regions, unions of labels, that must not lose.
        unannotated: what values below -1 of a label map stand for, from :func:`medcontext.data.unannotated_labels`.

    Returns:
        For each annotated label a row for itself and for each region that it is part of, under ``label`` and
        ``structure``: ``predicted`` and ``predicted_largest`` are the label's voxels, ``common`` and
        ``common_largest`` those in the reference of the structure, and ``reference`` all voxels of that. Voxels to
        ignore do not count.

    Example:
        >>> volume = torch.tensor([[0, 0, 1, 0], [1, 1, 0, 1]])[:, :, None, None]
        >>> (row,) = component_counts(volume, volume[1:], {"liver": 1}, {"liver": 1})
        >>> row["predicted"], row["predicted_largest"], row["reference"]
        (3, 2, 3)
    """
    singles = {name: ids[0] for name, ids in label_ids(labels).items() if len(ids) == 1}
    structures = {**{name: (index,) for name, index in singles.items()}, **label_ids(reported)}
    left_out = set(unannotated_ids(float(label.min()), unannotated))
    whole, known = prediction.bool(), label[0] != IGNORED
    largest = KeepLargestConnectedComponent(list(singles.values()), is_onehot=True)(whole.clone()).bool()
    rows = []
    for structure, ids in structures.items():
        if left_out & set(ids):
            continue
        reference = torch.isin(label[0], label.new_tensor(ids))
        for name in (name for name, index in singles.items() if index in ids):
            masks = {"": whole[singles[name]] & known, "_largest": largest[singles[name]] & known}
            counts = {f"predicted{end}": int(mask.sum()) for end, mask in masks.items()}
            counts |= {f"common{end}": int((mask & reference).sum()) for end, mask in masks.items()}
            rows.append({"label": name, "structure": structure, **counts, "reference": int(reference.sum())})
    return rows


def choose_components(counts: pd.DataFrame) -> ComponentEvidence:
    """Choose the labels whose mean Dice rises if only the largest component is kept, while that of no other falls.

    The label that gains most is taken first.

    Args:
        counts: rows of :func:`component_counts` with a column ``case``.

    Example:
        >>> row = {"case": "a", "label": "liver", "structure": "liver", "reference": 100}
        >>> row |= {"predicted": 120, "predicted_largest": 100, "common": 90, "common_largest": 90}
        >>> choose_components(pd.DataFrame([row])).largest_components
        ['liver']
    """
    labels = list(dict.fromkeys(counts["label"]))
    whole, largest = _mean_dice(counts, []), _mean_dice(counts, labels)
    gains, kept = (largest - whole)[labels], list[str]()
    for name in gains[gains > 0].sort_values(ascending=False).index:
        before, after = _mean_dice(counts, kept), _mean_dice(counts, [*kept, name])
        if not (after < before - 1e-12).any():
            kept.append(name)
    dice = {name: {"whole": float(whole[name]), "largest": float(largest[name])} for name in labels}
    return ComponentEvidence([name for name in labels if name in kept], counts["case"].nunique(), dice)


def _mean_dice(counts: pd.DataFrame, kept: Sequence[str]) -> pd.Series:
    """Return the mean Dice of each structure over the cases in which it counts, with the largest components of some."""
    is_kept = counts["label"].isin(kept)
    chosen = counts.assign(**{name: counts[name].mask(is_kept, counts[f"{name}_largest"]) for name in COUNTS})
    sums = chosen.groupby(["case", "structure"], sort=False).agg({**dict.fromkeys(COUNTS, "sum"), "reference": "first"})
    dice = 2 * sums["common"] / (sums["predicted"] + sums["reference"])  # 0 / 0 is NaN: absent from both
    means: pd.Series = dice.groupby("structure", sort=False).mean()
    return means
