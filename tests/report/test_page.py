"""The report in a browser, as people open it: from a folder, without a network, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from evaluations import evaluation
from medcontext.report import write_report
from torso import LABELS

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAPER = {"surface_dice": 0.75, "paper_dice": 0.5, "paper_hd95_voxels": 1.25}
ODD_LABELS = {"<b>liver</b> & co": "liver", "$x^2$": "spleen", "gauche_" * 30: "left_kidney"}
ODD_CASES = {"img0000": "<script>alert(1)</script>", "img0001": "x" * 200, "img0002": "пациент & <i>", "img0003": "$"}


def usual(folder: Path) -> None:
    metrics, planes = evaluation()
    history = pd.DataFrame({"epoch": [1, 2], "train_loss": [1.0, 0.5], "val_mean_dice": [0.2, 0.4]})
    info = {"bundle": "medcontext_unetr", "dataset": "btcv", "command": "python " + "--config_file=" * 20}
    write_report(folder, metrics.assign(**PAPER), cases=planes, labels=LABELS, info=info, history=history)


def odd(folder: Path) -> None:
    metrics, planes = evaluation()
    names = {plain: strange for strange, plain in ODD_LABELS.items()}
    metrics = metrics.assign(case=metrics["case"].map(ODD_CASES), label=metrics["label"].map(names))
    labels = {names[name]: index for name, index in LABELS.items()}
    cases = {ODD_CASES[name]: slices for name, slices in planes.items()}
    history = pd.DataFrame({"epoch": [1], "train_loss": [1.0], **{f"val_dice_{name}": [0.5] for name in labels}})
    info = {"run": "<img src=x onerror=alert(1)>", "<b>key</b>": "\x00&amp;"}
    write_report(folder, metrics, cases=cases, labels=labels, info=info, history=history)


def one_case(folder: Path) -> None:
    metrics, planes = evaluation(1)
    write_report(folder, metrics, cases=planes, labels=LABELS)


def many_cases(folder: Path) -> None:
    metrics = pd.concat([evaluation(1)[0].assign(case=f"img{i:04d}") for i in range(21)])
    write_report(folder, metrics, cases={}, labels=LABELS)


KINDS: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (usual, odd, one_case, many_cases)}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of reports, each written when it is first asked for."""
    root = tmp_path_factory.mktemp("reports")

    def written(kind: str) -> Path:
        if not (root / kind).exists():
            KINDS[kind](root / kind)
        return root / kind

    return written


def opened(page: Page, folder: Path, width: int = 1200) -> list[str]:
    """Open a report, and return what the browser complained of and what it asked for besides."""
    seen: list[str] = []
    url = (folder / "report.html").as_uri()
    page.on("console", lambda message: seen.append(f"{message.type}: {message.text}"))
    page.on("dialog", lambda dialog: seen.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: seen.append(request.url) if not request.url.startswith((url, "data:")) else None)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(url)
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [360, 400, 1200])
def test_opens_offline_and_fits_the_screen(kind: str, width: int, reports: Callable[[str], Path], page: Page) -> None:
    assert opened(page, reports(kind), width) == []
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    images = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(images) == {"usual": 6, "odd": 6, "one_case": 3, "many_cases": 2}[kind]
    assert min(images) > 600
    # wide tables scroll inside their box
    rights = page.evaluate("[...document.querySelectorAll('.scroll, img')].map(e => e.getBoundingClientRect().right)")
    assert max(rights) <= width


def rows_of(page: Page, table: str) -> dict[str, list[str]]:
    """The cells of a table by the first one, without the intervals."""
    text = "cell => cell.querySelector('span')?.textContent ?? cell.firstChild?.data ?? ''"
    rows = page.eval_on_selector_all(
        f"table.{table} tbody tr, table.{table} tfoot tr", f"rows => rows.map(row => [...row.cells].map({text}))"
    )
    return {first: rest for first, *rest in rows}


def shown(values: pd.Series, digits: int) -> list[str]:
    return [f"{value:z.{digits}f}" if np.isfinite(value) else "–" for value in values]


