from __future__ import annotations

import csv
import json
import math
import os
import time
import uuid
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from medcontext import cli
from medcontext.comparison import Comparison, Draw, Rung, compare_group, compare_runs, write_comparison
from medcontext.comparison.store import default_tracking_uri
from medcontext.comparison.tracking import log_comparison
from tracked_runs import Store, table, tracked_run

HALF = 4.302653 * 0.01 / math.sqrt(3)  # three seeds that differ by 0.01, and cases that do not


def comparisons(store: Store) -> list[Any]:
    runs = store.client.search_runs([store.id], "tags.`medcontext.kind` = 'comparison'")
    return sorted(runs, key=lambda run: run.info.start_time)


def test_verdicts_of_known_effects(comparison: Comparison) -> None:
    assert {tuple(group.values.values()): group.verdict for group in comparison.groups} == {
        ("unetr", "btcv", "0.25"): "hurts",
        ("unetr", "btcv", "1"): "helps",
    }
    assert comparison.groups[0].sentence == (
        "UNETR on btcv, 25 % of the training cases (4), 3 seeds: hurts. MedContext is ahead of the baseline at equal "
        "steps by 0.100 (0.075 to 0.125), patch dropout by 0.090 (0.065 to 0.115) and masking only by 0.080 (0.055 to "
        "0.105), and behind the baseline at equal time by 0.050 (0.025 to 0.075). With unlabelled scans: helps. "
        "MedContext with unlabelled scans is ahead of the baseline at equal time by 0.150 (0.150 to 0.150), MedContext "
        "by 0.200 (0.175 to 0.225) and pseudo-labels by 0.220 (0.220 to 0.220). MedContext with unlabelled scans "
        "carries the gain, +0.150 (+0.150 to +0.150) over the baseline at equal time; patch dropout adds +0.010 "
        "(+0.010 to +0.010) over the baseline at equal time; masking only adds +0.010 (+0.010 to +0.010) over patch "
        "dropout at equal time; MedContext is not worth its cost, −0.050 (−0.075 to −0.025) over the baseline at equal "
        "time, where a step takes 2.33 times as long; pseudo-labels is not worth its cost, −0.070 (−0.070 to −0.070) "
        "over the baseline at equal time, where a step takes 4.67 times as long."
    )


def test_files(comparison: Comparison, output: Path) -> None:
    assert sorted(path.name for path in output.iterdir()) == [
        "comparison.csv",
        "comparison.html",
        "comparison.json",
        "differences_unetr_btcv_0.25.png",
        "differences_unetr_btcv_1.png",
        "differences_unlabeled_unetr_btcv_0.25.png",
        "few_shot_unetr_btcv.png",
        "label_efficiency.csv",
        "ladder.csv",
        "ladder_unetr_btcv_0.25.png",
        "ladder_unetr_btcv_1.png",
        "overview.png",
        "runs.csv",
    ]
    for path in output.glob("*.png"):
        picture = np.asarray(Image.open(path).convert("L"))
        assert picture.shape[1] > 600
        assert picture.std() > 10


def test_table_of_differences(comparison: Comparison, output: Path) -> None:
    rows = pd.read_csv(output / "comparison.csv", dtype={"train_fraction": str})
    assert len(rows) == (4 + 4 + 3) * 3  # controls of two groups and of unlabelled scans, two classes and their mean
    assert rows.columns[:6].tolist() == ["architecture", "dataset", "train_fraction", "run", "control", "pairs"]
    row = rows.set_index(["train_fraction", "control", "class"]).loc[("1", "baseline at equal time", "right_kidney")]
    assert row["difference"] == pytest.approx(0.05)
    assert (row["low"], row["high"]) == pytest.approx((0.05 - HALF, 0.05 + HALF), abs=1e-5)
    assert (row["pairs"], row["seeds"], row["cases"]) == (3, 3, 5)
    assert math.isnan(row["p"])  # five cases
    mean = rows.set_index(["train_fraction", "control", "class"]).loc[("1", "masking only", "mean of the classes")]
    assert (mean["p"], mean["verdict"]) == (2 / 64, "helps")


