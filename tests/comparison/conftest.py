"""A grid of made-up runs with known effects, and what comes of comparing it."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from medcontext.comparison import Comparison, compare_runs
from tracked_runs import Store, table

# of the ladder, with steps of 0.3 s below MedContext's 0.7 s, and of 1.4 s above
RUNGS = (
    *(("baseline", 300), ("baseline", 700), ("patch_dropout", 300), ("masking_only", 300)),
    *(("pseudo_labels", 150), ("medcontext_unlabeled", 150)),
)


def log_draw(store: Store, fraction: str, seed: int, gains: tuple[float, ...]) -> None:
    """A MedContext run of Dice 0.7 and other rungs, that far behind, a little more with every seed."""
    tags = {"train_fraction": fraction, "data_hash": f"cases{fraction}-{seed}"}
    cases = 15 if fraction == "1.0" else 4
    store.log("medcontext", metrics(0.7), name=f"ours-f{fraction}-s{seed}", seed=seed, tags=tags, cases=cases)
    for (mode, steps), gain in zip(RUNGS, gains, strict=False):
        dice = metrics(0.7 - gain - 0.01 * (seed - 1))
        name = f"{mode}-{steps}-f{fraction}-s{seed}"
        store.log(mode, dice, name=name, seed=seed, steps=steps, tags=tags, cases=cases)


def metrics(dice: float) -> object:
    """Six cases with two organs, one of which is absent from the first case."""
    return table({"liver": [dice] * 6, "right_kidney": [None, *[dice] * 5]})


@pytest.fixture(scope="session")
def grid(database: Path) -> Store:
    """All cases: MedContext helps; a quarter: it loses to equal time, unlabelled scans do not; and odd runs."""
    store = Store(database)
    for seed in range(3):
        log_draw(store, "1.0", seed, (0.1, 0.05, 0.09, 0.08))
        log_draw(store, "0.25", seed, (0.1, -0.05, 0.09, 0.08, 0.02, -0.2))
    store.log("baseline", None, name="<b>not evaluated</b>")
    store.log("baseline", metrics(0.6), name="failed", status="FAILED")
    return store


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty figures in comparisons, which take most of the time of a small one."""
    for name in ("differences_figure", "few_shot_figure", "ladder_figure", "overview_figure"):
        monkeypatch.setattr(f"medcontext.comparison.page.{name}", lambda *_: Figure(figsize=(1, 1)))


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison") / "new" / "folder"


@pytest.fixture(scope="session")
def comparison(grid: Store, output: Path) -> Comparison:
    return compare_runs(grid.experiment, output, tracking_uri=grid.uri)
