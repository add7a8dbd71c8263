from __future__ import annotations

import re

import pytest

from medcontext.metrics import PROTOCOLS, metric_protocol, protocols

CASES = ("missed", "spurious", "absent")


def rows_of(text: str) -> dict[str, list[list[str]]]:
    """Cells of the tables' rows by the case that they are about, in both kinds of table."""
    lines = {case: [line for line in text.splitlines() if f"({case})" in line] for case in CASES}
    return {case: [re.split(r"\s{2,}", line)[2:] for line in found] for case, found in lines.items()}


@pytest.mark.parametrize("case", CASES)
def test_documented_tables_are_what_the_protocols_say(case: str) -> None:
    own, published = rows_of(protocols.__doc__ or "")[case]
    default, paper, unetr = (PROTOCOLS[name] for name in ("default", "paper", "paper_unetr"))
    assert [float(cell) for cell in own] == pytest.approx(
        [getattr(default.overlap, case), getattr(default.distance, case)], nan_ok=True
    )
    assert [float(cell) for cell in published] == [
        getattr(paper.overlap, case),
        getattr(unetr.overlap, case),
        getattr(paper.distance, case),
    ]
    assert paper.distance == unetr.distance


def test_lookup() -> None:
    assert metric_protocol("paper") is PROTOCOLS["paper"]
    with pytest.raises(ValueError, match="protocol must be one of 'default', 'paper', 'paper_unetr', got 'nnformer'"):
        metric_protocol("nnformer")
