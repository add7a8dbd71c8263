from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hostile import CASE, DATASETS, GOOD
from medcontext.data import case_files, case_name, check_dataset, data_hash, describe_cases, load_cases
from medcontext.data.datalist import cross_validation_folds, write_all_labelled, write_fold
from medcontext.text import printable


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    return write(tmp_path, training=20, test=4)


def write(folder: Path, **counts: int) -> Path:
    content: dict[str, Any] = {
        section: [{"image": f"{section}/img{i}.nii.gz", "label": f"{section}/label{i}.nii.gz"} for i in range(count)]
        for section, count in counts.items()
    }
    path = folder / "dataset.json"
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def names(cases: list[dict[str, Any]]) -> set[str]:
    return {Path(case["image"]).name for case in cases}


def test_paths_are_absolute_and_sections_as_listed(datalist: Path) -> None:
    cases = load_cases(datalist, "training")
    assert len(cases) == 20
    assert cases[3] == {
        "image": str(datalist.parent / "training/img3.nii.gz"),
        "label": str(datalist.parent / "training/label3.nii.gz"),
    }
    assert len(load_cases(datalist, "test")) == 4
    assert load_cases(datalist, "validation") == []


def test_held_out_cases_leave_training_and_never_touch_the_test_cases(datalist: Path) -> None:
    training = load_cases(datalist, "training", num_validation=3, seed=5)
    validation = load_cases(datalist, "validation", num_validation=3, seed=5)
    assert len(training) == 17
    assert len(validation) == 3
    assert not names(training) & names(validation)
    assert all("training" in case["image"] for case in validation)
    assert validation == load_cases(datalist, "validation", num_validation=3, seed=5)
    assert validation != load_cases(datalist, "validation", num_validation=3, seed=6)


def test_listed_validation_cases_take_precedence_over_holding_out(tmp_path: Path) -> None:
    datalist = write(tmp_path, training=5, validation=2, test=1)
    assert len(load_cases(datalist, "training", num_validation=3)) == 5
    assert len(load_cases(datalist, "validation", num_validation=3)) == 2


def test_folds_cover_every_case_once(tmp_path: Path) -> None:
    datalist = write(tmp_path, training=10, validation=2, test=3)
    folds = [load_cases(datalist, "validation", fold=fold, num_folds=4) for fold in range(4)]
    images = [case["image"] for fold in folds for case in fold]
    assert sorted(len(fold) for fold in folds) == [3, 3, 3, 3]
    assert len(set(images)) == 12
    for fold in range(4):
        training = load_cases(datalist, "training", fold=fold, num_folds=4)
        assert {case["image"] for case in training} == set(images) - {case["image"] for case in folds[fold]}


def test_smaller_fractions_are_contained_in_larger_ones(datalist: Path) -> None:
    subsets = [
        names(load_cases(datalist, "training", train_fraction=fraction, num_validation=3, seed=2))
        for fraction in (0.01, 0.1, 0.25, 0.5, 1.0)
    ]
    assert [len(subset) for subset in subsets] == [1, 2, 5, 9, 17]
    for smaller, larger in pairwise(subsets):
        assert smaller < larger
    other = names(load_cases(datalist, "training", train_fraction=0.25, num_validation=3, seed=3))
    assert other != subsets[2]


def test_a_number_of_cases_is_nested_like_a_share(datalist: Path) -> None:
    arguments: dict[str, Any] = {"section": "training", "num_validation": 3, "seed": 2}
    # the three that are held out are labelled too, and count
    subsets = [names(load_cases(datalist, train_cases=count, **arguments)) for count in (4, 5, 8, 20)]
    assert [len(subset) for subset in subsets] == [1, 2, 5, 17]
    assert all(smaller < larger for smaller, larger in pairwise(subsets))
    assert subsets[2] == names(load_cases(datalist, train_fraction=0.25, **arguments))
    validation = names(load_cases(datalist, "validation", num_validation=3, seed=2))
    assert not subsets[3] & validation


@pytest.mark.parametrize("chosen", [{"train_cases": 8}, {"train_fraction": 0.25}])
def test_the_rest_is_what_a_subset_leaves_out(datalist: Path, chosen: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"num_validation": 3, "seed": 2}
    training = names(load_cases(datalist, "training", **arguments, **chosen))
    rest = names(load_cases(datalist, "rest", **arguments, **chosen))
    validation = names(load_cases(datalist, "validation", **arguments))
    assert (len(training), len(rest), len(validation)) == (5, 12, 3)
    assert not training & rest
    assert not rest & validation
    assert training | rest == names(load_cases(datalist, "training", **arguments))
    assert load_cases(datalist, "rest", **arguments) == []


