from __future__ import annotations

from medcontext.planning.choice import Choice, table


def test_a_table_fits_its_width() -> None:
    choices = [
        Choice("spacing", [1.5, 2.0], "mm; median of 3 cases, and a reason that is too long for one line"),
        Choice("labels", {"a": 1}, "by name", "a 1"),
        Choice("memory", None, "counted", "about 3 GiB", is_key=False),
    ]
    title, *lines = table("All:", choices, width=60).splitlines()
    assert title == "All:"
    assert [line.split()[0] for line in lines if not line.startswith("    ")] == [
        "setting",
        "spacing",
        "labels",
        "memory",
    ]
    assert lines[1].split(maxsplit=3)[1:3] == ["1.5,", "2.0"]
    assert max(map(len, lines)) <= 60
