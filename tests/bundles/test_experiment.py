from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from bundle_runs import ROOT, TINY, UNETR
from forks import ForkedCommand
from medcontext import cli
from medcontext.experiment import (
    MODES,
    SUPERVISED_MODES,
    Cell,
    Job,
    grid,
    known_costs,
    measure_costs,
    plan,
    run_cells,
    with_equal_time,
)
from medcontext.experiment import costs as costs_module
from medcontext.phantoms.cohort import write_phantoms
from platforms import posix_only

ARGUMENTS: dict[str, Any] = {
    "bundles": [f"bundles/{UNETR}"],
    "datasets": ["btcv"],
    "fractions": [1.0],
    "seeds": [0],
    "modes": ["medcontext", "baseline"],
}


def test_grid_holds_every_combination_seed_by_seed() -> None:
    cells = grid([UNETR, "medcontext_nnformer"], ["btcv"], [0.5, 1], [0, 1], list(MODES))
    assert len(cells) == len(set(cells)) == len({cell.name for cell in cells}) == 2 * 2 * 2 * 7
    assert [cell.seed for cell in cells] == [0] * 28 + [1] * 28
    assert cells[0].name == "medcontext_unetr-btcv-baseline-f0.5-s0"
    assert cells[0].bundle == str(ROOT / "bundles" / UNETR)
    assert tuple(MODES)[:5] == SUPERVISED_MODES


def test_an_axis_of_numbers_of_cases(tmp_path: Path) -> None:
    own = tmp_path / "brains.json"
    cells = grid([UNETR], [str(own)], None, [0], ["baseline"], cases=[6, 24])
    assert [cell.name for cell in cells] == [f"medcontext_unetr-brains-baseline-n{n}-s0" for n in (6, 24)]
    assert [cell.subset for cell in cells] == [{"train_cases": 6}, {"train_cases": 24}]
    with pytest.raises(ValueError, match="fractions and cases both choose the cases .* give one"):
        grid([UNETR], ["btcv"], [1.0], [0], ["baseline"], cases=[6])


def planned(folder: Path) -> Path:
    """A cohort of four cases with a plan for UNETR."""
    write_phantoms(folder, num_cases=4, size=(32, 32, 32), spacing=(4.5, 4.5, 6.0), progress=False)
    keys = {"dataset": folder.name, "dataset_dir": "moved/since", "labels": {"liver": 1}, "reported": "@labels"}
    (folder / f"plan_{UNETR}.json").write_text(json.dumps({**keys, "max_epochs": 2}))
    return folder


