from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import MapLabelValued

from medcontext.data import BTCV_LABELS, label_mapping
from medcontext.labels import IGNORED, label_ids, label_names, unannotated_ids

BRATS_2023 = {"0": "background", "1": "non_enhancing_tumor", "2": "edema", "3": "enhancing_tumor"}
DECATHLON = {"edema": 1, "non_enhancing_tumor": 2, "enhancing_tumor": 3}


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    return tmp_path / "dataset.json"


def write(path: Path, labels: Any) -> None:
    path.write_text(json.dumps({"training": [{"image": "a.nii", "label": "b.nii"}], "labels": labels}))


def test_another_edition_of_brats(datalist: Path) -> None:
    write(datalist, BRATS_2023)
    assert label_mapping(datalist, DECATHLON) == [[0, 1, 2, 3], [0, 2, 1, 3]]
    write(datalist, {"0": "background", "1": "non_enhancing_tumor", "2": "edema", "4": "enhancing_tumor"})
    original, target = label_mapping(datalist, DECATHLON)
    mapped = MapLabelValued("label", original, target)({"label": torch.tensor([0, 1, 2, 4])})
    assert mapped["label"].tolist() == [0, 2, 1, 3]


def test_eight_of_thirteen_organs(datalist: Path) -> None:
    write(datalist, {str(index): name for index, name in BTCV_LABELS.items()})
    eight = {"aorta": 1, "gallbladder": 2, "spleen": 3, "left_kidney": 4, "right_kidney": 5}
    eight |= {"liver": 6, "pancreas": 7, "stomach": 8}
    original, target = label_mapping(datalist, eight)
    mapped = MapLabelValued("label", original, target)({"label": np.arange(14)})
    # spleen 1, right kidney 2, left kidney 3, gallbladder 4, esophagus 5, liver 6, stomach 7, aorta 8, …, pancreas 11
    assert mapped["label"].tolist() == [0, 3, 5, 4, 2, 0, 6, 8, 1, 0, 0, 7, 0, 0]


def test_regions_are_unions_of_what_has_a_name(datalist: Path) -> None:
    write(datalist, BRATS_2023)
    regions = {"tumor_core": [2, 3], "whole_tumor": [1, 2, 3], "ET": [3]}
    assert label_mapping(datalist, {**DECATHLON, **regions}) == [[0, 1, 2, 3], [0, 2, 1, 3]]
    with pytest.raises(ValueError, match="labels has 1 in the region 'whole_tumor' but no name for 1 alone"):
        label_mapping(datalist, {"non_enhancing_tumor": 2, "enhancing_tumor": [3], **regions})


def test_two_labels_may_become_one(datalist: Path) -> None:
    write(datalist, BRATS_2023)
    labels = {"edema": 1, "non_enhancing_tumor": 1, "enhancing_tumor": 2}
    assert label_mapping(datalist, labels) == [[0, 1, 2, 3], [0, 1, 1, 2]]


def test_without_names_nothing_is_mapped(datalist: Path) -> None:
    datalist.write_text('{"training": ["a.nii"]}')
    original, target = label_mapping(datalist, {"liver": 2, "both": [1, 2]})
    assert original == target == [0, 1, 2]
    label = torch.tensor([0.0, 1.0, 2.0])
    assert torch.equal(MapLabelValued("label", original, target)({"label": label})["label"], label)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"edemma": 1}, "labels names 'edemma', which dataset.json does not have. Did you mean 'edema'"),
        ({"liver": 1}, "which dataset.json does not have. It has 'background', 'edema', "),
    ],
)
def test_names_that_the_dataset_does_not_have(datalist: Path, labels: dict[str, int], message: str) -> None:
    write(datalist, BRATS_2023)
    with pytest.raises(ValueError, match=message):
        label_mapping(datalist, labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"liver": 1}, "must map ids to names, such as {'1': 'spleen'}, got {'liver': 1}"),
        (["liver"], "must map ids to names"),
        ({"1": "liver", "2": "liver"}, "names several ids 'liver'; give each a name of its own"),
    ],
)
def test_labels_of_another_form(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_names({"labels": labels})


def test_ignored_voxels_are_no_structure(datalist: Path) -> None:
    write(datalist, {**BRATS_2023, "4": "ignore"})
    assert label_mapping(datalist, DECATHLON) == [[0, 1, 2, 3, 4], [0, 2, 1, 3, IGNORED]]
    assert label_names(json.loads(datalist.read_text())) == {int(index): name for index, name in BRATS_2023.items()}
    mapped = MapLabelValued("label", *label_mapping(datalist, DECATHLON))({"label": torch.arange(5.0)})
    assert mapped["label"].tolist() == [0, 2, 1, 3, -1]


@pytest.mark.parametrize("labels", [{"1": "ignore", "2": "liver"}, {"1": "liver", "2": "ignore", "3": "Ignore"}])
def test_the_ignored_id_is_the_highest(labels: dict[str, str], datalist: Path) -> None:
    write(datalist, labels)
    with pytest.raises(ValueError, match="gives 'ignore' the id [12], but ids go up to [23]; its id must be the"):
        label_mapping(datalist, {"liver": 1})


def test_ignored_voxels_are_not_learned() -> None:
    with pytest.raises(ValueError, match="names 'ignore', which stands for voxels that are not learned; leave it out"):
        label_ids({"liver": 1, "ignore": 2})


@pytest.mark.parametrize(("lowest", "expected"), [(0.0, []), (-1.0, []), (-2.0, [1]), (-3.0, [2, 3])])
def test_what_a_value_stands_for(lowest: float, expected: list[int]) -> None:
    assert unannotated_ids(lowest, [[1, 2, 3], [1], [2, 3]]) == expected
    assert unannotated_ids(lowest, []) == []
