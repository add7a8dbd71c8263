from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import evidence
import nnunet
from bundle_runs import ROOT, TINY, UNETR
from evidence_tables import (
    BEGIN,
    COLUMNS,
    END,
    FIGURE,
    RESULTS,
    gain,
    pairs_document,
    readme_table,
    update_documents,
    variants_document,
)
from medcontext.data import load_cases
from medcontext.experiment import MODES
from medcontext.phantoms.cohort import write_phantoms


def table(**dice: list[float]) -> pd.DataFrame:
    """Runs of one setting with a mean Dice for each mode and draw."""
    rows = [
        {"mode": mode, "draw": draw, "mean_dice": value}
        for mode, some in dice.items()
        for draw, value in enumerate(some)
    ]
    common = {"setting": "hippocampus-6", "variant": "", "dataset": "hippocampus", "source": "real MR"}
    common |= {"bundle": UNETR, "labelled_cases": 6, "steps": 100, "processor_seconds": 50.0, "dice": "anterior 0.8"}
    common |= {"tested_on": "test cases", "commit": "0123456789abcdef", "version": "0.2.0"}
    return pd.DataFrame(rows).assign(**common)[COLUMNS]


def test_gains_are_paired_by_draw_with_intervals_by_students_t() -> None:
    # differences 0.01, 0.03, 0.05: mean 0.03, standard error 0.02 / sqrt(3), t of two degrees of freedom 4.3027
    dice = pd.DataFrame({"ours": [0.71, 0.83, 0.55, 0.9], "theirs": [0.7, 0.8, 0.5, None]})
    found = gain(dice, "ours", "theirs")
    assert found.draws == 3
    assert (found.mean, found.low, found.high) == pytest.approx((0.03, 0.03 - 0.04968, 0.03 + 0.04968), abs=1e-5)
    assert str(found) == "+0.030 (-0.020 to +0.080)"
    assert str(gain(dice[:1], "ours", "theirs")) == "+0.010"
    assert str(gain(dice, "ours", "absent")) == "–"
    same = pd.DataFrame({"ours": [0.5, 0.5], "theirs": [0.25, 0.25]})
    assert str(gain(same, "ours", "theirs")) == "+0.250 (+0.250 to +0.250)"


def test_the_tables_hold_every_setting_mode_and_pair() -> None:
    rows = table(baseline_equal_time=[0.7, 0.8], medcontext=[0.74, 0.84], medcontext_unlabeled=[0.75], nnunet=[0.72])
    rows = pd.concat([rows, table(baseline=[0.6]).assign(bundle="medcontext_nnformer")])
    lines = readme_table(rows).splitlines()
    assert lines[2] == (
        "| hippocampus, 6 labelled cases, UNETR | 0.750 | 0.790 | +0.040 (+0.040 to +0.040) | 0.750 | +0.010 | 0.720 |"
    )
    assert lines[3] == "| hippocampus, 6 labelled cases, nnFormer | – | – | – | – | – | – |"
    text = pairs_document(rows)
    assert "| medcontext | 100 | 50 | 0.790 | 0.740 | 0.840 |" in text
    assert "| medcontext_unlabeled | 100 | 50 | 0.750 | 0.750 | – |" in text
    assert "| medcontext − baseline_equal_time | +0.040 (+0.040 to +0.040) | +0.040 | +0.040 |" in text
    assert "| medcontext_unlabeled − baseline_equal_time | +0.050 | +0.050 | – |" in text
    assert "| nnunet − medcontext | -0.020 | -0.020 | – |" in text
    assert text.count(" − ") == 6
    assert "commits 0123456789." in text


def test_variants_are_ordered_by_their_gain_over_the_baseline() -> None:
    milder = table(medcontext=[0.75, 0.85]).assign(variant="no_decoys")
    text = variants_document(pd.concat([table(baseline=[0.7, 0.8], medcontext=[0.69, 0.8]), milder]))
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")] == [
        "| variant",
        "| no_decoys",
        "| baseline",
        "| medcontext",
    ]
    assert "| no_decoys | 100 | 50 | 0.800 | +0.050 (+0.050 to +0.050) | 0.750 | 0.850 |" in text
    assert "| baseline | 100 | 50 | 0.750 | – | 0.700 | 0.800 |" in text


def test_a_variant_with_a_baseline_of_its_own_is_compared_with_that_one() -> None:
    long = table(baseline=[0.8, 0.9], medcontext=[0.83, 0.93]).assign(variant="long")
    text = variants_document(pd.concat([table(baseline=[0.7, 0.8]), long]))
    assert "| long | 100 | 50 | 0.880 | +0.030 (+0.030 to +0.030) | 0.830 | 0.930 |" in text
    assert "| long, baseline | 100 | 50 | 0.850 | – | 0.800 | 0.900 |" in text