def test_folders_with_plans_are_datasets(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [planned(home / "own" / name) for name in ("first", "second scans")]
    cells = grid([UNETR], ["btcv"], [1.0], [0], ["baseline"], dataset_dirs=map(str, folders))
    assert [cell.dataset_name for cell in cells] == ["btcv", "first", "second_scans"]
    overrides = {key: value for key, value in TINY[UNETR].items() if key != "max_epochs"}
    jobs = plan(cells[1:], experiment_name="own", overrides=overrides)
    for job, folder in zip(jobs, folders, strict=True):
        names = [Path(file).name for file in job.training["config_file"]]
        assert names == ["train.json", f"plan_{UNETR}.json", "baseline.json"]
        assert job.training["dataset_dir"] == job.evaluating["dataset_dir"] == str(folder)
        assert job.training["max_epochs"] == 2  # the plan's
    assert jobs[1].name == "own-medcontext_unetr-second_scans-baseline-f1-s0"
    with pytest.raises(ValueError, match="the grid itself sets dataset_dir; leave that out"):
        plan(cells[1:], experiment_name="own", overrides={**overrides, "dataset_dir": "x"})

    given = ",".join(map(str, folders))
    cli.experiment(UNETR, dataset_dirs=given, seeds=0, modes="baseline", dry_run=True, **overrides)
    shown = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == [f"medcontext_unetr-{name}-baseline-f1-s0" for name in ("first", "second_scans")]


@pytest.mark.parametrize(
    ("folders", "error", "message"),
    [
        (["a/data"], FileNotFoundError, r"no .*a/data/dataset\.json; name the folder of a prepared dataset"),
        (
            ["b/data"],
            FileNotFoundError,
            r"no .*plan_medcontext_unetr\.json; make it with: .* plan --dataset_dir .*b/data",
        ),
        (["c/data", "d/data"], ValueError, "c/data and .*d/data are both called data, .*; rename one folder and plan"),
        (["c/btcv"], ValueError, "btcv and .*c/btcv are both called btcv"),
        (["c/data", "c/../c/data"], ValueError, "datasets must name at least one, and each only once"),
    ],
)
def test_folders_that_are_no_datasets(
    folders: list[str], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/data", "b/data", "c/data", "d/data", "c/btcv"):
        (tmp_path / name).mkdir(parents=True)
        if name != "a/data":
            (tmp_path / name / "dataset.json").touch()
        if name[0] in "cd":
            (tmp_path / name / f"plan_{UNETR}.json").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        grid([str(ROOT / "bundles" / UNETR)], ["btcv"], [1.0], [0], ["baseline"], dataset_dirs=folders)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"bundles": ["medcontext_unet"]},
            FileNotFoundError,
            "no bundle 'medcontext_unet'; name one of medcontext_nn",
        ),
        (
            {"modes": ["baseline", "masked"]},
            ValueError,
            "each of modes must be one of 'baseline', .*got 'masked'",
        ),
        ({"fractions": [0]}, ValueError, r"each of fractions must lie in \(0, 1\], got 0"),
        ({"fractions": ["all"]}, TypeError, "each of fractions must be a number, got 'all'"),
        ({"seeds": [-1]}, ValueError, "each of seeds must be at least 0, got -1"),
        ({"fractions": None, "cases": [0]}, ValueError, "each of cases must be at least 1, got 0"),
        ({"seeds": [1, 1]}, ValueError, r"seeds must name at least one, and each only once, got \[1, 1\]"),
        ({"modes": []}, ValueError, "modes must name at least one"),
        ({"folds": 1}, ValueError, "folds must be at least 2, got 1: leave it out for no cross-validation"),
        ({"folds": 2.5}, TypeError, "folds must be an integer, got 2.5"),
        ({"folds": 5, "fractions": [0.5]}, ValueError, "uses all labelled cases; leave fractions and cases out"),
        ({"folds": 5, "fractions": None, "cases": [6]}, ValueError, "uses all labelled cases"),
    ],
)
def test_grid_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        grid(**{**ARGUMENTS, **change})


def test_fewer_cases_are_seen_more_often(home: Path) -> None:
    # four training cases, one of them held out for validation: two steps an epoch, or with a third of them one
    modes = ["baseline", "baseline_equal_time", "masking_only", "medcontext"]
    cells = grid([f"bundles/{UNETR}"], ["btcv"], [0.34, 1.0], [0], modes)
    overrides = {**TINY[UNETR], "max_epochs": 6, "val_interval": 3}
    jobs = plan(cells, experiment_name="few", overrides=overrides)
    assert lengths(jobs, "max_epochs") == {(cell.fraction, cell.mode): 12 if cell.fraction < 1 else 6 for cell in cells}

    # what fits in the time: 14.4 and 28.8 epochs
    seconds = {"medcontext": 1.2, "baseline": 0.5}
    jobs = with_equal_time(jobs, {jobs[0].place: {"baseline_equal_time": seconds, "medcontext": seconds}})
    longer = {(0.34, "baseline_equal_time"): 28, (1.0, "baseline_equal_time"): 14}
    assert lengths(jobs, "max_epochs").items() >= longer.items()
    assert sum(lengths(jobs, "max_epochs").values()) == 28 + 14 + 3 * (12 + 6)
    assert set(lengths(jobs, "val_interval").values()) == {3, 6, 7, 14}

    by_name = {job.cell.name: job for job in jobs}
    masked = by_name["medcontext_unetr-btcv-masking_only-f1-s0"]
    assert [Path(file).name for file in masked.training["config_file"]] == [
        "train.json",
        "btcv.json",
        "masking_only.json",
    ]
    assert Path(masked.evaluating["config_file"][-1]).name == "evaluate.json"
    assert masked.evaluating["ckpt_dir"] == str(home / "runs" / UNETR / f"few-{masked.cell.name}" / "models")


