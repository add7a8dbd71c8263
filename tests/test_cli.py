from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib import image as mpl_image

from medcontext import cli

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "bundles" / "medcontext_unetr" / "configs" / "train.json")


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["medcontext", *words])
    cli.main()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    cli.phantoms(str(folder), num_cases=3, size=(32, 32, 32), spacing=(4.5, 4.5, 6.0))
    return folder


def test_phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "phantoms", "--output_dir", str(tmp_path), "--num_cases", "2", "--size", "[32,32,32]")
    assert capsys.readouterr().out.strip() == str(tmp_path / "dataset.json")
    assert json.loads((tmp_path / "dataset.json").read_text())["phantom"]["size"] == [32, 32, 32]


def test_check_of_a_sound_dataset(
    cohort: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "check", "--dataset_dir", str(cohort))
    assert "2 training, 0 validation, 1 test cases, no problems found" in capsys.readouterr().out


def test_check_lists_all_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.phantoms(str(tmp_path), num_cases=3, size=(32, 32, 32))
    labels = sorted((tmp_path / "Training" / "label").iterdir())
    labels[0].unlink()
    nib.save(nib.Nifti1Image(np.full((32, 32, 32), 99, np.uint8), nib.load(labels[1]).affine), labels[1])
    with pytest.raises(SystemExit) as refusal:
        call(monkeypatch, "check", "--dataset_dir", str(tmp_path))
    assert len(str(refusal.value).splitlines()) == 2


def test_preview_draws_crops(cohort: Path, tmp_path: Path) -> None:
    cli.preview(
        CONFIG,
        output=str(tmp_path / "preview.png"),
        num_cases=2,
        dataset_dir=str(cohort),
        validation_cases=0,
        spacing=[4.5, 4.5, 6.0],
        roi_size=[32, 32, 32],
    )
    picture = mpl_image.imread(tmp_path / "preview.png")
    assert picture.shape[0] > 200
    assert picture.std() > 0.05


def test_preview_of_plain_training(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = f"['{CONFIG}','{CONFIG.replace('train.json', 'baseline.json')}']"
    words = ["--dataset_dir", str(cohort), "--validation_cases", "0", "--roi_size", "[32,32,32]"]
    with pytest.raises(SystemExit, match="This configuration drops nothing; preview it without baseline.json"):
        call(monkeypatch, "preview", "--config_file", files, "--output", str(tmp_path / "x.png"), *words)


def test_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "gallery", "--output", str(tmp_path / "phantoms.png"))
    assert mpl_image.imread(tmp_path / "phantoms.png").shape[1] > 500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["phantoms", "--output_dir", "x", "--dataset", "lits"], "dataset must be one of"),
        (["prepare", "--dataset", "btcv", "--source", "absent", "--output_dir", "x"], "No Training/img folder"),
        (["check", "--dataset_dir", "absent"], "There is no absent/dataset.json"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"medcontext: {message}"):
        call(monkeypatch, *words)