def test_numbers_are_those_of_the_csv(reports: Callable[[str], Path], page: Page) -> None:
    opened(page, reports("usual"))
    table = pd.read_csv(reports("usual") / "metrics.csv")
    table["error"] = table["prediction_volume_ml"] - table["label_volume_ml"]
    groups = table.groupby("label", sort=False)
    means = groups.mean(numeric_only=True)
    columns: list[Any] = [
        groups["dice"].count().astype(str),
        shown(means["dice"], 3),
        shown(groups["dice"].median(), 3),
        shown(means["surface_dice"], 3),
        shown(means["hd95_mm"], 1),
        shown(means["assd_mm"], 2),
        shown(means["error"], 1),
        groups["missed"].sum().astype(str),
        groups["spurious"].sum().astype(str),
    ]
    rows = rows_of(page, "labels")
    overall = rows.pop("mean of labels")
    assert list(rows) == ["liver", "spleen", "left kidney"]
    assert list(rows.values()) == [list(row) for row in zip(*columns, strict=True)]
    best = means[["dice", "hd95_mm", "assd_mm"]].mean()
    assert overall == [
        *("", f"{best['dice']:.3f}", "", "0.750", f"{best['hd95_mm']:.1f}", f"{best['assd_mm']:.2f}", "", "1", "0")
    ]
    assert rows_of(page, "paper")["mean of labels"] == ["0.500", "", "1.2"]
    low, high = page.text_content("table.labels td small").split(" to ")
    assert float(low) <= means["dice"]["liver"] <= float(high)
    by_case = table.groupby("case")["dice"].mean().sort_values()
    assert {case: cells[0] for case, cells in rows_of(page, "cases").items()} == {
        case: f"{dice:.3f}" for case, dice in by_case.items()
    }


def test_odd_names_are_shown_as_they_are(reports: Callable[[str], Path], page: Page) -> None:
    opened(page, reports("odd"))
    assert set(rows_of(page, "labels")) == {*(name.replace("_", " ") for name in ODD_LABELS), "mean of labels"}
    assert set(rows_of(page, "cases")) == set(ODD_CASES.values())
    assert page.locator("script, b, i, main header img").count() == 0
    assert "<img src=x onerror=alert(1)>" in page.inner_text("header")


def test_words_of_usual_length_are_not_broken_on_a_phone(reports: Callable[[str], Path], page: Page) -> None:
    opened(page, reports("usual"), 360)
    page.eval_on_selector("table.labels th span", "span => { span.textContent = 'gallbladder' }")
    height = page.eval_on_selector("table.labels th span", "span => span.getBoundingClientRect().height")
    assert height < 25


@pytest.mark.parametrize(("kind", "is_open"), [("usual", True), ("many_cases", False)])
def test_list_of_cases_opens_and_closes(kind: str, is_open: bool, reports: Callable[[str], Path], page: Page) -> None:
    opened(page, reports(kind))
    for expected in (is_open, not is_open, is_open):
        assert page.is_visible("table.cases") == expected
        page.click("summary")


def test_print_shows_a_closed_list_too(reports: Callable[[str], Path], page: Page) -> None:
    opened(page, reports("many_cases"))
    visible = "document.querySelector('table.cases').checkVisibility()"
    assert not page.evaluate(visible)
    page.emulate_media(media="print")
    assert page.evaluate(visible)


def test_text_is_dark_on_white_and_pictures_are_described(reports: Callable[[str], Path], page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    opened(page, reports("usual"))
    colours = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    assert colours == ["rgb(27, 36, 44)", "rgb(255, 255, 255)"]
    texts = page.evaluate("[...document.images].map(image => image.alt)")
    assert len(set(texts)) == 6
    assert any("worst case, img0002, mean Dice" in text for text in texts)


def test_file_stays_small(reports: Callable[[str], Path]) -> None:
    assert (reports("usual") / "report.html").stat().st_size < 2_000_000