def test_table_of_the_ladder(comparison: Comparison, output: Path) -> None:
    rows = pd.read_csv(output / "ladder.csv", dtype={"train_fraction": str}).set_index(["train_fraction", "rung"])
    assert rows.loc["1"].index.tolist() == [
        *("baseline", "baseline_equal_time", "patch_dropout", "masking_only", "medcontext"),
    ]
    assert rows.loc["0.25"].index.tolist()[5:] == ["pseudo_labels", "medcontext_unlabeled"]
    ours = rows.loc[("1", "medcontext")]
    assert ours[["runs", "mean_dice", "steps"]].tolist() == [3, 0.7, 300]
    assert ours["step_cost"] == pytest.approx(7 / 3, abs=1e-5)
    assert ours[["over_below_steps_rung", "over_below_time_rung"]].tolist() == ["masking_only", "baseline_equal_time"]
    bounds = [f"over_below_steps{ending}" for ending in ("", "_low", "_high", "_seeds")]
    assert ours[bounds].tolist() == pytest.approx([0.08, 0.08 - HALF, 0.08 + HALF, 3], abs=1e-5)
    assert ours["over_baseline_time"] == pytest.approx(0.05)
    assert rows.loc[("1", "baseline_equal_time"), "mean_dice"] == pytest.approx(0.65)
    assert rows.loc[("1", "baseline_equal_time"), bounds].isna().tolist() == [True, True, True, False]


def test_table_of_runs(comparison: Comparison, output: Path) -> None:
    runs = pd.read_csv(output / "runs.csv").set_index("run")
    assert len(runs) == 38
    assert runs["role"].value_counts().to_dict() == {
        "MedContext": 6,
        "baseline at equal steps": 6,
        "baseline at equal time": 6,
        "patch dropout": 6,
        "masking only": 6,
        "pseudo-labels": 3,
        "MedContext with unlabelled scans": 3,
        "unpaired": 2,
    }
    assert runs.loc["failed", "reason"] == "its status is FAILED"
    assert runs.loc["<b>not evaluated</b>", "reason"].startswith("it has no evaluation/metrics.csv")
    assert runs.loc["ours-f0.25-s1", ["mean_dice", "training_cases", "train_seconds"]].tolist() == [0.7, 4, 210]


def test_verdicts_as_json(comparison: Comparison, output: Path) -> None:
    content = json.loads((output / "comparison.json").read_text())
    assert content["experiment"] == "grid"
    control = content["groups"][0]["controls"]["baseline at equal time"]
    assert control["verdict"] == "hurts"
    assert control["interval_95"] == pytest.approx([-0.05 - HALF, -0.05 + HALF], abs=1e-5)
    assert control["seconds_ratio"] == pytest.approx(1.0)
    assert content["groups"][0]["cost"]["MedContext"]["time_ratio"] == pytest.approx(7 / 3)
    assert content["groups"][0]["controls_unlabeled"]["MedContext"]["difference"] == pytest.approx(0.2)
    assert content["groups"][0]["ladder_sentence"] == comparison.groups[0].ladder.sentence
    assert len(content["ladder"]) == 5 + 7
    assert content["notes"] == []


def test_figures_and_verdicts_are_in_mlflow(comparison: Comparison, grid: Store, output: Path) -> None:
    (run,) = comparisons(grid)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "comparison by architecture,dataset,train_fraction")
    files = {item.path for item in grid.client.list_artifacts(run.info.run_id)}
    assert files == {path.name for path in output.iterdir()}
    metrics = run.data.metrics
    assert metrics["dice_medcontext/unetr_btcv_1"] == pytest.approx(0.7)
    assert metrics["gain_medcontext_over_below_at_steps/unetr_btcv_1_high"] == pytest.approx(0.08 + HALF, abs=1e-5)
    assert metrics["gain_medcontext_unlabeled_over_baseline_at_time/unetr_btcv_0.25"] == pytest.approx(0.15)
    assert metrics["difference_unlabeled_pseudo_labels/unetr_btcv_0.25"] == pytest.approx(0.22)
    assert metrics["difference_baseline_at_equal_time/unetr_btcv_0.25"] == pytest.approx(-0.05)
    assert metrics["difference_masking_only/unetr_btcv_1_low"] == pytest.approx(0.08 - HALF, abs=1e-5)
    note = run.data.tags["mlflow.note.content"]
    assert "- **UNETR on btcv, all training cases (15), 3 seeds: helps.** MedContext is ahead" in note


