from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from folds import DICE, NAME, changed_json, write_dataset, write_experiment
from medcontext.experiment import CrossValidation, experiment_dir, read_cross_validation


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


@pytest.fixture
def experiment(tmp_path: Path, datalist: Path) -> Path:
    return write_experiment(tmp_path, datalist)


def run_dir(experiment: Path, fold: int) -> Path:
    return experiment.parents[1] / "unetr" / f"mine-unetr-data-baseline-f1-s0-fold{fold}of3"


def read(experiment: Path) -> CrossValidation:
    return read_cross_validation(experiment)


def test_each_case_counts_once_by_the_network_that_did_not_see_it(experiment: Path, datalist: Path) -> None:
    found = read(experiment)
    found.check(str(datalist))
    assert found.name == NAME
    assert [fold.cell.fold for fold in found.folds] == [0, 1, 2]
    assert found.metrics["dice"].tolist() == DICE
    assert set(found.metrics["case"]) == {f"case{number}" for number in range(6)}
    assert found.summary.mean_dice == pytest.approx(0.75)
    assert found.sentence.startswith(f"{NAME}: mean Dice 0.750 (95 % interval 0.6")
    assert found.sentence.endswith("over 6 cases in 3 folds, each segmented by the network that did not train on it.")
    assert found.evidence is not None
    assert found.evidence.cases == 6
    assert found.evidence.largest_components == ["liver"]


def test_files_of_one_name_in_several_folders(experiment: Path) -> None:
    for fold in range(3):
        path = run_dir(experiment, fold) / "evaluation" / "metrics.csv"
        pd.read_csv(path).replace({"case": "case.*"}, "scan", regex=True).drop_duplicates("case").to_csv(path)
    assert read(experiment).metrics["case"].tolist() == ["fold0/scan", "fold1/scan", "fold2/scan"]


def test_without_counts_nothing_is_said_of_components(experiment: Path) -> None:
    (run_dir(experiment, 1) / "models" / "components.csv").unlink()
    assert read(experiment).evidence is None


def with_history(experiment: Path, fold: int, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = run_dir(experiment, fold) / "models" / "history.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)


def test_the_epoch_with_the_best_mean_is_the_budget(experiment: Path) -> None:
    assert read(experiment).budget() == (20, "student_last")  # 0.7, 0.8 and 0.9 on average
    with_history(experiment, 1, lambda table: table.assign(val_mean_dice=0.1))
    assert read(experiment).budget() == (30, "last")  # 0.7 of the average everywhere
    with_history(experiment, 1, lambda table: table[table["epoch"] < 20])
    assert read(experiment).budget() == (10, "last")  # this fold ended early
    for fold in range(3):
        path = run_dir(experiment, fold) / "train_config.json"
        changed_json(path, lambda content: content.update(select_checkpoint="student_best"))
    assert read(experiment).budget() == (10, "student_last")
    for fold in range(3):
        path = run_dir(experiment, fold) / "train_config.json"
        changed_json(path, lambda content: content.update(select_checkpoint="last"))
    assert read(experiment).budget() == (30, "last")


def test_folds_that_choose_no_epoch(experiment: Path) -> None:
    with_history(experiment, 2, lambda table: table[table["epoch"] == 15])
    with pytest.raises(ValueError, match="no epoch has a validation Dice in all folds, .*; take the ensemble"):
        read(experiment).budget()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder) or folder.mkdir(), "holds no cross-validation; run .* with --folds 5"),
        (lambda folder: next(folder.glob("*fold1of3.json")).unlink(), "3folds has no fold 1; run .* with --folds 3"),
        (
            lambda folder: changed_json(next(folder.glob("*fold2of3.json")), lambda one: one.update(state="trained")),
            r"Fold 2 of .*3folds is not finished \(see .*fold2of3\.log\); run the same experiment again",
        ),
        (lambda folder: next(folder.glob("*fold0of3.json")).write_text("{"), "fold0of3.json cannot be read"),
    ],
)
def test_incomplete(experiment: Path, change: Callable[[Path], object], message: str) -> None:
    change(experiment)
    with pytest.raises(ValueError, match=message):
        read(experiment)


def test_one_of_several(experiment: Path) -> None:
    for path in list(experiment.glob("*of3.json")):
        content = json.loads(path.read_text())
        content["cell"]["seed"] = 1
        (experiment / path.name.replace("-s0-", "-s1-")).write_text(json.dumps(content))
    other = NAME.replace("s0", "s1")
    with pytest.raises(ValueError, match=f"holds 2 cross-validations; name one by --cross_validation: {NAME}, {other}"):
        read(experiment)
    assert read_cross_validation(experiment, other).name == other
    with pytest.raises(ValueError, match="holds no cross-validation 'best'; there are mine-"):
        read_cross_validation(experiment, "best")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: changed_json(folder / "train_config.json", lambda one: one.update(learning_rate=0.2)),
            "fold0of3 and .*fold1of3 were trained with different learning_rate; cross-validate again",
        ),
        (
            lambda folder: changed_json(
                folder / "models/model.json", lambda one: one["settings"].update(labels={"lung": 1})
            ),
            "were trained with different labels and cannot be averaged",
        ),
        (lambda folder: (folder / "models/model.json").unlink(), "No model.json beside .*; train the folds again"),
        (
            lambda folder: (folder / "models/model.pt").write_bytes(b"other"),
            "model.pt has changed since it was evaluated, so its Dice is unknown; cross-validate again",
        ),
        (lambda folder: (folder / "evaluation/summary.json").unlink(), "summary.json cannot be read .*; cross-valid"),
    ],
)
def test_folds_that_do_not_belong_together(
    experiment: Path, datalist: Path, change: Callable[[Path], object], message: str
) -> None:
    change(run_dir(experiment, 1))
    with pytest.raises(ValueError, match=message):
        read(experiment).check(str(datalist))


def test_a_dataset_that_has_changed(experiment: Path, datalist: Path) -> None:
    changed_json(datalist, lambda content: content["training"].pop())
    with pytest.raises(ValueError, match=r"dataset\.json has other cases than when .*fold\dof3 was evaluated"):
        read(experiment).check(str(datalist))


def test_the_folder_of_an_experiment(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCONTEXT_HOME", str(experiment.parents[2]))
    assert experiment_dir("mine") == experiment
    with pytest.raises(FileNotFoundError, match="no .*experiments/other; name an experiment that was run with --folds"):
        experiment_dir("other")
