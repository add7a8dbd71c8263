"""What people see in MLflow's own pages, of runs that our tracker made and of a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from ignite.engine import Events
from monai.engines import Evaluator

from medcontext.comparison import Comparison
from medcontext.handlers import TeacherUpdate
from medcontext.tracking import MLflowTracker
from mlflow_server import MlflowServer
from tiny import trainer
from tracked_runs import Store

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE = 60_000  # ms; the pages are heavy


@pytest.fixture
def server(one_server: MlflowServer, comparison: Comparison) -> str:
    """The address of a server that knows the comparison."""
    return one_server.uri


def train_and_evaluate(server: str, folder: Path, mode: str, dice: float) -> str:
    """Four steps of a tiny network, an evaluation, and the run's identifier."""
    arguments = {"tracking_uri": server, "experiment_name": "ours", "run_name": f"unetr-{mode}"}
    tracker = MLflowTracker(
        str(folder), **arguments, tags={"medcontext.mode": mode}, params={"mode": mode, "learning_rate": 0.002}
    )
    trainer(epochs=1, train_handlers=[TeacherUpdate(), tracker]).run()
    evaluator = Evaluator(device="cpu", val_data_loader=[0], iteration_update=lambda engine, batch: None)
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(test_mean_dice=dice, test_dice_liver=dice + 0.1)
    )
    MLflowTracker(str(folder), **arguments).attach(evaluator)
    evaluator.run()
    return str(json.loads((folder / "run.json").read_text())["mlflow_run_id"])


@pytest.mark.slow
def test_two_of_our_runs_side_by_side(server: str, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = [
        train_and_evaluate(server, tmp_path / mode, mode, dice)
        for mode, dice in (("medcontext", 0.5), ("baseline", 0.25))
    ]
    experiment = mlflow.MlflowClient(server).get_experiment_by_name("ours").experiment_id
    page.goto(f'{server}/#/compare-runs?runs={json.dumps(runs)}&experiments=["{experiment}"]')
    page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for(timeout=PATIENCE)
    details = page.locator("table", has_text="Run Name:")
    details.wait_for(timeout=PATIENCE)
    assert [name in details.inner_text() for name in ("unetr-medcontext", "unetr-baseline")] == [True, True]
    page.get_by_text("dice/test_mean_dice", exact=True).last.wait_for(timeout=PATIENCE)
    shown = page.inner_text("body")
    for name in ("train_loss", "train_loss_consistency", "test_dice/liver", "train_seconds", "peak_memory_mib"):
        assert name in shown
    for value in ("0.5", "0.25", "0.6", "0.35"):
        assert f"\n{value}\n" in shown
    assert "learning_rate\t0.002\t0.002" in shown
    assert "medcontext.mode\tmedcontext\tbaseline" in shown


def test_a_comparison_shows_its_verdicts_and_figures(
    server: str, page: Page, grid: Store, comparison: Comparison
) -> None:
    (run,) = grid.client.search_runs([grid.id], "tags.`medcontext.kind` = 'comparison'")
    address = f"{server}/#/experiments/{grid.id}/runs/{run.info.run_id}"
    page.goto(address)
    page.get_by_text("UNETR on btcv, all training cases (15), 3 seeds: helps.").wait_for(timeout=PATIENCE)
    page.goto(f"{address}/artifacts/overview.png")
    page.locator("img[src^=blob], img[src*='overview.png']").first.wait_for(timeout=PATIENCE)
    size = page.evaluate("Array.from(document.images, i => i.naturalWidth)")
    assert max(size) > 600
