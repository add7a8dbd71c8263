"""What only a CUDA device can show; without one these tests are skipped."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from bundle_runs import command, for_bundles, run, runs_of, train, workflow_for

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def exact() -> Iterator[None]:
    """Convolutions in full float32, which cuDNN's TF32 is not."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@for_bundles()
def test_a_network_gives_what_it_gives_on_the_cpu(bundle: str, home: Path, exact: None) -> None:
    workflow = workflow_for(bundle, "train")
    torch.manual_seed(0)
    network = workflow.parser.get_parsed_content("network_def").eval()
    image = torch.randn(2, 1, *workflow.parser.get_parsed_content("roi_size"))
    with torch.no_grad():
        expected = network(image)
        found = network.cuda()(image.cuda()).cpu()
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@for_bundles()
def test_mixed_precision_trains_resumes_evaluates_and_predicts(bundle: str, home: Path) -> None:
    cuda = {"device": "$torch.device('cuda')", "amp": True}
    folder = train(bundle, home, **cuda, max_epochs=2, passes="batched", consistency_weight=0.5)
    scaler = torch.load(folder / "models" / "last.pt", weights_only=True)["scaler"]
    assert scaler["scale"] > 0
    train(bundle, home, "resume", **cuda, max_epochs=4)
    epochs = pd.read_csv(folder / "models" / "history.csv")
    assert epochs["step"].tolist() == [2, 4, 6, 8]
    assert np.isfinite(epochs[["train_loss", "val_mean_dice"]]).all(axis=None)

    models = str(folder / "models")
    run(bundle, "evaluating", "train", "evaluate", ckpt_dir=models, **cuda)
    (found,) = runs_of(home)
    assert found.info.status == "FINISHED"
    assert found.data.tags["medcontext.gpu"] == torch.cuda.get_device_name()
    assert found.data.metrics["peak_memory_mib"] > 0
    assert "dice/test_mean_dice" in found.data.metrics

    scan = sorted((home / "data" / "btcv").rglob("img*.nii.gz"))[0]
    where = {"predictions_dir": str(home / "predictions"), "ckpt_path": f"{models}/model.pt"}
    run(bundle, "inferring", "inference", dataset_dir=str(scan), **where, **cuda)
    (label,) = (home / "predictions").rglob("*.nii.gz")
    assert nib.load(label).shape == nib.load(scan).shape


@for_bundles()
def test_small_gpu_fits_into_ten_gigabytes(bundle: str, home: Path) -> None:
    """The published crop and network; half a gigabyte is left to CUDA itself."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 9.5 * 2**30 / total))
    keys = {"max_epochs": 1, "num_workers": 0, "preview_interval": 0, "validation_cases": 1, "run_name": "fits"}
    try:
        workflow = workflow_for(bundle, "train", "small_gpu", tiny=False, **keys)
        workflow.run()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (home / "runs" / bundle / "fits" / "models" / "model.pt").is_file()


@for_bundles()
def test_a_process_per_gpu(bundle: str, home: Path) -> None:
    devices = torch.cuda.device_count()
    words = command(bundle, "training", "train", "multi_gpu_train", processes=devices, run_name="many", amp=True)
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (home / "runs" / bundle / "many" / "models" / "model.pt").is_file()
