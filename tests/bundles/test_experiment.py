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
from medcontext.experiment import EQUAL_TIME, MODES, Cell, Job, grid, plan, run_cells
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
    assert len(cells) == len(set(cells)) == len({cell.name for cell in cells}) == 2 * 2 * 2 * 4
    assert [cell.seed for cell in cells] == [0] * 16 + [1] * 16
    assert cells[0].name == "medcontext_unetr-btcv-medcontext-f0.5-s0"
    assert cells[0].bundle == str(ROOT / "bundles" / UNETR)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"bundles": ["medcontext_unet"]},
            FileNotFoundError,
            "no bundle 'medcontext_unet'; name one of medcontext_nn",
        ),
        ({"modes": ["baseline", "masked"]}, ValueError, "modes must be among medcontext, baseline.*got masked"),
        ({"fractions": [0]}, ValueError, "fractions must be above 0 and at most 1, got 0"),
        ({"fractions": ["all"]}, ValueError, "fractions must be above 0 and at most 1, got 'all'"),
        ({"seeds": [-1]}, ValueError, "seeds must be whole numbers, 0 or more, got -1"),
        ({"seeds": [1, 1]}, ValueError, r"seeds must name at least one, and each only once, got \[1, 1\]"),
        ({"modes": []}, ValueError, "modes must name at least one"),
    ],
)
def test_grid_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        grid(**{**ARGUMENTS, **change})


def test_fewer_cases_are_seen_more_often(home: Path) -> None:
    # four training cases, one of them held out for validation: two steps an epoch, or with a third of them one
    cells = grid([f"bundles/{UNETR}"], ["btcv"], [0.34, 1.0], [0], list(MODES))
    overrides = {**TINY[UNETR], "max_epochs": 6, "val_interval": 3}
    jobs = plan(cells, experiment_name="few", overrides=overrides)
    epochs = {(job.cell.fraction, job.cell.mode): job.training["max_epochs"] for job in jobs}
    assert epochs == {
        **{(0.34, mode): 12 for mode in ("medcontext", "baseline", "masking_only")},
        **{(1.0, mode): 6 for mode in ("medcontext", "baseline", "masking_only")},
        (0.34, "baseline_equal_time"): 28,
        (1.0, "baseline_equal_time"): 14,
    }
    assert {job.training["val_interval"] for job in jobs if job.cell.fraction == 0.34} == {6, 14}
    assert pytest.approx(28 / 12) == EQUAL_TIME
    by_name = {job.cell.name: job for job in jobs}
    masked = by_name["medcontext_unetr-btcv-masking_only-f1-s0"]
    assert [Path(file).name for file in masked.training["config_file"]] == [
        "train.json",
        "btcv.json",
        "masking_only.json",
    ]
    assert Path(masked.evaluating["config_file"][-1]).name == "evaluate.json"
    assert masked.evaluating["ckpt_dir"] == str(home / "runs" / UNETR / f"few-{masked.cell.name}" / "models")


def test_plan_refuses_what_the_grid_sets_and_unknown_overlays(home: Path) -> None:
    cells = grid(**ARGUMENTS)
    with pytest.raises(ValueError, match="the grid itself sets seed, train_fraction; leave that out"):
        plan(cells, experiment_name="few", overrides={"seed": 1, "train_fraction": 0.5})
    with pytest.raises(
        FileNotFoundError, match=r"no .*phantoms\.json; overlays of the bundle are acdc, auto_resume, baseline"
    ):
        plan(cells, experiment_name="few", overlays=["phantoms"])
    with pytest.raises(SystemExit, match="uses 'max_epoch'; did you mean 'max_epochs'"):
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
    return {path.stem.split("-")[0]: json.loads(path.read_text())["state"] for path in folder.glob("*-s0.json")}


def test_a_failure_stops_nothing_else_and_is_repeated_alone(tmp_path: Path) -> None:
    mark = tmp_path / "mended"
    append = "pathlib.Path('{}').open('a').write('x')"
    jobs = [
        script(tmp_path, "good", append.format(tmp_path / "trained"), append.format(tmp_path / "evaluated")),
        script(tmp_path, "bad", f"pathlib.Path('{mark}').read_text()"),
    ]
    (failure,) = run_cells(jobs, tmp_path / "out", ["cpu", "cpu"])
    assert failure.startswith("bad-btcv-baseline-f1-s0: training ended with 1, see ")
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
def test_ctrl_c_ends_the_training_and_the_next_call_resumes_it(tmp_path: Path) -> None:
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
    content = json.loads((tmp_path / "out" / f"{job.cell.name}.json").read_text())
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
    arguments = json.loads((tmp_path / "out" / f"{job.cell.name}.training.json").read_text())
    assert [Path(file).name for file in arguments["config_file"]] == ["train.json", "resume.json"]


@pytest.mark.parametrize("device", ["gpu", -1])
def test_devices_are_numbers_or_cpu(tmp_path: Path, device: Any) -> None:
    with pytest.raises(ValueError, match="devices must be GPU numbers or cpu"):
        run_cells([script(tmp_path, "good", "None")], tmp_path / "out", [device])


@pytest.mark.slow
def test_one_command_from_the_grid_to_the_verdict(home: Path) -> None:
    command = [sys.executable, "-m", "medcontext", "experiment", "--bundles", UNETR, "--seeds", "0", "--modes"]
    command += ["medcontext,baseline", "--experiment_name", "verdict", "--validation_cases", "1", "--fractions", "1.0"]
    command += [word for key, value in TINY[UNETR].items() for word in (f"--{key}", str(value))]
    command[command.index("--max_epochs") + 1] = "1"
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "UNETR on btcv, all training cases (3), 1 seed: cannot tell." in first.stdout
    folder = home / "runs" / "experiments" / "verdict"
    assert (folder / "comparison" / "comparison.html").is_file()
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlruns.db")
    runs = client.search_runs(client.get_experiment_by_name("verdict").experiment_id)
    assert sorted(run.data.tags.get("medcontext.mode", "comparison") for run in runs) == [
        "baseline",
        "comparison",
        "medcontext",
    ]
    assert all("test_mean_dice" in run.data.metrics for run in runs if "medcontext.mode" in run.data.tags)

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "2 of 2 runs were done before." in again.stderr
    assert len(client.search_runs(client.get_experiment_by_name("verdict").experiment_id)) == 3
