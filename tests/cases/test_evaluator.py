from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader

from medcontext.cases import TolerantDataset, TolerantEvaluator, failed_cases, failures_sentence, write_failures
from medcontext.inferers import NonFinitePredictionError

CASES = [{"image": f"/scans/{name}.nii.gz"} for name in "abc"]


def transform(case: dict[str, Any]) -> dict[str, Any]:
    name = case["image"][7]
    if name == "b":
        raise RuntimeError("applying transform") from IndexError("b has\nno axis")
    return {"image": torch.full((1, 2, 2, 2), float("abc".index(name)))}


class Failing(torch.nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.max() == 2:
            raise self.error
        return image


def run(error: Exception, cases: Any = CASES) -> tuple[TolerantEvaluator, list[Any]]:
    outputs: list[Any] = []
    loader = DataLoader(TolerantDataset(cases, transform), batch_size=1)
    engine = TolerantEvaluator(device="cpu", val_data_loader=loader, network=Failing(error))
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: outputs.append(len(engine.state.output)))
    engine.run()
    return engine, outputs


@pytest.mark.parametrize(
    "error",
    [NonFinitePredictionError("c is infinite"), torch.OutOfMemoryError("c"), RuntimeError("c: not enough memory")],
)
def test_a_case_fails_alone(error: Exception, tmp_path: Path) -> None:
    engine, outputs = run(error, [*CASES, {"image": "/scans/d.nii.gz", "case": "D", "problem": "d is empty."}])
    assert outputs == [1, 0, 0, 0]
    found = failed_cases(engine)
    assert [case.case for case in found[::2]] == ["b", "D"]
    assert found[2].reason == "d is empty."
    assert found[0].reason == (
        "/scans/b.nii.gz cannot be processed (IndexError: b has no axis); MEDCONTEXT_DEBUG=1 shows the traceback."
    )
    write_failures(tmp_path, found)
    assert list(pd.read_csv(tmp_path / "failures.csv")["reason"]) == [case.reason for case in found]
    write_failures(tmp_path, [])
    assert not list(tmp_path.iterdir())
    said = failures_sentence(found, 4, "out")
    assert said.startswith("3 of 4 cases failed, listed in out/failures.csv: /scans/b.nii.gz cannot be processed")
    engine.run()
    assert failed_cases(engine) == found  # each run counts its own


def test_a_bug_of_the_network_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="wrong size"):
        run(RuntimeError("wrong size"))
    monkeypatch.setenv("MEDCONTEXT_DEBUG", "1")
    with pytest.raises(RuntimeError, match="applying transform"):
        run(RuntimeError("never reached"))