def test_cases_of_a_fold_are_no_extra_labels(datalist: Path) -> None:
    assert len(load_cases(datalist, "training", fold=0, num_validation=3, train_cases=2)) == 2


# --- folds and lists of other programs ---


def write_folds(folder: Path, folds: list[Any], **content: Any) -> Path:
    cases = [{"image": f"img{i}.nii", "label": f"label{i}.nii", "fold": fold} for i, fold in enumerate(folds)]
    listed = [{key: value for key, value in case.items() if value != "none"} for case in cases]
    (folder / "dataset.json").write_text(json.dumps({"training": listed, **content}))
    return folder / "dataset.json"


def test_folds_that_the_file_gives_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datalist = write_folds(tmp_path, [0, 1, 2, 0, 1])
    assert names(load_cases(datalist, "validation", fold=0, num_validation=2)) == {"img0.nii", "img3.nii"}
    assert names(load_cases(datalist, "training", fold=0)) == {"img1.nii", "img2.nii", "img4.nii"}
    assert names(load_cases(datalist, "validation", fold=2)) == {"img2.nii"}
    assert caplog.text == ""
    assert len(load_cases(datalist, "training", num_validation=2)) == 3
    assert "gives folds to its training cases, but fold is null; give --fold to use one" in caplog.text


@pytest.mark.parametrize(
    ("folds", "content", "message"),
    [
        ([0, 1, 2], {}, r"fold must be one of two or more that .* gives to its training cases \(0, 1, 2\), got 3"),
        ([3, 3, 3], {}, r"fold must be one of two or more that .* gives to its training cases \(3\), got 3"),
        ([0, 1, "none"], {}, "give each of them one, a whole number, and list no validation cases beside them"),
        ([0, 1, True], {}, "give each of them one, a whole number"),
        ([0, 1, "2"], {}, "give each of them one, a whole number"),
        ([0, 3, 3], {"validation": [{"image": "a", "label": "b"}]}, "list no validation cases beside them"),
    ],
)
def test_folds_that_cannot_be_taken(tmp_path: Path, folds: list[Any], content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_cases(write_folds(tmp_path, folds, **content), "training", fold=3)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("val", "call it 'validation'"),
        ("train", "call it 'training'"),
        ("testing", "call it 'test' if the cases have labels, else 'unlabeled'"),
    ],
)
def test_lists_under_names_that_are_not_read(tmp_path: Path, name: str, advice: str) -> None:
    datalist = write_folds(tmp_path, [0, 1], **{name: [{"image": "a", "label": "b"}]})
    with pytest.raises(ValueError, match=f"dataset.json lists cases under '{name}', which is not read; {advice}"):
        load_cases(datalist, "training")


@pytest.mark.parametrize(
    ("image", "name"),
    [(["a_0000.nii.gz", "a_0001.nii.gz"], "a"), ("a_0000.nii.gz", "a_0000"), (["a_t1.nii", "a_t2.nii"], "a_t1")],
)
def test_names_of_cases_have_no_number_of_a_channel(image: Any, name: str) -> None:
    assert case_name({"image": image}) == name


