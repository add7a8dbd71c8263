from __future__ import annotations

import json
import os
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evaluations import evaluation
from medcontext.report import write_report
from torso import LABELS

INFO = {"bundle": "medcontext_unetr", "run": "<script>alert(1)</script>", "versions": {"torch": "2.13", "monai": "1.6"}}


def write_evaluation(output: Path, count: int) -> Path:
    metrics, planes = evaluation(count)
    return write_report(output, metrics, cases=planes, labels=LABELS)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    metrics, planes = evaluation()
    history = pd.DataFrame({"epoch": [1, 2], "train_loss": [1.0, 0.5], "val_mean_dice": [0.2, 0.4]})
    output = tmp_path_factory.mktemp("report") / "new" / "folder"
    return write_report(output, metrics, cases=planes, labels=LABELS, info=INFO, history=history)


class Page(HTMLParser):
    """Collects text, tags and what the page would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def test_files(report: Path) -> None:
    assert report.name == "report.html"
    assert sorted(path.name for path in report.parent.iterdir()) == [
        "metrics.csv",
        "overlay_best.png",
        "overlay_median.png",
        "overlay_worst.png",
        "report.html",
        "summary.json",
    ]
    assert Image.open(report.parent / "overlay_best.png").width > 600


def test_files_have_the_usual_permissions(report: Path, tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    assert {stat.S_IMODE(path.stat().st_mode) for path in report.parent.iterdir()} == {
        stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    }


def test_csv_gives_the_metrics_back(report: Path) -> None:
    table = pd.read_csv(report.parent / "metrics.csv")
    pd.testing.assert_frame_equal(table, evaluation()[0], rtol=1e-5)


def test_summary(report: Path) -> None:
    summary = json.loads((report.parent / "summary.json").read_text())
    metrics = evaluation()[0]
    per_label = metrics.groupby("label")["dice"].mean()
    assert summary["mean_dice"] == pytest.approx(per_label.mean())
    assert summary["labels"]["liver"]["dice_mean"] == pytest.approx(per_label["liver"])
    assert (summary["cases"], summary["missed"], summary["spurious"]) == (4, 1, 0)
    assert summary["labels"]["spleen"]["missed"] == 1
    assert summary["info"]["versions"] == {"torch": "2.13", "monai": "1.6"}
    by_case = metrics.groupby("case")["dice"].mean().sort_values(ascending=False)
    ranked = summary["ranked_cases"]
    assert [ranked[rank]["case"] for rank in ("best", "median", "worst")] == [by_case.index[i] for i in (0, 2, 3)]


def test_page_loads_nothing_and_fits_a_phone(report: Path) -> None:
    html = report.read_text()
    page = Page(html)
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", html)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html


def test_page_says_what_matters(report: Path) -> None:
    text = re.sub(r"\s+", " ", " ".join(Page(report.read_text()).text))
    summary = json.loads((report.parent / "summary.json").read_text())
    assert f"Mean Dice {summary['mean_dice']:.3f}" in text
    assert "over 4 cases and 3 labels. Missed: 1. Predicted where there was none: 0." in text
    assert "Research use only, not a medical device." in text
    assert "torch 2.13, monai 1.6" in text
    assert re.search(r"img0002 \d\.\d{3} spleen", text)
    assert [rank for rank in ("best", "median", "worst") if rank in text] == ["best", "median", "worst"]
    assert report.read_text().count("<img ") == 6  # two box plots, three overlays, curves


def test_values_are_escaped(report: Path) -> None:
    html = report.read_text()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


@pytest.mark.parametrize(("count", "ranks"), [(1, ["best"]), (2, ["best", "worst"])])
def test_few_cases(tmp_path: Path, count: int, ranks: list[str]) -> None:
    metrics, planes = evaluation(count)
    page = write_report(tmp_path, metrics, cases=planes, labels=LABELS)
    assert sorted(path.stem for path in tmp_path.glob("overlay_*")) == [f"overlay_{rank}" for rank in ranks]
    assert "nan" not in " ".join(Page(page.read_text()).text)
    json.loads((tmp_path / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_labels_that_count_nowhere(tmp_path: Path) -> None:
    metrics, planes = evaluation(1)
    metrics["dice"], metrics["hd95_mm"], metrics["assd_mm"] = np.nan, np.nan, np.nan
    page = write_report(tmp_path, metrics, cases=planes, labels=LABELS)
    assert json.loads((tmp_path / "summary.json").read_text())["mean_dice"] is None
    assert not list(tmp_path.glob("overlay_*"))
    assert "Mean Dice –" in " ".join(Page(page.read_text()).text)


def test_new_report_replaces_the_old(tmp_path: Path) -> None:
    write_evaluation(tmp_path, 2)
    page = write_evaluation(tmp_path, 1)
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 3
    assert [path.name for path in tmp_path.glob("overlay_*")] == ["overlay_best.png"]
    assert "over 1 case " in re.sub(r"\s+", " ", page.read_text())


def test_cases_without_slices_get_no_picture(tmp_path: Path) -> None:
    write_report(tmp_path, evaluation(3)[0], cases={}, labels=LABELS)
    assert not list(tmp_path.glob("overlay_*"))


def test_interrupted_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_evaluation(tmp_path, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_evaluation(tmp_path, 3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_refuses_unusable_metrics(tmp_path: Path) -> None:
    metrics, planes = evaluation(1)
    with pytest.raises(ValueError, match="at least one row"):
        write_report(tmp_path / "report", metrics.iloc[:0], cases=planes, labels=LABELS)
    assert not (tmp_path / "report").exists()