def lengths(jobs: list[Job], key: str) -> dict[tuple[float | None, str], int]:
    return {(job.cell.fraction, job.cell.mode): job.training[key] for job in jobs}


def test_a_number_of_cases_takes_as_many_steps(home: Path) -> None:
    cells = grid([UNETR], ["btcv"], None, [0], ["baseline"], cases=[1, 3])
    overrides = {**TINY[UNETR], "max_epochs": 6, "validation_cases": 0}
    few, more = (job.training for job in plan(cells, experiment_name="few", overrides=overrides))
    assert (few["train_cases"], few["max_epochs"]) == (1, 12)
    assert (more["train_cases"], more["max_epochs"]) == (3, 6)
    assert "train_fraction" not in few


def test_a_fold_of_the_training_cases_stands_in_for_the_test_cases(home: Path) -> None:
    cells = grid([UNETR], ["btcv"], [1.0], [0, 1], ["baseline"])
    data = write_phantoms(home / "five", num_cases=8, size=(32, 32, 32), spacing=(4.5, 4.5, 6.0), progress=False)
    overrides = {**TINY[UNETR], "max_epochs": 1, "dataset_dir": str(data.parent)}
    content = json.loads(data.read_text())
    folded = []
    for job in plan(cells, experiment_name="chosen", overrides=overrides, test_fold=3):
        assert job.training["datalist"] == job.evaluating["datalist"]
        folded.append(json.loads(Path(job.training["datalist"]).read_text()))
    assert folded[0] == folded[1]  # the same test cases in all draws
    images = {name: {Path(case["image"]).name for case in folded[0][name]} for name in ("training", "test")}
    assert len(images["test"]) == 1
    assert images["training"] | images["test"] == {Path(case["image"]).name for case in content["training"]}
    with pytest.raises(SystemExit, match=r"test_fold: fold must be within 0\.\.4"):
        plan(cells, experiment_name="chosen", overrides=overrides, test_fold=5)
    with pytest.raises(ValueError, match="the grid itself sets datalist; leave that out"):
        plan(cells, experiment_name="chosen", overrides={**overrides, "datalist": "x"}, test_fold=0)


def test_each_fold_is_held_out_and_evaluated(home: Path) -> None:
    cells = grid([UNETR], ["btcv"], [1.0], [0], ["baseline", "medcontext"], folds=2)
    assert [cell.name[-9:] for cell in cells] == [f"-fold{fold}of2" for fold in (0, 0, 1, 1)]
    jobs = plan(cells, experiment_name="folds", overrides={**TINY[UNETR], "validation_cases": 3, "max_epochs": 6})
    assert [job.training["fold"] for job in jobs] == [0, 0, 1, 1]
    assert {job.training["num_folds"] for job in jobs} == {2}
    assert {job.training["max_epochs"] for job in jobs} == {6}
    assert not any("datalist" in job.training for job in jobs)
    tested = [json.loads(Path(job.evaluating["datalist"]).read_text())["test"] for job in jobs[::2]]
    content = json.loads((home / "data" / "btcv" / "dataset.json").read_text())
    images = [Path(case["image"]).name for cases in tested for case in cases]
    assert sorted(images) == sorted(Path(case["image"]).name for case in content["training"])
    assert {tuple(job.evaluating["largest_components"]) for job in jobs} == {()}
    with pytest.raises(SystemExit, match="There are 4 cases for 5 folds; choose fewer folds"):
        plan(grid([UNETR], ["btcv"], [1.0], [0], ["baseline"], folds=5), experiment_name="x", overrides=TINY[UNETR])
    with pytest.raises(ValueError, match="the grid itself sets fold; leave that out"):
        plan(cells, experiment_name="folds", overrides={**TINY[UNETR], "fold": 1})