def repository(folder: Path, rows: pd.DataFrame) -> Path:
    (folder / RESULTS).mkdir(parents=True)
    rows.to_csv(folder / RESULTS / "evidence.csv", index=False)
    (folder / "README.md").write_text(f"# Title\n\n{BEGIN}\n{END}\n\nThe rest.\n")
    return folder


def test_documents_follow_the_csv_file(tmp_path: Path) -> None:
    rows = table(baseline_equal_time=[0.7, 0.8], medcontext=[0.75, 0.83])
    root = repository(tmp_path, rows)
    documents = ["README.md", "shared/docs/results/evidence.md", FIGURE.as_posix()]
    assert update_documents(root, check=True) == documents
    assert not (root / FIGURE).exists()
    update_documents(root, check=False)
    assert update_documents(root, check=True) == []
    assert (root / FIGURE).read_bytes().startswith(b"\x89PNG")
    text = (root / "README.md").read_text()
    assert text.startswith(f"# Title\n\n{BEGIN}\n\n| dataset")
    assert text.endswith(f"{END}\n\nThe rest.\n")
    rows.assign(mean_dice=rows["mean_dice"] + 0.001).to_csv(root / RESULTS / "evidence.csv", index=False)
    assert update_documents(root, check=True) == documents[:2]
    with pytest.raises(
        SystemExit, match=r"README\.md, shared/.*evidence\.md and evidence\.csv differ; run python ci/ev"
    ):
        evidence.write(check=True, root=str(root))

    table(baseline=[0.7], medcontext=[0.8]).to_csv(root / RESULTS / "variants.csv", index=False)
    assert update_documents(root, check=True) == ["shared/docs/results/variants.md", *documents[:2]]
    update_documents(root, check=False)
    assert update_documents(root, check=True) == []

    (root / RESULTS / "evidence.csv").unlink()
    assert update_documents(root, check=True) == ["README.md"]  # a table without figures behind it


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "README.md").write_text("# Title\n"), "README.md has no place for the table; put"),
        (lambda root: (root / RESULTS / "evidence.csv").write_text("dataset\nx\n"), "must have runs, with the columns"),
    ],
)
def test_documents_that_cannot_be_written(tmp_path: Path, spoil: Any, message: str) -> None:
    root = repository(tmp_path, table(medcontext=[0.7]))
    spoil(root)
    with pytest.raises(ValueError, match=message):
        update_documents(root, check=False)


def test_the_readme_says_what_the_csv_file_says() -> None:
    evidence.write(check=True)


def test_settings_are_those_of_the_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    settings = evidence.read_settings(evidence.SETTINGS)
    counts = {}
    for setting in settings:
        cells = setting.cells()
        counts[setting.name] = len(cells)
        assert {cell.cases for cell in cells} == {setting.cases}
        assert setting.source
        assert all(mode in MODES for mode in setting.draws)
        for name in setting.overlays:
            overlay = setting._overlay(name)
            assert (ROOT / "bundles" / setting.bundle / "configs" / f"{name}.json").is_file() or Path(overlay).is_file()
    assert counts["hippocampus-6"] == 5 * 4 + 2 * 8
    with pytest.raises(ValueError, match="no setting hippocampus; there are hippocampus-6, brains-3"):
        evidence.read_settings(evidence.SETTINGS, "hippocampus")


