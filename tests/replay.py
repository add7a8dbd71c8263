"""Prepared outputs for handlers of an evaluator, in one process or in several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from medcontext.cases import FailedCase
from medcontext.handlers import EvaluationReport
from medcontext.metrics import LabelDice
from torso import LABELS, SPACING, case

AFFINE = np.diag([*SPACING, 1.0])


class Replay:
    """An engine that gives prepared outputs, as a decollating evaluator does."""

    def __init__(self, handler: EvaluationReport, batches: list[list[dict[str, Any]]]) -> None:
        self.engine = Engine(lambda _, batch: batch)
        handler.attach(self.engine)
        self.batches = batches

    def run(self) -> Any:
        return self.engine.run(self.batches).metrics


def output(shift: int = 0, file: str = "", one_hot: bool = False) -> dict[str, Any]:
    """What is left of one case after postprocessing, the prediction ``shift`` voxels off."""
    image, label, prediction = (torch.as_tensor(np.ascontiguousarray(array))[None] for array in case(shift))
    pred = torch.nn.functional.one_hot(prediction[0].long(), 4).permute(3, 0, 1, 2).float() if one_hot else prediction
    affine = torch.as_tensor(AFFINE)
    return {
        "image": MetaTensor(image, affine=affine, meta={"filename_or_obj": file} if file else {}),
        "label": MetaTensor(label, affine=affine),
        "pred": MetaTensor(pred, affine=affine),
    }


def evaluate_share(rank: int, folder: str) -> None:
    """One of two processes; the sampler gives cases ``a`` and ``e``, which fails as ``d`` does, to both to even out."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    shifts = {"a.nii": 0, "b.nii": 1, "c.nii": 2}
    files = [["a.nii", "c.nii"], ["b.nii", "a.nii"]][rank]
    handler = EvaluationReport(Path(folder) / f"from{rank}", LABELS)
    replay = Replay(handler, [[output(shifts[file], file)] for file in files])
    failed = [FailedCase("d", "d.nii", "d.nii is empty."), FailedCase("e", "e.nii", "e.nii is empty.")][rank:]
    replay.engine.add_event_handler(Events.EPOCH_STARTED, lambda: setattr(replay.engine.state, "failed_cases", failed))
    metrics = replay.run()
    (Path(folder) / f"metrics{rank}.json").write_text(json.dumps(metrics))
    torch.distributed.destroy_process_group()


def dice_share(rank: int, folder: str) -> None:
    """One of two processes with two and one cases; the second process finds nothing in its case."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    label = torch.eye(2)[:, :, None, None]
    engine = Engine(lambda _, batch: batch)
    LabelDice({"organ": 1}).attach(engine, "val_mean_dice")
    cases = [(label, label), (label, label)] if rank == 0 else [(torch.zeros_like(label), label)]
    metrics = engine.run([([pred], [truth]) for pred, truth in cases]).metrics
    (Path(folder) / f"metrics{rank}.json").write_text(json.dumps(metrics))
    torch.distributed.destroy_process_group()
