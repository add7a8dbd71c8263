"""From generated cohorts, packed as the providers pack theirs, back to datasets that the bundles train on."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medcontext.data import check_dataset, load_cases
from medcontext.labels import label_names, map_labels
from medcontext.phantoms.cohort import write_phantoms
from medcontext.providers.prepare import prepare_dataset
from phantom_layouts import pack_phantoms

LAYOUTS = {
    "btcv": ["btcv_zip", "btcv_folder"],
    "acdc": ["acdc_zip", "acdc_folder", "acdc_nnunet"],
    "brats": ["brats_msd_tar", "brats_msd_folder", "brats_2021", "brats_2023"],
    "hippocampus": ["hippocampus_msd_tar", "hippocampus_msd_folder"],
}
COHORTS = {
    "btcv": {"num_cases": 2, "size": (32, 32, 32)},
    "acdc": {"num_cases": 6, "size": (32, 32, 4)},
    "brats": {"num_cases": 3, "size": (32, 32, 32)},
    "hippocampus": {"num_cases": 5, "size": (24, 32, 24)},
}
LABELS = {
    "btcv": {"liver": 1, "spleen": 2},
    "acdc": {"left_ventricle": 1, "myocardium": 2},
    "brats": {"edema": 1, "non_enhancing_tumor": 2, "enhancing_tumor": 3},
    "hippocampus": {"posterior": 1, "anterior": 2},
}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohorts")
    for dataset, settings in COHORTS.items():
        write_phantoms(folder / dataset, dataset=dataset, **settings, progress=False)
    return folder


def counts(folder: Path, dataset: str) -> list[list[int]]:
    """Voxels of each learned label in every case, in the order of the volumes' sums."""
    content = json.loads((folder / "dataset.json").read_text())
    ids, learned = map_labels(label_names(content), LABELS[dataset])
    targets = dict(zip(ids, learned, strict=True))
    found = []
    for section in ("training", "validation", "test"):
        for case in load_cases(folder / "dataset.json", section):
            values, numbers = np.unique(np.asarray(nib.load(case["label"]).dataobj), return_counts=True)
            row = [0] * (max(LABELS[dataset].values()) + 1)
            for value, number in zip(values, numbers, strict=True):
                row[targets[int(value)]] += int(number)
            found.append(row)
    return sorted(found)


@pytest.mark.parametrize(("dataset", "layout"), [(name, layout) for name, some in LAYOUTS.items() for layout in some])
def test_what_is_packed_is_prepared(cohorts: Path, tmp_path: Path, dataset: str, layout: str) -> None:
    packed = tmp_path / ("packed" + {"zip": ".zip", "tar": ".tar"}.get(layout.rsplit("_", 1)[-1], ""))
    pack_phantoms(cohorts / dataset, layout, packed)
    output = tmp_path / "prepared"
    datalist = prepare_dataset(dataset, packed, output, allow_missing=True)
    content = json.loads(datalist.read_text())
    labels = {name: index for index, name in label_names(content).items() if index}
    channels = 4 if dataset == "brats" else 1
    assert check_dataset(datalist, in_channels=channels, labels=labels, voxels=True, hashes=True) == []
    assert counts(output, dataset) == counts(cohorts / dataset, dataset)
    scans = json.loads((cohorts / dataset / "dataset.json").read_text()).get("unlabeled", [])
    assert content.get("unlabeled", []) == scans
    assert all((output / scan["image"]).is_file() for scan in scans)
