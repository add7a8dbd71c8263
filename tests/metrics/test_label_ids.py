from __future__ import annotations

from typing import Any

import pytest

from medcontext.labels import label_ids


def test_single_ids_and_regions() -> None:
    assert label_ids({"WT": [1, 2, 3], "ET": 3}) == {"WT": (1, 2, 3), "ET": (3,)}


@pytest.mark.parametrize("labels", [{}, ["spleen"], None])
def test_needs_a_mapping(labels: Any) -> None:
    with pytest.raises(ValueError, match="labels must map names to ids"):
        label_ids(labels)


@pytest.mark.parametrize("name", ["", " ", 1])
def test_names_are_text(name: Any) -> None:
    with pytest.raises(ValueError, match=r"label names must be non-empty text.*name to id"):
        label_ids({name: 1})


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, [], [1, 0], None])
def test_ids_are_positive_integers(value: Any) -> None:
    with pytest.raises(ValueError, match="id of label 'spleen' must be an integer above 0"):
        label_ids({"spleen": value})
