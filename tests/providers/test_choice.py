"""Which options belong to which dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import own_data
from medcontext.providers import prepare_data


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("lits", {}, "dataset must be one of 'btcv', .*'nnunet', 'decathlon', 'folder', got 'lits'"),
        ("nnUNet", {}, "got 'nnUNet'. Did you mean 'nnunet'"),
        ("nnunet", {}, "--dataset nnunet needs --source"),
        ("btcv", {"link": True}, "--dataset btcv needs --source"),
        ("folder", {"images": "i"}, "--dataset folder needs --labels and --modality"),
        (
            "nnunet",
            {"source": "x", "images": "i"},
            "--dataset nnunet does not take --images, but --source, --test_cases",
        ),
        ("nnunet", {"source": "x", "link": True}, "--dataset nnunet does not take --link"),
        ("btcv", {"source": "x", "test_cases": 2}, "--dataset btcv does not take --test_cases, but --source, --link"),
    ],
)
def test_options_that_are_missing_or_of_another(
    dataset: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_data(dataset, tmp_path / "out", **options)


def test_options_that_are_not_given_do_not_count(tmp_path: Path) -> None:
    source = own_data.nnunet(tmp_path / "source")
    options = {"images": None, "link": False, "download": False, "test_cases": 0, "label_names": None}
    assert prepare_data("nnunet", tmp_path / "out", source=source, **options) == tmp_path / "out" / "dataset.json"
