from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medcontext.comparison import Comparison

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
    assert len(sizes) == 4  # overview, two groups, few-shot curve
    assert all(natural > 600 and shown > 300 and described > 20 for natural, shown, described in sizes)


def test_page_says_what_matters(opened: Page, comparison: Comparison) -> None:
    verdicts = opened.locator(".verdicts li")
    assert [verdicts.nth(i).get_attribute("class") for i in range(2)] == ["hurts", "helps"]
    assert verdicts.nth(0).inner_text() == comparison.groups[0].sentence
    rows = opened.locator("section:has(h2:text('all training cases')) tbody tr", has_text="liver")
    cells = re.split(r"\s*\t\s*", rows.nth(1).inner_text())
    assert cells == ["liver", "+0.050", "+0.025 to +0.075", "0.031", "0.700", "0.650", "+0.0", "0 : 0", "0 : 0", "6"]
    assert "one is expected to lie outside its interval" in opened.inner_text("main").replace("\n", " ")


def test_page_lists_what_was_not_compared(opened: Page) -> None:
    text = opened.inner_text("main")
    assert "Not compared: 2 of 26 runs." in text
    row = opened.locator("tbody tr", has_text="<b>not evaluated</b>")  # as text, not as bold
    assert "it has no evaluation/metrics.csv: run evaluate.json with its checkpoint" in row.inner_text()
    assert not opened.locator("text=ours-f0.25-s1").is_visible()
    opened.locator("summary", has_text="Compared: 24 runs").click()
    assert opened.locator("text=ours-f0.25-s1").is_visible()


def test_few_shot_curve_has_its_title(opened: Page) -> None:
    assert opened.locator("figcaption").all_inner_texts() == ["UNETR on btcv"]


def test_cost_is_shown(opened: Page) -> None:
    row = opened.locator("section:has(h2:text('25 %')) tbody tr", has_text="MedContext").last
    assert row.inner_text().split() == ["MedContext", "300", "210.0", "0.700", "1000", "2.33", "1.00"]