@pytest.fixture
def small(database: Path, blank_figures: None) -> Store:
    """One seed of a MedContext run and a baseline, in an experiment of its own."""
    store = Store(database, f"small {uuid.uuid4().hex}")
    store.log("medcontext", table({"liver": [0.8, 0.9]}), name="ours")
    store.log("baseline", table({"liver": [0.7, 0.8]}), name="baseline")
    return store


def log_other_dataset(store: Store) -> None:
    for mode, dice in (("medcontext", 0.9), ("baseline", 0.5)):
        tags = {"dataset": "acdc", "data_hash": "x"}
        store.log(mode, table({"liver": [dice, dice]}), name=f"acdc {mode}", tags=tags)


def test_comparing_again_updates_what_was_logged(small: Store, tmp_path: Path) -> None:
    first = compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri)
    (run,) = comparisons(small)
    log_other_dataset(small)
    again = compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri)
    assert (len(first.runs), len(again.runs)) == (2, 4)  # comparisons are no runs to compare
    (updated,) = comparisons(small)
    assert (updated.info.run_id, updated.info.status) == (run.info.run_id, "FINISHED")
    files = {item.path for item in small.client.list_artifacts(run.info.run_id)}
    assert files == {path.name for path in (tmp_path / "out").iterdir()}
    assert {"differences_unetr_acdc_1.png", "differences_unetr_btcv_1.png"} <= files
    assert updated.data.metrics["difference_baseline_at_equal_steps/unetr_acdc_1"] == pytest.approx(0.4)
    compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri, group_by=["dataset"])
    assert len(comparisons(small)) == 2


def test_what_is_gone_is_not_left_behind(small: Store, tmp_path: Path) -> None:
    log_other_dataset(small)
    compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri)
    (tmp_path / "out" / "mine.png").touch()
    for run in small.client.search_runs([small.id], "attributes.run_name = 'ours'"):
        small.client.delete_run(run.info.run_id)
    again = compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri)
    assert [group.values["dataset"] for group in again.groups] == ["acdc"]
    (run,) = comparisons(small)
    assert {name.split("/")[1] for name in run.data.metrics} == {"unetr_acdc_1"}
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {item.path for item in small.client.list_artifacts(run.info.run_id)} | {"mine.png"}
    assert "differences_unetr_btcv_1.png" not in files


def test_nothing_is_logged_if_not_wanted(small: Store, tmp_path: Path) -> None:
    compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri, log_to_mlflow=False)
    assert comparisons(small) == []


def test_a_store_that_takes_nothing(small: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("no space left")

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", refuse)
    with pytest.raises(ValueError, match="no space left .the comparison is in .*give --log_to_mlflow False"):
        compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri)
    assert (tmp_path / "out" / "comparison.html").is_file()
    assert [run.info.status for run in comparisons(small)] == ["FAILED"]


def test_groups_keep_files_and_metrics_of_their_own() -> None:
    runs = [Draw(tracked_run(), {Rung.MEDCONTEXT: tracked_run()})]
    groups = [compare_group({"dataset": name, "steps": "3"}, runs) for name in ("mine/ct", "mine ct", "Größe")]
    comparison = Comparison("grid", ["dataset", "steps"], groups, [], {}, {})
    assert [comparison.slug(group) for group in groups] == ["mine-ct_3_0", "mine-ct_3_1", "Größe_3"]