def test_unlabelled_scans_are_for_the_modes_that_need_them(home: Path) -> None:
    cells = grid([UNETR], ["btcv"], None, [0], ["medcontext", "pseudo_labels", "medcontext_unlabeled"], cases=[2])
    jobs = plan(cells, experiment_name="few", overrides={**TINY[UNETR], "unlabeled": "rest"})
    assert ["unlabeled" in job.training for job in jobs] == [False, True, True]
    assert ["unlabeled" in job.evaluating for job in jobs] == [False, True, True]
    assert not any("unlabeled" in job.reference for job in jobs)
    assert [Path(job.training["config_file"][-1]).stem for job in jobs] == ["btcv", *(cell.mode for cell in cells[1:])]
    with pytest.raises(SystemExit, match="unlabeled"):  # dataset.json lists none
        plan(cells, experiment_name="few", overrides=TINY[UNETR])


def test_plan_refuses_what_the_grid_sets_and_unknown_overlays(home: Path) -> None:
    cells = grid(**ARGUMENTS)
    with pytest.raises(ValueError, match="the grid itself sets seed, train_fraction; leave that out"):
        plan(cells, experiment_name="few", overrides={"seed": 1, "train_fraction": 0.5})
    with pytest.raises(ValueError, match="tracking_uri has a password or token, which the files of"):
        plan(cells, experiment_name="few", overrides={"tracking_uri": "postgresql://me:secret@host/db"})
    with pytest.raises(
        FileNotFoundError, match=r"no .*phantoms\.json; overlays of the bundle are acdc, auto_resume, baseline"
    ):
        plan(cells, experiment_name="few", overlays=["phantoms"])
    with pytest.raises(SystemExit, match="uses 'max_epoch'. Did you mean 'max_epochs'"):
        plan(cells, experiment_name="few", overrides={"max_epoch": 3})


def script(folder: Path, name: str, training: str, evaluating: str = "None") -> Job:
    """A cell of a bundle whose entries are expressions."""
    bundle = folder / name
    (bundle / "configs").mkdir(parents=True)
    for file, content in (
        ("train", {"imports": ["$import pathlib", "$import time"], "resume": False, "training": [f"${training}"]}),
        ("evaluate", {"evaluating": [f"${evaluating}"]}),
        ("resume", {"resume": True}),
    ):
        (bundle / "configs" / f"{file}.json").write_text(json.dumps(content))
    train, evaluate = (str(bundle / "configs" / f"{file}.json") for file in ("train", "evaluate"))
    return Job(
        Cell(str(bundle), "btcv", 1.0, 0, "baseline"),
        folder,
        folder / "runs" / name,
        f"sqlite:///{folder}/mlruns.db",
        {"run_id": "training", "config_file": [train]},
        {"run_id": "evaluating", "config_file": [train, evaluate]},
    )


def states(folder: Path) -> dict[str, str]:
    records = [path for path in folder.glob("*.json") if "." not in path.stem]
    return {path.stem: json.loads(path.read_text())["state"] for path in records}


@pytest.mark.xdist_group("forks")
def test_a_failure_stops_nothing_else_and_is_repeated_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mended"
    append = "pathlib.Path('{}').open('a').write('x')"
    jobs = [
        script(tmp_path, "good", append.format(tmp_path / "trained"), append.format(tmp_path / "evaluated")),
        script(tmp_path, "bad", f"pathlib.Path('{mark}').read_text()"),
    ]
    if os.name != "nt":  # with less effort where the system has forks
        monkeypatch.setattr(subprocess, "Popen", ForkedCommand)
    (failure,) = run_cells(jobs, tmp_path / "out", ["cpu", "cpu"])
    assert failure.startswith("bad: training ended with 1, see ")
    assert "FileNotFoundError" in Path(failure.split("see ")[1]).read_text()
    assert states(tmp_path / "out") == {"good": "evaluated", "bad": "new"}

    mark.touch()
    assert run_cells(jobs, tmp_path / "out") == []
    assert states(tmp_path / "out") == {"good": "evaluated", "bad": "evaluated"}
    assert (tmp_path / "trained").read_text() == (tmp_path / "evaluated").read_text() == "x"

    other = Job(**{**vars(jobs[0]), "training": {**jobs[0].training, "max_epochs": 3}})
    with pytest.raises(ValueError, match="other values of max_epochs; choose another experiment_name"):
        run_cells([other], tmp_path / "out")