@pytest.fixture
def own(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a cohort, and a setting of two runs on it."""
    write_phantoms(tmp_path / "data" / "btcv", num_cases=10, size=(32, 32, 32), spacing=(4.5, 4.5, 6.0), progress=False)
    shutil.copy(empty_database, tmp_path / "mlruns.db")
    overrides = {**TINY[UNETR], "max_epochs": 1}
    setting = {"name": "small", "bundle": UNETR, "dataset": "btcv", "cases": 3, "overrides": overrides}
    content = {"sources": {"btcv": "generated"}, "settings": [{**setting, "draws": {"baseline": 2, "masking_only": 1}}]}
    (tmp_path / "settings.json").write_text(json.dumps(content))
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(ROOT)
    return tmp_path


def test_data_lie_in_a_folder_or_in_the_home(own: Path) -> None:
    (setting,) = evidence.read_settings(own / "settings.json")
    (job, *_) = jobs = setting.plan(str(own / "data"), "evidence")
    assert [(j.cell.mode, j.cell.seed) for j in jobs] == [("baseline", 0), ("masking_only", 0), ("baseline", 1)]
    assert job.training["dataset_dir"] == str(own / "data" / "btcv")
    assert job.training["experiment_name"] == "evidence-small"
    assert "dataset_dir" not in setting.plan(str(own), "evidence")[0].training
    (long,) = evidence._of_length(setting, None, 2.0, draws=1)
    assert long.training["max_epochs"] == 2 * setting.plan(None, "evidence", test_fold=0)[0].training["max_epochs"]
    assert long.training["train_cases"] == 3
    assert Path(long.training["datalist"]).name == "fold0of5.json"


def test_a_variant_is_its_base_with_other_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = evidence.FOLDER / "variants.json"
    settings, items = evidence.read_settings(path), json.loads(path.read_text(encoding="utf-8"))["settings"]
    bases = {setting.name: setting for setting in evidence.read_settings(evidence.SETTINGS)}
    assert len({setting.variant for setting in settings} - {""}) >= 8
    for setting, item in zip(settings, items, strict=True):
        base, group = bases[item["base"]], item.get("group", item["base"])
        assert setting.name == (f"{group}-{setting.variant}" if setting.variant else group)
        assert (setting.bundle, setting.dataset, setting.cases) == (base.bundle, base.dataset, base.cases)
        assert setting.overrides == {**base.overrides, **item.get("overrides", {})}
        assert bool(setting.variant or group != base.name) == (setting.overrides != base.overrides)


def test_the_budget_is_the_first_that_a_longer_run_hardly_improves_on(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = {0.25: 0.5, 0.35: 0.6, 0.5: 0.604}

    def results(run_dir: Path) -> tuple[Any, Any]:
        factor = float(run_dir.name.removeprefix("budget").split("-")[0])
        return SimpleNamespace(mean_dice=dice[factor]), {"step": 100 * factor}

    monkeypatch.setattr(evidence, "run_cells", lambda *_: [])
    monkeypatch.setattr(evidence, "_results", results)
    evidence.budget(settings=str(own / "settings.json"), draws=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "small: 0.25 of max_epochs, 25 steps: Dice 0.5000",
        "small: 0.35 of max_epochs, 35 steps: Dice 0.6000",
        "small: 0.5 of max_epochs, 50 steps: Dice 0.6040",
        "small: 0.35 of max_epochs, 35 steps, are enough.",
    ]


def test_nothing_to_collect(own: Path) -> None:
    with pytest.raises(ValueError, match="holds no finished runs; name their folder by --output_dir"):
        evidence.collect(settings=str(own / "settings.json"), csv=str(own / "evidence.csv"))


def test_nnunet_trains_on_the_same_cases_and_is_scored_alike(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def nnunet_train(words: list[str], **_: Any) -> SimpleNamespace:
        name, seconds, batch_size, images, output = words[2:]
        raw = Path(images).with_name("raw") / name
        trained.append({path.resolve().name for path in (raw / "labelsTr").iterdir()})
        assert json.loads((raw / "dataset.json").read_text())["numTraining"] == len(trained[-1]) == 3
        assert {path.name.removesuffix("_0000.nii.gz") for path in (raw / "imagesTr").iterdir()} == {
            path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir()
        }
        Path(output).mkdir()
        for image in Path(images).iterdir():
            label = str(image.resolve()).replace("img", "label").replace("images", "labels")
            shutil.copy(label, Path(output) / f"{image.name.removesuffix('_0000.nii.gz')}.nii.gz")
        record = {"version": "2", "batch_size": int(batch_size), "steps": 7, "processor_seconds": float(seconds)}
        (Path(output) / "training.json").write_text(json.dumps(record))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(nnunet.subprocess, "run", nnunet_train)
    arguments = {"settings": str(own / "settings.json"), "csv": str(own / "evidence.csv"), "only": "small", "draws": 2}
    with pytest.raises(ValueError, match=r"has no runs of medcontext for small; collect them, or give --seconds"):
        nnunet.run(**arguments)
    for _ in range(2):  # what is there is not trained again
        nnunet.run(**arguments, seconds=5.0, batch_size=2)
    rows = pd.read_csv(own / "evidence.csv")
    assert rows["mode"].tolist() == ["nnunet", "nnunet"]
    assert rows["mean_dice"].tolist() == [1.0, 1.0]
    assert rows["version"][0] == "nnU-Net 2, batches of 2"
    for labels, seed in zip(trained, (0, 1), strict=True):
        drawn = (
            load_cases(own / "data" / "btcv" / "dataset.json", section, num_validation=1, train_cases=3, seed=seed)
            for section in ("training", "validation")
        )
        assert labels == {Path(case["label"]).name for cases in drawn for case in cases}


@pytest.mark.slow
def test_nnunet_itself_trains_and_predicts(own: Path) -> None:
    words = ["bash", "ci/nnunet.sh", "--settings", str(own / "settings.json"), "--csv", str(own / "evidence.csv")]
    subprocess.run([*words, "--only", "small", "--draws=1", "--seconds=20", "--batch_size=2"], cwd=ROOT, check=True)
    rows = pd.read_csv(own / "evidence.csv")
    assert rows["steps"][0] > 0
    assert 0 <= rows["mean_dice"][0] <= 1


@pytest.mark.slow
def test_from_the_runs_to_the_table(own: Path) -> None:
    words = [sys.executable, "ci/evidence.py", "run", "--settings", str(own / "settings.json")]
    subprocess.run(words, cwd=ROOT, check=True)
    again = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "3 of 3 runs were done before." in again.stderr
    csv = own / RESULTS / "evidence.csv"
    for _ in range(2):  # what is collected again replaces itself
        evidence.collect(csv=str(csv), settings=str(own / "settings.json"))
    rows = pd.read_csv(csv)
    assert list(rows.columns) == COLUMNS
    assert rows["mode"].tolist() == ["baseline", "baseline", "masking_only"]
    elsewhere = subprocess.run(
        [*words, "--csv", str(csv), "--output_dir", str(own / "elsewhere")], cwd=ROOT, capture_output=True, text=True
    )
    assert elsewhere.returncode == 0
    assert not list((own / "elsewhere").glob("*.training.json"))  # what the CSV file has is not run again
    assert (rows["processor_seconds"] > 0).all()
    run = own / "runs" / UNETR / f"evidence-small-{UNETR}-btcv-baseline-n3-s0"
    cases = pd.read_csv(run / "evaluation" / "metrics.csv")
    assert rows["mean_dice"][0] == pytest.approx(cases.groupby("label")["dice"].mean().mean(), abs=1e-5)
    assert rows["dice"][0].count("; ") == cases["label"].nunique() - 1

    subprocess.run([*words[:2], "budget", *words[3:], "--draws", "1"], cwd=ROOT, check=True)


def test_the_readme_gives_the_means_of_the_variants() -> None:
    rows = pd.read_csv(ROOT / RESULTS / "variants.csv", keep_default_na=False)
    dice = rows.set_index(["setting", "variant", "mode", "draw"])["mean_dice"].sort_index()
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for setting, variant, cells in (
        ("brains-3", "one_to_three_organs", "3 | 500"),
        ("brains-3-long", "one_to_three_organs", "3 | 2000"),
        ("hippocampus-6", "half_of_organs", "6 | 1569"),
    ):
        plain, dropped = dice.loc[setting, "", "baseline"], dice.loc[setting, variant, "medcontext"]
        pairs = (dropped - plain).dropna()
        differences = ", ".join(pairs.map("{:+.3f}".format))
        means = f"{plain[pairs.index].mean():.3f} | {dropped[pairs.index].mean():.3f}"
        assert f"| {cells} | {means} | {differences} |" in text
    loss, won = (
        (dice.loc[setting, "", "medcontext"] - dice.loc[setting, "", "baseline"]).mean()
        for setting in ("brains-3", "brains-3-long")
    )
    assert f"it lost {-loss:.3f} in 500 steps (two draws) and gained {won:.3f} in 2000 (one draw)" in text
    six, two = dice["hippocampus-6", "", :, 0], dice["hippocampus-2", "", :, 0]
    six_cases, two_cases = (f"{each['medcontext_unlabeled']:.3f} against {each['baseline']:.3f}" for each in (six, two))
    assert f"{six_cases} with six labels and {two_cases} with two (draw 0)" in text
    short, long = (
        (dice.loc[setting, "", "baseline"] - dice.loc["brains-3-mirrored", variant, "baseline"]).mean()
        for setting, variant in (("brains-3", ""), ("brains-3-long", "long"))
    )
    assert f"cost plain training {short:.3f} in 500 steps (two draws) and {long:.3f} in 2000 (one draw)" in text
    both = [dice.loc[setting, "", "baseline"].mean() for setting in ("hippocampus-6-mirrored", "hippocampus-6")]
    assert f"it made no difference ({both[0]:.3f} and {both[1]:.3f}, two draws)" in text