def test_notes_are_cut_where_tags_end(small: Store, tmp_path: Path) -> None:
    found = compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri, log_to_mlflow=False)
    many = Comparison(found.experiment, ["seed"], list(found.groups) * 40, found.runs, found.roles, found.info)
    log_comparison(small.client, small.id, many, {})
    note = comparisons(small)[0].data.tags["mlflow.note.content"]
    assert len(note) <= 5000
    assert note.endswith("The rest is in comparison.html.")


def test_the_worth_of_labels_is_in_page_tables_and_mlflow(small: Store, tmp_path: Path) -> None:
    groups = []
    for cases in (6, 12, 24):
        draws = []
        for seed in range(3):
            # errors 0.5 and 0.3 with six cases, which fall with their number: six do what ten do
            ours, plain = (
                tracked_run(mode, table({"liver": [1 - error * 6 / cases] * 2}), seed=seed, cases=cases, name=f"{mode}")
                for mode, error in (("medcontext", 0.3), ("baseline", 0.5))
            )
            draws.append(Draw(ours, {Rung.BASELINE_EQUAL_TIME: plain, Rung.MEDCONTEXT: ours}))
        values = {"architecture": "unetr", "dataset": "btcv", "train_fraction": f"{cases} cases"}
        groups.append(compare_group(values, draws))
    comparison = Comparison("grid", list(values), groups, [], {}, {})
    files = write_comparison(tmp_path, comparison)
    sentence = "MedContext: 6 labelled cases do what 10 do with the baseline at equal time (95 % interval 10)"
    page = files["comparison.html"].read_text()
    assert sentence in page
    assert page.count("extrapolated</small>") == 2  # what 24 are worth, and twice as many
    content = json.loads(files["comparison.json"].read_text())["label_efficiency"]
    assert content["sentences"]["UNETR on btcv"][0].startswith(sentence)
    rows = pd.read_csv(files["label_efficiency.csv"])
    assert rows["labelled_cases"].tolist() == [6, 12, 24]
    assert rows["equal_cases"].tolist() == pytest.approx([10, 20, 40], rel=0.03)
    assert rows["doubling"].tolist() == pytest.approx([0.15, 0.075, 0.0375], rel=0.03)

    log_comparison(small.client, small.id, comparison, files)
    (run,) = comparisons(small)
    assert run.data.metrics["worth_of_6_cases_medcontext/unetr_btcv_low"] == pytest.approx(10, rel=0.03)
    assert run.data.metrics["doubling_24_cases_medcontext/unetr_btcv"] == pytest.approx(0.0375, rel=0.03)
    assert sentence in run.data.tags["mlflow.note.content"]
    logged = {item.path for item in small.client.list_artifacts(run.info.run_id)}
    assert {"few_shot_unetr_btcv.png", "label_efficiency.csv"} <= logged


def test_doubts_are_noted(small: Store, tmp_path: Path) -> None:
    small.log("masking_only", table({"liver": [0.7, 0.8]}), tags={"version": "0.9"}, config=None)
    found = compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri, log_to_mlflow=False)
    versions, unknown = found.notes()
    assert versions == "The runs come from different versions of medcontext: 0.9, 1.0."
    assert unknown.startswith("1 of 3 compared runs did not keep their configuration")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tags": {"mode": None}}, "it is not a training run of a bundle: it has no tag medcontext.mode"),
        ({"tags": {"mode": "other"}}, "its mode 'other' is none of baseline, patch_dropout, masking_only"),
        ({"status": "KILLED"}, "its status is KILLED"),
        ({"tags": {"seed": None, "steps": None}}, "it has no tag medcontext.seed, medcontext.steps"),
        ({"tags": {"steps": "many"}, "values": {}}, "its tag medcontext.steps is not a number of steps but 'many'"),
        ({"tags": {"steps": "600"}}, "it trained 300 steps, although its tag medcontext.steps says 600"),
        ({"metrics": None}, "it has no evaluation/metrics.csv: run evaluate.json with its checkpoint"),
        ({"metrics": "case,label\n"}, "its evaluation/metrics.csv cannot be used: metrics must have at least one row"),
        ({"metrics": "case,dice\na,1\n"}, "its evaluation/metrics.csv cannot be used: metrics must have the columns"),
        ({"metrics": ""}, "its evaluation/metrics.csv cannot be used: No columns to parse"),
        ({"values": {"test_failed_cases": 2}}, "2 of its test cases failed in the evaluation: repair those in"),
    ],
)
def test_why_a_run_cannot_be_compared(small: Store, tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    small.log(**{"mode": "baseline", "metrics": table({"liver": [0.8]}), "name": "odd", **change})
    found = compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri, log_to_mlflow=False)
    (odd,) = [run for run in found.runs if run.name == "odd"]
    assert reason in odd.problem
    assert found.roles[odd.id].reason == odd.problem