@pytest.mark.slow
@posix_only
def test_ctrl_c_ends_the_training_run_and_the_next_call_resumes_it(tmp_path: Path) -> None:
    last = tmp_path / "runs" / "long" / "models" / "last.pt"
    # the first time it saves its state and sleeps; resumed, it is done
    job = script(
        tmp_path,
        "long",
        f"None if @resume else (pathlib.Path('{last.parent}').mkdir(parents=True), "
        f"pathlib.Path('{last}').touch(), time.sleep(100))",
    )
    program = tmp_path / "program.py"
    program.write_text(
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path\nfrom medcontext.experiment import Cell, Job, run_cells\n"
        f"job = Job(Cell(**{vars(job.cell)!r}), Path({str(tmp_path)!r}), Path({str(job.run_dir)!r}), "
        f"{job.tracking_uri!r}, {job.training!r}, {job.evaluating!r})\n"
        f"run_cells([job], {str(tmp_path / 'out')!r})\n"
    )
    process = subprocess.Popen([sys.executable, str(program)], stderr=subprocess.PIPE)
    deadline = time.time() + 120
    while not last.is_file() and time.time() < deadline:
        time.sleep(0.1)
    content = json.loads((tmp_path / "out" / f"{job.name}.json").read_text())
    with pytest.raises(ValueError, match=f"is still run by process {content['pid']}; wait for it, or end it"):
        run_cells([job], tmp_path / "out")
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    assert process.returncode
    with pytest.raises(ProcessLookupError):
        os.kill(content["pid"], 0)
    assert states(tmp_path / "out") == {"long": "new"}

    assert run_cells([job], tmp_path / "out") == []
    assert states(tmp_path / "out") == {"long": "evaluated"}
    arguments = json.loads((tmp_path / "out" / f"{job.name}.training.json").read_text())
    assert [Path(file).name for file in arguments["config_file"]] == ["train.json", "resume.json"]


@pytest.mark.slow
def test_time_that_is_up_stops_what_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "mark"
    jobs = [
        script(tmp_path, "long", f"None if pathlib.Path('{mark}').exists() else time.sleep(100)"),
        script(tmp_path, "next", "None"),
    ]
    assert run_cells(jobs, tmp_path / "out", minutes=0.05) == []
    assert "Stopped after 0.05 minutes, 2 of 2 runs are left." in capsys.readouterr().err
    assert states(tmp_path / "out") == {"long": "new"}
    mark.touch()
    assert run_cells(jobs, tmp_path / "out", minutes=10) == []
    assert states(tmp_path / "out") == {"long": "evaluated", "next": "evaluated"}


@pytest.mark.slow
def test_a_training_run_that_was_killed_before_it_saved_its_state_begins_anew(tmp_path: Path) -> None:
    model = tmp_path / "runs" / "early" / "models" / "model.pt"
    # a validation has saved a model, and nothing the state; the training refuses to write over it
    refuse = f"1 / 0 if pathlib.Path('{model}').exists() else None"
    die = f"(pathlib.Path('{model.parent}').mkdir(parents=True), pathlib.Path('{model}').touch(), 1 / 0)"
    first, then = script(tmp_path, "early", die), tmp_path / "early" / "configs" / "train.json"
    assert len(run_cells([first], tmp_path / "out")) == 1
    then.write_text(json.dumps({"imports": ["$import pathlib"], "training": [f"${refuse}"]}))
    assert run_cells([first], tmp_path / "out") == []
    assert not model.exists()


@pytest.mark.parametrize("device", ["gpu", -1])
def test_devices_are_numbers_or_cpu(tmp_path: Path, device: Any) -> None:
    with pytest.raises(ValueError, match="devices must be GPU numbers or cpu"):
        run_cells([script(tmp_path, "good", "None")], tmp_path / "out", [device])


SECONDS = {"medcontext": 0.7, "baseline": 0.3}


