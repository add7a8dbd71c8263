"""Label maps of other tools on two test cases of eight voxels along each axis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medcontext import cli
from medcontext.comparison import TrackedRun
from medcontext.comparison.predictions import score_predictions
from medcontext.data import data_hash, load_cases
from medcontext.data.datalist import hashed_name
from tracked_runs import Store, table, tracked_run

AFFINE = np.diag([-1.5, 1.5, 2.0, 1.0])
PARAMS = {"labels.heart": "1", "labels.lung": "2", "reported.heart": "1", "reported.chest": "[1, 2]"}


def write(path: Path, lung: int = 4, affine: np.ndarray = AFFINE, shape: int = 8, extra: int = 0) -> None:
    """A heart (7) of four slices, and a lung (5) of so many."""
    values = np.zeros((shape, shape, shape), np.uint8)
    values[:, :, :4] = 7
    values[:, :lung, 4:] = 5
    values[0, 0, -1] = extra or 5
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset of two test cases, whose files call heart 7 and lung 5."""
    cases = [{"image": f"case{n}_0000.nii.gz", "label": f"labels/case{n}.nii.gz"} for n in (1, 2)]
    for case in cases:
        write(tmp_path / "data" / case["image"])
        write(tmp_path / "data" / case["label"])
    content = {"labels": {"0": "background", "5": "lung", "7": "heart"}, "test": cases}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    return tmp_path / "data"


def digest(data: Path) -> str:
    return data_hash(load_cases(data / "dataset.json", "test"))


def metrics(heart: float, chest: float, hashed: bool = False) -> Any:
    rows = table({"heart": [heart] * 2, "chest": [chest] * 2})
    names = {"a": "case1_0000", "b": "case2_0000"}
    return rows.assign(case=rows["case"].map({key: hashed_name(n) if hashed else n for key, n in names.items()}))


def run(data: Path, **change: Any) -> TrackedRun:
    params = {**PARAMS, "datalist": str(data / "dataset.json")}
    return tracked_run(**{"metrics": metrics(0.9, 0.8), "params": params, "test": digest(data), **change})


def write_predictions(folder: Path, lung: int = 2, names: tuple[str, ...] = ("case1", "case2"), **change: Any) -> Path:
    for name in names:
        write(folder / f"{name}.nii.gz", lung, **change)
    return folder


@pytest.mark.parametrize("hashed", [False, True])
def test_label_maps_are_measured_as_in_evaluation(data: Path, tmp_path: Path, hashed: bool) -> None:
    folder = write_predictions(tmp_path / "nnunet")
    for name in ("dataset.json", "plans.json", "case1_probabilities.nii.gz"):  # beside predictions of some tools
        (folder / name).touch()
    (others,) = score_predictions([f"nnunet={folder}"], [run(data, metrics=metrics(0.9, 0.8, hashed))])
    (scores,) = others.tables.values()
    # the heart is right; of 256 + 128 voxels of the chest, 64 of the lung are missing
    assert scores.groupby("label")["dice"].first().to_dict() == pytest.approx({"chest": 640 / 704, "heart": 1.0})
    expected = {hashed_name(name) if hashed else name for name in ("case1_0000", "case2_0000")}
    assert set(scores["case"]) == expected
    assert others.mean_dice == pytest.approx((1 + 640 / 704) / 2)
    assert others.interval == pytest.approx((others.mean_dice, others.mean_dice))
    assert scores["assd_mm"].max() > 0


def test_what_nobody_annotated_is_not_measured(data: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "nnunet", lung=8)
    label = nib.load(data / "labels" / "case1.nii.gz")
    values = np.asarray(label.dataobj).copy()
    values[:, 4:, 4:] = 9  # where the prediction has too much
    nib.save(nib.Nifti1Image(values, label.affine), data / "labels" / "case1.nii.gz")
    content = json.loads((data / "dataset.json").read_text())
    content["labels"]["9"], content["test"][1]["unannotated"] = "ignore", ["lung"]
    (data / "dataset.json").write_text(json.dumps(content))
    (others,) = score_predictions([f"nnunet={folder}"], [run(data)])
    (scores,) = others.tables.values()
    dice = scores.pivot(index="case", columns="label", values="dice")
    assert dice.loc["case1_0000"].tolist() == [1, 1]
    assert dice["heart"].tolist() == [1, 1]
    assert np.isnan(dice.loc["case2_0000", "chest"])  # a region with the lung


def test_names_of_the_network_where_files_have_none(data: Path, tmp_path: Path) -> None:
    content = json.loads((data / "dataset.json").read_text())
    del content["labels"]
    content["test"][1]["unannotated"] = ["lung"]
    (data / "dataset.json").write_text(json.dumps(content))
    params = {"labels.heart": "7", "labels.lung": "5", "reported.heart": "7", "reported.chest": "[5, 7]"}
    tracked = run(data, params={**params, "datalist": str(data / "dataset.json")})
    (others,) = score_predictions([f"nnunet={write_predictions(tmp_path / 'nnunet')}"], [tracked])
    dice = others.tables[None].pivot(index="case", columns="label", values="dice")
    assert dice.isna().to_numpy().tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize("ending", ["_0000_seg", "_seg", "_0000"])
def test_names_that_predictions_have(data: Path, tmp_path: Path, ending: str) -> None:
    folder = write_predictions(tmp_path / "mine", names=(f"case1{ending}", f"case2{ending}"))
    (others,) = score_predictions([f"mine={folder}"], [run(data)])
    assert (others.name, others.count("missed"), len(others.tables)) == ("mine", 0, 1)