def test_case_names_that_look_like_numbers_stay_apart(small: Store, tmp_path: Path) -> None:
    names = ("12345e678901", "12345e678902", "000000000012", "12")  # the first two are both infinite
    for mode, dice in (("medcontext", 0.9), ("baseline", 0.5)):
        metrics = table({"liver": [dice] * 4})
        metrics["case"] = metrics["case"].map(dict(zip("abcd", names, strict=True)))
        small.log(mode, metrics, seed=3)
    found = compare_runs(
        small.experiment, tmp_path / "out", tracking_uri=small.uri, group_by=["seed"], log_to_mlflow=False
    )
    result = found.groups[-1].subjects[Rung.MEDCONTEXT].results[Rung.BASELINE]
    assert result.table.loc["liver", "cases"] == 4


def test_a_damaged_configuration_spoils_one_run_only(small: Store, tmp_path: Path) -> None:
    run_id = small.log("masking_only", table({"liver": [0.7, 0.8]}), name="odd", config=None)
    small.client.log_text(run_id, "{", "train_config.json")
    found = compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri, log_to_mlflow=False)
    assert [run.problem[:35] for run in found.runs] == ["", "", "its train_config.json cannot be rea"]


def test_files_out_of_reach_spoil_one_run_only(small: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcontext.comparison.runs.get_artifact_repository", _out_of_reach)
    with pytest.raises(
        ValueError,
        match="no run above the baseline that can be compared .ours: its files cannot be read: Host s3://away is",
    ):
        compare_runs(small.experiment, tmp_path / "out", tracking_uri=small.uri)


def _out_of_reach(*_: object, **__: object) -> None:
    raise MlflowException("Host s3://someone:secret@away is down")


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["medcontext", "compare", *words])
    cli.main()


