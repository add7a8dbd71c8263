"""Evidence for keeping the largest connected component of a label."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch

from medcontext.metrics import ComponentEvidence, choose_components, component_counts

LABELS = {"heart": 1, "lungs": 2, "aorta": 3}


def one_hot(**voxels: list[int]) -> torch.Tensor:
    """Sixteen voxels in a row, with those of each label."""
    volume = torch.zeros(4, 16, 1, 1)
    for name, places in voxels.items():
        volume[LABELS[name], places] = 1
    volume[0] = 1 - volume[1:].sum(dim=0)
    return volume


def chosen(*pairs: tuple[torch.Tensor, torch.Tensor], reported: Any = None) -> ComponentEvidence:
    rows = [
        {"case": number, **row}
        for number, pair in enumerate(pairs)
        for row in component_counts(
            pair[0], pair[1].argmax(dim=0, keepdim=True), LABELS, LABELS if reported is None else reported
        )
    ]
    return choose_components(pd.DataFrame(rows))


TRUTH = one_hot(heart=[0, 1, 2], lungs=[5, 6, 9, 10])


def test_the_largest_component_is_kept_of_labels_that_gain() -> None:
    island = one_hot(heart=[0, 1, 2, 15], lungs=[5, 6, 9, 10])
    evidence = chosen((island, TRUTH), (TRUTH, TRUTH))
    assert evidence.largest_components == ["heart"]  # one lung less would lose half of both
    assert evidence.cases == 2
    assert evidence.dice["heart"] == {"whole": pytest.approx((6 / 7 + 1) / 2), "largest": 1.0}
    assert evidence.dice["lungs"] == {"whole": 1.0, "largest": pytest.approx(2 / 3)}
    assert all(math.isnan(value) for value in evidence.dice["aorta"].values())  # in no case
    assert evidence.sentence == "Only the largest component is kept of heart (+0.071 Dice), by 2 validation cases."


@pytest.mark.parametrize(
    "prediction",
    [TRUTH, one_hot(), one_hot(heart=[0, 1, 2], lungs=[5, 6, 9, 10], aorta=[12, 14])],
    ids=["no islands", "nothing predicted", "only spurious"],
)
def test_nothing_is_kept_where_nothing_is_gained(prediction: torch.Tensor) -> None:
    evidence = chosen((prediction, TRUTH))
    assert evidence.largest_components == []
    assert evidence.sentence.startswith("No label gains Dice on 1 validation case if")


def test_a_label_that_gains_in_one_case_and_loses_more_in_another() -> None:
    gains = one_hot(heart=[0, 1, 2, 15]), one_hot(heart=[0, 1, 2])
    loses = one_hot(heart=[0, 1, 14, 15]), one_hot(heart=[0, 1, 14, 15])
    assert chosen(gains).largest_components == ["heart"]
    assert chosen(gains, loses).largest_components == []


def test_no_region_may_lose() -> None:
    """The island of one label is part of the region of both."""
    prediction, truth = one_hot(heart=[0, 1, 6], aorta=[4, 5]), one_hot(heart=[0, 1], aorta=[4, 5, 6])
    assert chosen((prediction, truth)).largest_components == ["heart"]
    assert chosen((prediction, truth), reported={"all": [1, 3]}).largest_components == []


def test_labels_are_taken_together_as_long_as_no_region_loses() -> None:
    truth = one_hot(heart=[0, 1, 2], aorta=[6, 7, 8])
    prediction = one_hot(heart=[0, 1, 2, 12], aorta=[6, 7, 8, 14])
    assert chosen((prediction, truth), reported={"all": [1, 3]}).largest_components == ["heart", "aorta"]


def test_what_nobody_annotated_does_not_count() -> None:
    prediction, label = one_hot(heart=[0, 1, 2, 12], lungs=[5, 6, 14]), torch.zeros(1, 16, 1, 1)
    label[0, [0, 1]], label[0, [11, 12, 13]] = 1, -1  # the island of the heart lies in what is ignored
    label[0, [5, 14]] = -2  # background, or lungs
    rows = component_counts(prediction, label, LABELS, {"both": [1, 2]}, unannotated=[[1, 2, 3], [2]])
    assert {row["label"] for row in rows} == {"heart", "aorta"}
    (heart,) = (row for row in rows if row["structure"] == "heart")
    assert (heart["predicted"], heart["predicted_largest"], heart["common"], heart["reference"]) == (3, 3, 2, 2)