def test_sets_of_draws_are_compared_with_the_runs_of_their_seeds(data: Path, tmp_path: Path) -> None:
    folders = [write_predictions(tmp_path / f"draw{seed}", lung=4 - seed) for seed in range(2)]
    given = [f"tool@{seed}={folder}" for seed, folder in enumerate(folders)]
    (others,) = score_predictions(given, [run(data)])
    seeds = [others.beside(run(data, seed=seed)) for seed in range(3)]
    assert [None if found is None else found["dice"].min() < 1 for found in seeds] == [False, True, None]
    assert others.beside(run(data, test="others")) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("case1",)}, "there is no label map of case2_0000"),
        ({"names": ()}, "there is no label map of case1_0000, case2_0000"),
        ({"names": ("case1", "case2", "case3")}, "case3.nii.gz belongs to no test case"),
        ({"names": ("case1", "case1_seg", "case2")}, "case1.nii.gz and case1_seg.nii.gz belong to the same case"),
        ({"shape": 6}, r"case1.nii.gz has shape \(6, 6, 6\) instead of \(8, 8, 8\); case2.nii.gz has shape"),
        ({"affine": np.diag([1.5, 1.5, 2.0, 1.0])}, "case1.nii.gz lies 21 mm away from its case .*; case2.nii.gz lies"),
        ({"extra": 3}, "case1.nii.gz holds the values 3, which are no label ids of the dataset; case2.nii.gz holds"),
    ],
)
def test_label_maps_that_do_not_fit_are_listed(
    change: Mapping[str, Any], message: str, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tool"
    folder.mkdir()
    write_predictions(folder, **change)
    with pytest.raises(ValueError, match=f"The predictions tool in .*tool cannot be scored: {message}"):
        score_predictions([f"tool={folder}"], [run(data)])


def test_a_damaged_label_map_is_named(data: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "tool")
    (folder / "case2.nii.gz").write_bytes(b"no volume")
    with pytest.raises(ValueError, match=r"cannot be scored: case2\.nii\.gz cannot be read \("):
        score_predictions([f"tool={folder}"], [run(data)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["tool"], "predictions must be NAME=FOLDER, or NAME@SEED=FOLDER for the draw of a seed, got 'tool'"),
        (["tool=absent"], "there is no folder absent of tool"),
        (["tool=.", "tool=."], "predictions name 'tool' twice"),
        (["tool@1=.", "tool=."], "predictions name 'tool' twice"),
    ],
)
def test_mistakes_in_naming_folders(
    given: list[str], message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        score_predictions(given, [run(data)])


def test_the_test_cases_must_be_those_of_the_runs(data: Path, tmp_path: Path) -> None:
    given = [f"tool={write_predictions(tmp_path / 'tool')}"]
    moved = run(data, params=PARAMS)
    with pytest.raises(ValueError, match="not where they were; give their dataset as --dataset_dir"):
        score_predictions(given, [moved])
    assert len(score_predictions(given, [moved], str(data))) == 1
    with pytest.raises(ValueError, match=f"The test cases of {data} are not those of the runs"):
        score_predictions(given, [run(data, test="other")], str(data))
    both = [run(data), run(data, test="other", tags={"dataset": "acdc"})]
    with pytest.raises(ValueError, match=r"have 2 sets of test cases \(acdc, btcv\); say which with --dataset_dir"):
        score_predictions(given, both)
    assert len(score_predictions(given, both, str(data))) == 1
    with pytest.raises(ValueError, match=r"dataset\.json have other names than in the evaluation of"):
        score_predictions(given, [run(data, metrics=table({"heart": [0.5] * 2}))])
    unnamed = run(data, metrics=metrics(0.9, 0.8).replace("chest", "belly"))
    with pytest.raises(ValueError, match=r"The runs report 'belly', for which dataset\.json has no ids"):
        score_predictions(given, [unnamed])


def test_they_stand_in_page_tables_and_mlflow(
    data: Path, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(database, "others")
    for seed in range(3):
        for mode, dice in (("medcontext", 0.9), ("baseline", 0.8)):
            params = {**PARAMS, "datalist": str(data / "dataset.json")}
            store.log(mode, metrics(dice, dice), seed=seed, params=params, test=digest(data))
    folder, output = write_predictions(tmp_path / "tool", lung=4), tmp_path / "out"
    words = ["--experiment", "others", "--output_dir", str(output), "--tracking_uri", store.uri]
    monkeypatch.setattr("sys.argv", ["medcontext", "compare", *words, "--predictions", f"perfect={folder}"])
    cli.main()
    said = capsys.readouterr().out.splitlines()[-4:-1]
    title = "UNETR on btcv, all training cases (15), 3 seeds"
    assert said == [
        "Predictions perfect: Dice 1.000.",
        f"{title}: Dice of the baseline at equal steps minus that of the predictions perfect: −0.200 (−0.200 to "
        "−0.200).",
        f"{title}: Dice of MedContext minus that of the predictions perfect: −0.100 (−0.100 to −0.100).",
    ]
    content = json.loads((output / "comparison.json").read_text())["predictions"]
    assert [(row["rung"], row["seeds"], round(row["difference"][0], 3)) for row in content] == [
        ("baseline", 3, -0.2),
        ("medcontext", 3, -0.1),
    ]
    assert "Predictions of other tools" in (output / "comparison.html").read_text()
    assert (output / "predictions.csv").read_text().startswith("predictions,seed,case,label,dice")
    (logged,) = store.client.search_runs([store.id], "tags.`medcontext.kind` = 'comparison'")
    assert logged.data.metrics["dice_of_predictions/perfect"] == 1
    difference = logged.data.metrics["difference_medcontext_to_predictions_perfect/unetr_btcv_1"]
    assert difference == pytest.approx(-0.1)
    assert "- Predictions perfect: Dice 1.000." in logged.data.tags["mlflow.note.content"]