def test_command(
    small: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDCONTEXT_HOME", str(small.folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    output = str(tmp_path / "out")
    command(
        monkeypatch,
        "--experiment",
        small.experiment,
        "--output_dir",
        output,
        "--group_by",
        "architecture,learning_rate",
    )
    *sentences, page = capsys.readouterr().out.splitlines()
    assert sentences == [
        "UNETR, learning_rate 0.0001, 1 seed: inconclusive. MedContext is not yet comparable to the baseline at equal "
        "steps (+0.100; 1 seed, at least three are needed). There is no run of the baseline at equal time, patch "
        "dropout and masking only to compare with. Which rung carries the gain cannot be told yet: 1 seed, at least "
        "three are needed.",
        "  baseline at equal steps: Dice 0.750, a step takes 1.00 times the baseline's",
        "  MedContext: Dice 0.850, a step takes 2.33 times the baseline's; +0.100 (1 seed) over the baseline at equal "
        "steps",
        "UNETR on btcv, learning_rate 0.0001. What MedContext is worth in labelled cases cannot be told yet: "
        "MedContext and the baseline at equal steps need 2 more draws with 15 labelled cases and 3 draws with each of "
        "2 other numbers of labelled cases. A curve is fitted from at least three numbers of labelled cases with three "
        "draws each.",
    ]
    assert page == f"{output}/comparison.html"
    assert len(comparisons(small)) == 1


@pytest.mark.slow
def test_names_from_elsewhere(database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "=1+1<script>\x1b[31m$x_{$"
    store = Store(database, "hostile")
    for mode, dice in (("medcontext", 0.9), ("baseline", 0.5)):
        metrics = table({hostile: [dice] * 3}).replace({"case": {"a": hostile}})
        store.log(mode, metrics, tags={"dataset": hostile}, params={"learning_rate": hostile}, name=f"{hostile}{mode}")
    cli.compare(store.experiment, str(tmp_path), "dataset,learning_rate", store.uri)
    shown = "".join(capsys.readouterr())
    assert "=1+1<script>\\x1b[31m" in shown
    assert "\x1b[31m" not in shown
    for path in tmp_path.iterdir():
        assert "script" not in path.name or "<" not in path.name
        text = path.read_bytes().decode(errors="replace") if path.suffix != ".png" else ""
        assert "\x1b" not in text
        assert path.suffix != ".html" or "<script>" not in text
        if path.suffix == ".csv":
            assert not [cell for row in csv.reader(text.splitlines()) for cell in row if cell.startswith("=")]
    (logged,) = [run for run in comparisons(store) if run.info.experiment_id == store.id]
    assert "\x1b" not in logged.data.tags["mlflow.note.content"]


@pytest.fixture(scope="module")
def useless(database: Path) -> None:
    """Experiments from which nothing can be told."""
    Store(database, "empty")
    Store(database, "untrained").log("baseline", None, name="b", status="FAILED")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--experiment", "gird"],
            "There is no experiment 'gird' at sqlite:.*; there are: Default, .*grid, .*untrained",
        ),
        (["--experiment", "empty"], "The experiment 'empty' has no runs; train and evaluate some first"),
        (
            ["--experiment", "untrained"],
            "'untrained' has no run above the baseline that can be compared .b: its status is FAILED",
        ),
        (["--group_by", "datset"], "No run has a 'datset' to group by. Did you mean 'dataset'"),
        (
            ["--tracking_uri", "sqlite:///absent/mlruns.db"],
            "There is no MLflow database absent/mlruns.db; name the one",
        ),
        (["--tracking_uri", "sqlite://"], "There is no MLflow database sqlite://; name the one"),
        (["--tracking_uri", "mlruns"], "MLflow at mlruns: The filesystem tracking backend"),
        (["--tracking_uri", "foo://me:secret@x"], "MLflow at foo://x: .*unsupported URI"),
        (["--output_dir", "taken"], "File exists: 'taken'"),
    ],
)
@pytest.mark.usefixtures("useless")
def test_mistakes_are_reported_in_one_sentence(
    grid: Store, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    before = len(comparisons(grid))
    given = {"--experiment": "grid", "--output_dir": "out", "--tracking_uri": grid.uri}
    given |= dict(zip(words[::2], words[1::2], strict=True))
    with pytest.raises(SystemExit, match=f"^medcontext: .*{message}") as refusal:
        command(monkeypatch, *(word for pair in given.items() for word in pair))
    assert "secret" not in str(refusal.value)
    assert {path.name for path in tmp_path.rglob("*")} <= {"taken", "out"}
    assert len(comparisons(grid)) == before


def test_a_server_that_is_not_there_is_given_up_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_HTTP")]:
        monkeypatch.delenv(name)
    started = time.monotonic()
    with pytest.raises(ValueError, match="MLflow at http://127.0.0.1:9: API request .* failed"):
        compare_runs("grid", tmp_path / "out", tracking_uri="http://me:secret@127.0.0.1:9")
    assert time.monotonic() - started < 60
    assert not (tmp_path / "out").exists()


def test_where_runs_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path))
    assert default_tracking_uri() == f"sqlite:///{tmp_path}/mlruns.db"
    monkeypatch.delenv("MEDCONTEXT_HOME")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns.db").touch()
    assert default_tracking_uri() == f"sqlite:///{tmp_path}/mlruns.db"
