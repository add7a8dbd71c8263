"""A dataset in which voxels are ignored and cases lack structures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medcontext import cli
from medcontext.data import check_dataset, data_hash, errors_of, load_cases, unannotated_labels

LABELS = {"liver": 1, "spleen": 2, "aorta": 3}
NAMES = {"0": "background", "1": "liver", "2": "spleen", "3": "aorta"}
Entries = list[dict[str, Any]]


def write(folder: Path, entries: Entries, labels: dict[str, str] = NAMES, values: tuple[int, ...] = (0, 1)) -> Path:
    """Cases with maps of the given values, all for training but the last."""
    for number, entry in enumerate(entries):
        entry |= {"image": f"image{number}.nii", "label": f"label{number}.nii"}
        image = np.full((4, 4, 4), number, np.int16)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / entry["image"])
        label = np.resize(np.array(values, np.uint8), image.shape)
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / entry["label"])
    content = {"modality": {"0": "CT"}, "labels": labels, "training": entries[:-1], "test": entries[-1:]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


def test_a_value_for_each_set_of_structures(tmp_path: Path) -> None:
    entries: Entries = [{"unannotated": ["aorta"]}, {}, {"unannotated": ["spleen", "aorta"]}, {"unannotated": []}]
    datalist = write(tmp_path, entries)
    assert unannotated_labels(datalist, LABELS) == [[1, 2, 3], [2, 3], [3]]
    assert unannotated_labels(datalist, {"spleen": 1}) == [[1], [1]]  # the aorta is background to this network
    assert unannotated_labels(datalist, {"liver": 1}) == [[1]]


def test_ignored_voxels_alone(tmp_path: Path) -> None:
    assert unannotated_labels(write(tmp_path, [{}, {}]), LABELS) == []
    ignoring = write(tmp_path, [{}, {}], {**NAMES, "4": "ignore"})
    assert unannotated_labels(ignoring, LABELS) == [[1, 2, 3]]


def test_what_is_annotated_is_part_of_the_data(tmp_path: Path) -> None:
    cases = load_cases(write(tmp_path, [{}, {}, {}]), "training")
    changed = load_cases(write(tmp_path, [{}, {"unannotated": ["spleen"]}, {}]), "training")
    assert data_hash(cases) == data_hash([{**case, "unannotated": []} for case in cases]) != data_hash(changed)


def errors(datalist: Path) -> list[str]:
    return [str(problem) for problem in errors_of(check_dataset(datalist, in_channels=1, labels=LABELS))]


def test_sound_cases(tmp_path: Path) -> None:
    datalist = write(tmp_path, [{}, {"unannotated": ["spleen"]}, {}], {**NAMES, "4": "ignore"}, (0, 1, 4))
    assert errors(datalist) == []


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (
            ["splen"],
            (0, 1),
            "image0 lists 'splen' as unannotated, which dataset.json does not name. Did you mean 'spl",
        ),
        (["kidney"], (0, 1), "does not name. It has 'liver', 'spleen', 'aorta'."),
        (["liver", "spleen", "aorta"], (0,), "image0 lists all structures as unannotated; list its image under 'unlab"),
        (["aorta", "aorta"], (0, 1), "image0 lists a structure twice as unannotated (aorta, aorta); list each once."),
        (["liver"], (0, 1), "label0.nii holds liver, which its entry lists as unannotated; take the name out of the"),
        ([], (4,), "label0.nii holds nothing but ignored voxels; list the image under 'unlabeled' instead."),
        ([], (0, 5), "label0.nii holds the values 5, which `labels` does not declare"),
    ],
)
def test_entries_that_contradict_the_data(
    names: list[str], values: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    found = errors(write(tmp_path, [{"unannotated": names}, {}], {**NAMES, "4": "ignore"}, values))
    assert message in found[0], found


@pytest.mark.parametrize("given", ["spleen", [2], {"spleen": 2}])
def test_names_in_another_form(given: Any, tmp_path: Path) -> None:
    datalist = write(tmp_path, [{"unannotated": given}, {}])
    with pytest.raises(ValueError, match="image0 gives .* as 'unannotated'; give a list of the structures"):
        load_cases(datalist, "training")


def test_a_structure_that_no_training_case_has_annotated(tmp_path: Path) -> None:
    datalist = write(tmp_path, [{"unannotated": ["spleen"]}, {"unannotated": ["spleen", "aorta"]}, {}])
    (problem,) = check_dataset(datalist, in_channels=1, labels=LABELS)
    assert problem.is_warning
    assert str(problem).startswith("No training case has spleen annotated, so it cannot be learned; leave it out")


def test_check_says_how_many_cases_a_structure_rests_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, [{}, {"unannotated": ["spleen"]}, {"unannotated": ["spleen", "aorta"]}])
    cli.check(str(tmp_path))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "spleen is annotated in 1 of 3 cases",
        "aorta is annotated in 2 of 3 cases",
    ]
