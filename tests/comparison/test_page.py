from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medcontext.comparison import Comparison, Rung, compare_runs
from tracked_runs import Store, table

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(params=[400, 1200])
def opened(page: Page, comparison: Comparison, output: Path, request: pytest.FixtureRequest) -> Page:
    """The comparison in a window as wide as a phone's and a desktop's, having loaded nothing but itself."""
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda sent: requests.append(sent.url.split(":")[0]))
    page.on("console", lambda message: complaints.append(message.text))
    page.set_viewport_size({"width": request.param, "height": 900})
    page.goto((output / "comparison.html").as_uri())
    assert set(requests) <= {"file", "data"}
    assert requests.count("file") == 1
    assert complaints == []
    return page


def test_page_fits_and_shows_its_pictures(opened: Page) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    sizes = opened.evaluate("Array.from(document.images, i => [i.naturalWidth, i.clientWidth, i.alt.length])")
    assert len(sizes) == 7  # overview, two ladders, three of differences by class, few-shot curve
    assert all(natural > 600 and shown > 300 and described > 20 for natural, shown, described in sizes)


def test_page_says_what_matters(opened: Page, comparison: Comparison) -> None:
    verdicts = opened.locator(".verdicts li")
    assert [verdicts.nth(i).get_attribute("class") for i in range(2)] == ["hurts", "helps"]
    assert " ".join(verdicts.nth(0).inner_text().split()) == comparison.groups[0].sentence
    section = opened.locator("section:has(h2:text('all training cases'))")
    assert not section.locator("td", has_text="0.031").first.is_visible()
    section.locator("summary", has_text="MedContext against baseline at equal time: helps").click()
    rows = section.locator("tbody tr", has_text="liver")
    cells = re.split(r"\s*\t\s*", rows.nth(1).inner_text())
    assert cells == ["liver", "+0.050", "+0.025 to +0.075", "0.031", "0.700", "0.650", "+0.0", "0 : 0", "0 : 0", "6"]
    assert "one is expected to lie outside its interval" in opened.inner_text("main").replace("\n", " ")


def test_the_ladder_is_a_table(opened: Page) -> None:
    rows = opened.locator("section:has(h2:text('25 %')) table.ladder tbody tr")
    assert [re.split(r"\s*[\t\n]\s*", text) for text in rows.all_inner_texts()][4:6] == [
        [
            *("MedContext", "0.700"),
            *("+0.080", "+0.055 to +0.105", "masking only", "−0.050", "−0.075 to −0.025", "baseline at equal time"),
            *("+0.100", "+0.075 to +0.125", "−0.050", "−0.075 to −0.025", "2.33", "3"),
        ],
        [
            *("pseudo-labels", "0.680", "–", "−0.020", "−0.045 to +0.005", "MedContext"),
            *("–", "−0.070", "−0.070 to −0.070", "4.67", "3"),
        ],
    ]


def test_page_lists_what_was_not_compared(opened: Page) -> None:
    text = opened.inner_text("main")
    assert "Not compared: 2 of 38 runs." in text
    row = opened.locator("tbody tr", has_text="<b>not evaluated</b>")  # as text, not as bold
    assert "it has no evaluation/metrics.csv: run evaluate.json with its checkpoint" in row.inner_text()
    assert not opened.locator("text=ours-f0.25-s1").is_visible()
    opened.locator("summary", has_text="Compared: 36 runs").click()
    assert opened.locator("text=ours-f0.25-s1").is_visible()


def test_figures_of_several_groups_have_titles(opened: Page) -> None:
    assert opened.locator("figcaption").all_inner_texts() == ["MedContext", "UNETR on btcv"]


def test_cost_is_shown(opened: Page) -> None:
    row = opened.locator("section:has(h2:text('25 %')) table.cost tbody tr", has_text="MedContext").first
    assert row.inner_text().split() == ["MedContext", "300", "210.0", "–", "0.700", "1000", "2.33", "1.00"]


def test_no_p_stands_beside_too_few_seeds(page: Page, database: Path, tmp_path: Path) -> None:
    store = Store(database, "two seeds")
    for seed in range(2):
        for mode, dice in (("medcontext", 0.7), ("baseline", 0.6)):
            store.log(mode, table({"liver": [dice] * 6}), seed=seed)
    found = compare_runs(store.experiment, tmp_path, tracking_uri=store.uri, log_to_mlflow=False)
    assert found.groups[0].subjects[Rung.MEDCONTEXT].results[Rung.BASELINE].table["p"].tolist() == [2 / 64] * 2
    page.goto((tmp_path / "comparison.html").as_uri())
    page.locator("summary", has_text="MedContext against baseline at equal steps: inconclusive").click()
    cells = re.split(r"\s*\t\s*", page.locator("tbody tr", has_text="liver").inner_text())
    assert cells[1:4] == ["+0.100", "+0.100 to +0.100", "–"]
    assert "2 seeds, at least three are needed" in page.inner_text(".verdicts")
