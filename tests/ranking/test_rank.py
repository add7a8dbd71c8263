from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from medcontext import cli
from thresholds import write_models, write_scans


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A models folder, and scans of which two are labelled and three are not; one is named as HTML."""
    data = write_scans(tmp_path / "data", 2, test=1, unlabeled=3)
    (data / "scans" / "case05.nii.gz").rename(data / "scans" / "<b>bold.nii.gz")
    return write_models(tmp_path / "models", ["case00", "case01"]), data


def test_a_table_a_page_and_a_list_are_written(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, data = places
    shutil.copy(data / "case01.nii.gz", data / "scans" / "again.nii.gz")  # labelled already, under another name
    out = tmp_path / "ranking"
    cli.rank(str(models), str(data / "scans"), str(data), str(out), "cpu")
    assert str(out / "ranking.html") in capsys.readouterr().out
    table = pd.read_csv(out / "ranking.csv")
    assert table["rank"].tolist() == [1, 2, 3]
    assert sorted(table["case"]) == ["<b>bold", "case03", "case04"]
    assert (table["score"] > 0).all()
    listed = json.loads((out / "ranking.json").read_text())
    assert listed["labeled"] == 2
    assert [scan["id"] for scan in listed["scans"]] == table["case"].tolist()
    assert all(Path(scan["image"]).is_file() for scan in listed["scans"])
    page = (out / "ranking.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3
    assert "1 scan is labelled already" in page
    assert "&lt;b&gt;bold" in page
    assert "<b>" not in page


def test_the_unlabelled_scans_of_a_dataset_are_ranked(places: tuple[Path, Path], tmp_path: Path) -> None:
    models, data = places
    content = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**content, "unlabeled": [{"image": "scans/case03.nii.gz"}]}))
    cli.rank(str(models), str(data), output_dir=str(tmp_path / "ranking"), device="cpu")
    table = pd.read_csv(tmp_path / "ranking" / "ranking.csv")
    assert table["case"].tolist() == ["case03"]
    assert table["distance"].tolist() == [1]


def test_what_cannot_be_ranked_is_refused_in_one_sentence(places: tuple[Path, Path], tmp_path: Path) -> None:
    models, data = places
    out = str(tmp_path / "ranking")
    with pytest.raises(SystemExit, match=r"lists no scans under 'unlabeled'; give a folder of scans as --images"):
        cli.rank(str(models), str(data), output_dir=out)
    with pytest.raises(SystemExit, match=r"There is no .*model\.pt; give the models folder of a training run"):
        cli.rank(str(data), str(data / "scans"), output_dir=out)
    with pytest.raises(SystemExit, match="There is nothing to predict at nowhere"):
        cli.rank(str(models), "nowhere", output_dir=out)
    with pytest.raises(SystemExit, match="All scans of .* are labelled already"):
        cli.rank(str(models), str(data / "scans"), str(data / "scans"), out)
    (data / "scans" / "case03.nii.gz").write_bytes(b"cut off")
    with pytest.raises(SystemExit, match=r"case03\.nii\.gz"):
        cli.rank(str(models), str(data / "scans"), output_dir=out)
    (models / "model.json").unlink()
    with pytest.raises(SystemExit, match=r"does not say which network_def the weights need"):
        cli.rank(str(models), str(data / "scans"), output_dir=out)
    assert not Path(out).exists()