# --- patients ---


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Ten patients to train on, of two cases each."""
    cases = [
        {"image": f"p{i}_{j}.nii", "label": f"p{i}_{j}_gt.nii", "patient": f"p{i}"} for i in range(10) for j in "ab"
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": cases}))
    return tmp_path / "dataset.json"


def seen(cases: list[dict[str, Any]]) -> list[str]:
    return [case["patient"] for case in cases]


def test_patients_are_never_divided_and_small_subsets_nested(patients: Path) -> None:
    # 10 % of 10 patients is one, with both cases
    subsets = [seen(load_cases(patients, "training", train_fraction=share)) for share in (0.1, 0.2, 0.4, 1.0)]
    assert [len(subset) for subset in subsets] == [2, 4, 8, 20]
    assert all(subset.count(patient) == 2 for subset in subsets for patient in subset)
    assert all(set(smaller) < set(larger) for smaller, larger in pairwise(subsets))
    assert seen(load_cases(patients, "training", train_cases=4)) == subsets[2]


def test_patients_are_held_out_and_folded_whole(patients: Path) -> None:
    training = seen(load_cases(patients, "training", num_validation=3))
    validation = seen(load_cases(patients, "validation", num_validation=3))
    assert (len(set(training)), len(set(validation))) == (7, 3)
    assert not set(training) & set(validation)
    folds = [seen(load_cases(patients, "validation", fold=fold, num_folds=5)) for fold in range(5)]
    assert [len(fold) for fold in folds] == [4] * 5
    assert sorted(set().union(*folds)) == [f"p{i}" for i in range(10)]
    assert not set(folds[0]) & set(seen(load_cases(patients, "training", fold=0, num_folds=5)))
    with pytest.raises(ValueError, match="validation_cases 10 cannot be held out of 10"):
        load_cases(patients, "training", num_validation=10)


# --- images of several files ---


def test_images_of_several_files(tmp_path: Path) -> None:
    case = {"image": ["a_t1.nii", "a_t2.nii"], "label": "a_seg.nii"}
    (tmp_path / "dataset.json").write_text(json.dumps({"test": [case]}))
    for file in (*case["image"], case["label"]):
        (tmp_path / file).write_bytes(b"x")
    (loaded,) = load_cases(tmp_path / "dataset.json", "test")
    files = [str(tmp_path / file) for file in case["image"]]
    assert loaded == {"image": files, "label": str(tmp_path / "a_seg.nii")}
    assert case_files(loaded) == [*files, str(tmp_path / "a_seg.nii")]
    assert case_name(loaded) == "a_t1"
    before = data_hash([loaded])
    (tmp_path / "a_t2.nii").write_bytes(b"longer")
    assert data_hash([loaded]) != before


@pytest.mark.parametrize(
    "case",
    [
        {"img": "a.nii"},
        {"image": []},
        {"image": ["a.nii", 1]},
        {"image": "a", "label": None},
        {"image": "a", "label": ["b"]},
        5,
    ],
)
def test_cases_of_another_form(tmp_path: Path, case: Any) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [case]}))
    with pytest.raises(ValueError, match="A case must give a path under 'image' .*, got"):
        load_cases(tmp_path / "dataset.json", "training")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"section": "train"},
            "section must be one of 'training', 'validation', 'test', 'rest', got 'train'. Did you mean 'training'",
        ),
        ({"train_fraction": 0}, r"train_fraction must lie in \(0, 1\], got 0"),
        ({"train_fraction": 1.5}, r"train_fraction must lie in \(0, 1\], got 1.5"),
        ({"train_cases": 0}, "train_cases must be at least 1, got 0: .* or null for all"),
        ({"train_cases": 2.5}, "train_cases must be an integer, got 2.5: .* or null for all"),
        (
            {"train_cases": 21, "num_validation": 3},
            "train_cases must be from 4 to 20, all labelled cases .*, 3 of them for validation .*, got 21",
        ),
        ({"train_cases": 3, "num_validation": 3}, "train_cases must be from 4 to 20, .* got 3"),
        ({"train_cases": 21}, "train_cases must be from 1 to 20, all labelled cases that there are, got 21"),
        ({"train_cases": 2, "train_fraction": 0.5}, "train_cases 2 and train_fraction 0.5 both choose .*; give one"),
        ({"fold": 5}, "fold must be within 0..4"),
        ({"fold": 0, "num_folds": 1}, "num_folds within 2..20"),
        ({"num_validation": 20}, "validation_cases 20 cannot be held out of 20 training cases"),
    ],
)
def test_arguments(datalist: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        load_cases(datalist, **{"section": "training", **arguments})


@pytest.mark.parametrize("content", ["{", "[]", '{"training": []}'])
def test_files_that_are_no_datalist(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match="not valid JSON|must be an object with lists of cases"):
        load_cases(tmp_path / "dataset.json", "training")


def test_missing_datalist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no .*dataset.json"):
        load_cases(tmp_path / "dataset.json", "training")


def test_hash_changes_with_cases_sections_and_contents(tmp_path: Path) -> None:
    cases = []
    for i in range(3):
        (tmp_path / f"{i}.nii").write_bytes(b"x" * i)
        cases.append({"image": str(tmp_path / f"{i}.nii")})
    hashes = {data_hash(cases), data_hash(cases[:2]), data_hash(cases[:2], cases[2:]), data_hash(cases[:1], cases[1:])}
    assert len(hashes) == 4
    assert data_hash(cases) == data_hash(list(cases))
    before = data_hash(cases)
    (tmp_path / "1.nii").write_bytes(b"longer")
    assert data_hash(cases) != before


def test_cases_are_described_by_hashes_unless_names_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "img1.nii.gz").touch()
    cases = [{"image": str(tmp_path / "img1.nii.gz")}]
    named = describe_cases({"training": cases, "validation": []}, names=True)
    assert named == {"training": {"hash": data_hash(cases), "cases": ["img1"]}}
    # printf img1 | sha256sum
    assert describe_cases({"test": cases})["test"]["cases"] == ["d7bdd545f09d"]


def test_a_fold_takes_the_place_of_the_test_cases(tmp_path: Path) -> None:
    datalist = write(tmp_path / "data", training=8, validation=2, test=3)
    content = json.loads(datalist.read_text())
    datalist.write_text(json.dumps({**content, "labels": {"1": "spleen"}, "unlabeled": ["more/a.nii.gz"]}))
    tested: list[str] = []
    for fold in range(5):
        path = write_fold(datalist, tmp_path / "home", fold)
        training, validation, test = (load_cases(path, name) for name in ("training", "validation", "test"))
        assert len(test) == 2
        assert validation == []
        assert names(training) | names(test) == {f"img{i}.nii.gz" for i in range(8)}
        assert len(training) == 8
        assert all(Path(case["image"]).parent.name != "test" for case in training + test)
        tested += [case["image"] for case in test]
        written = json.loads(Path(path).read_text())
        assert written["labels"] == {"1": "spleen"}
        assert written["unlabeled"] == [{"image": str(datalist.parent / "more" / "a.nii.gz")}]
    assert len(set(tested)) == 10
    with pytest.raises(ValueError, match=r"fold must be within 0\.\.4"):
        write_fold(datalist, tmp_path / "home", 5)


@pytest.mark.parametrize("seed", [0, 3])
def test_every_case_is_in_one_fold_of_a_cross_validation(tmp_path: Path, seed: int) -> None:
    datalist = write(tmp_path / "data", training=5, validation=2, test=3)
    folds = cross_validation_folds(datalist, 3, seed)
    assert sorted(len(cases) for cases in folds) == [2, 2, 3]
    labelled = load_cases(write_all_labelled(datalist, tmp_path), "training")
    assert sorted(case["image"] for cases in folds for case in cases) == sorted(case["image"] for case in labelled)
    assert (folds == cross_validation_folds(datalist, 3, 0)) == (seed == 0)
    files = [write_fold(datalist, tmp_path, fold, 3, seed) for fold in range(3)]
    assert [load_cases(file, "test") for file in files] == folds
    inner = write_fold(files[0], tmp_path, 0, 2)  # of what is left when a fold stands in for the test cases
    assert len({*files, inner}) == 4
    left = {case["image"] for cases in folds[1:] for case in cases}
    assert {case["image"] for case in load_cases(inner, "test")} < left


def test_folds_that_a_dataset_gives_its_cases(tmp_path: Path) -> None:
    cases = [{"image": f"img{i}.nii.gz", "label": f"label{i}.nii.gz", "fold": i % 3} for i in range(6)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": cases}))
    datalist = tmp_path / "dataset.json"
    folds = cross_validation_folds(datalist, 3)
    assert [names(cases) for cases in folds] == [{f"img{i}.nii.gz", f"img{i + 3}.nii.gz"} for i in range(3)]
    with pytest.raises(
        ValueError, match="gives its training cases the folds 0, 1, 2; number them from 0, .* not for 5"
    ):
        cross_validation_folds(tmp_path / "dataset.json", 5)
    assert not any(
        "fold" in case for case in load_cases(write_all_labelled(tmp_path / "dataset.json", tmp_path), "training")
    )


def test_more_folds_than_cases(tmp_path: Path) -> None:
    datalist = write(tmp_path, training=4)
    with pytest.raises(ValueError, match="There are 4 cases for 5 folds; choose fewer folds"):
        cross_validation_folds(datalist, 5)


@pytest.mark.parametrize(("change", "said"), DATASETS)
def test_a_hostile_dataset_is_refused_in_one_sentence(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    GOOD.write(tmp_path / "good.nii.gz")
    content = {"labels": {"0": "background", "1": "spleen"}, "training": [CASE], "test": [CASE]} | change
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(said)) as refusal:
        check_dataset(tmp_path / "dataset.json", in_channels=1, labels={"spleen": 1})
    assert printable(str(refusal.value)) == str(refusal.value)