def test_costs_are_measured_once_and_for_these_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[list[str]] = []

    def measure(trainings: dict[str, Any], *_: object) -> dict[str, Any]:
        measured.append(list(trainings))
        assert [Path(file).stem for file in trainings["baseline"]["config_file"]] == ["train", "btcv", "baseline"]
        assert [Path(file).stem for file in trainings["medcontext"]["config_file"]] == ["train", "btcv"]
        (home / "out").mkdir(exist_ok=True)
        return {"seconds": SECONDS}

    monkeypatch.setattr(costs_module, "_measure_in_process", measure)
    cells = grid([UNETR], ["btcv"], [1.0], [0, 1], ["baseline", "baseline_equal_time"])
    jobs = plan(cells, experiment_name="costs", overrides={**TINY[UNETR], "max_epochs": 3})
    assert known_costs(jobs, home / "out") == {}
    costs = measure_costs(jobs, home / "out", ["cpu", "cpu"])
    assert costs[jobs[0].place]["baseline_equal_time"] == SECONDS
    later = plan(cells[2:], experiment_name="costs", overrides={**TINY[UNETR], "max_epochs": 6})
    assert with_equal_time(later, measure_costs(later, home / "out"))[1].training["max_epochs"] == 14
    assert measured == [["medcontext", "baseline"]]
    other = plan(cells, experiment_name="costs", overrides={**TINY[UNETR], "max_epochs": 3, "batch_size": 1})
    assert known_costs(other, home / "out") == {}
    measure_costs(other, home / "out")
    assert len(measured) == 2
    assert known_costs(jobs, home / "out") == costs

    (home / "out" / "costs.json").write_text("[{}]")
    with pytest.raises(ValueError, match=r"costs\.json holds no costs of steps; remove it to measure them again"):
        measure_costs(jobs, home / "out")


@pytest.mark.slow
def test_costs_are_those_of_the_machine(home: Path) -> None:
    cells = grid([UNETR], ["btcv"], [1.0], [0], ["baseline_equal_time"])
    jobs = plan(cells, experiment_name="costs", overrides=TINY[UNETR])
    seconds = measure_costs(jobs, home / "out", ["cpu", "cpu"])[jobs[0].place]["baseline_equal_time"]
    assert 1.2 < seconds["medcontext"] / seconds["baseline"] < 4
    (record,) = json.loads((home / "out" / "costs.json").read_text())
    assert (record["bundle"], record["dataset"], record["threads"], record["clock"]) == (UNETR, "btcv", 1, "processor")
    assert record["seconds"] == seconds
    assert not (home / "runs").exists()  # nothing of a run is left
    broken = plan(cells, experiment_name="costs", overrides={**TINY[UNETR], "network_def#num_heads": 7})
    with pytest.raises(ValueError, match=r"could not be measured \(the process ended with 1\), see .*costs\.log"):
        measure_costs(broken, home / "out")


def test_a_dry_run_measures_and_trains_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modes = ("baseline", "baseline_equal_time")
    cli.experiment(UNETR, cases=(2, 4), seeds=0, modes=modes, dry_run=True, **TINY[UNETR])
    shown = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert shown["medcontext_unetr-btcv-baseline-n4-s0"] == "2 epochs"
    assert shown["medcontext_unetr-btcv-baseline_equal_time-n2-s0"] == "as many epochs as fit, once costs are measured"
    assert not (home / "runs").exists()


@pytest.mark.slow
def test_one_command_from_the_grid_to_the_verdict(home: Path) -> None:
    command = [sys.executable, "-m", "medcontext", "experiment", "--bundles", UNETR, "--seeds", "0", "--modes"]
    command += ["medcontext,baseline", "--experiment_name", "verdict", "--validation_cases", "1", "--fractions", "1.0"]
    command += [word for key, value in TINY[UNETR].items() for word in (f"--{key}", str(value))]
    command[command.index("--max_epochs") + 1] = "1"
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "UNETR on btcv, all training cases (3 and 1 to validate), 1 seed: inconclusive." in first.stdout
    folder = home / "runs" / "experiments" / "verdict"
    assert (folder / "comparison" / "comparison.html").is_file()
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlruns.db")
    runs = client.search_runs(client.get_experiment_by_name("verdict").experiment_id)
    assert sorted(run.data.tags.get("medcontext.mode", "comparison") for run in runs) == [
        "baseline",
        "comparison",
        "medcontext",
    ]
    assert all("dice/test_mean_dice" in run.data.metrics for run in runs if "medcontext.mode" in run.data.tags)

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "2 of 2 runs were done before." in again.stderr
    assert len(client.search_runs(client.get_experiment_by_name("verdict").experiment_id)) == 3
