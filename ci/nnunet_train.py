"""Train nnU-Net v2 for a processor time and predict, in nnU-Net's own environment; started by nnunet.py."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

CONFIGURATION, PLANS, IDENTIFIER = "3d_fullres", "nnUNetPlans", 1


class TimedTrainer(nnUNetTrainer):
    """nnU-Net's trainer, which ends after a processor time: the learning rate decays with it instead of with epochs."""

    def train_for(self, seconds: float) -> tuple[int, float]:
        """Train, and return the steps and the processor time that they took, in s."""
        self.on_train_start()
        self.network.train()
        spent = 0.0
        for step in itertools.count():
            if spent >= seconds:
                break
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - spent / seconds) ** 0.9  # that of its PolyLRScheduler
            start = time.process_time()
            loss = self.train_step(next(self.dataloader_train))["loss"]
            spent += time.process_time() - start
            if step % 20 == 0:
                print(f"step {step}, {spent:.0f} of {seconds:.0f} s, loss {float(loss):.3f}", flush=True)
        return step, spent


def prepare(name: str, batch_size: int | None) -> tuple[dict[str, object], dict[str, object]]:
    """Plan and preprocess, and return plans and dataset description."""
    extract_fingerprints([IDENTIFIER], num_processes=1, check_dataset_integrity=True)
    plan_experiments([IDENTIFIER])
    folder = Path(nnUNet_preprocessed) / name
    path = folder / f"{PLANS}.json"
    plans = json.loads(path.read_text())
    if batch_size is not None:
        plans["configurations"][CONFIGURATION]["batch_size"] = batch_size
        path.write_text(json.dumps(plans, indent=4))
    preprocess([IDENTIFIER], PLANS, configurations=(CONFIGURATION,), num_processes=(1,))
    return plans, json.loads((folder / "dataset.json").read_text())


def main(name: str, seconds: float, batch_size: int | None, images: str, output: str) -> None:
    """Train on a raw dataset, predict a folder of images, and say in ``training.json`` what it took."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    plans, dataset = prepare(name, batch_size)
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 - augmentation in this process, so that its time is counted
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    trainer = TimedTrainer({**plans, "continue_training": False}, CONFIGURATION, "all", dataset, device=device)
    trainer.initialize()
    steps, spent = trainer.train_for(seconds)
    predictor = nnUNetPredictor(device=device, perform_everything_on_device=device.type == "cuda", allow_tqdm=False)
    trainer.set_deep_supervision_enabled(False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        dataset,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    predictor.predict_from_files(images, output, num_processes_preprocessing=1, num_processes_segmentation_export=1)
    configuration = plans["configurations"][CONFIGURATION]
    record = {"version": version("nnunetv2"), **{name: configuration[name] for name in ("patch_size", "batch_size")}}
    Path(output, "training.json").write_text(json.dumps({**record, "steps": steps, "processor_seconds": spent}))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(given[0], float(given[1]), int(given[2]) or None, given[3], given[4])
