"""Measure what predicting one scan costs beside plain ways to do it, see ``benchmark.py prediction``."""

from __future__ import annotations

import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
import pandas as pd
import psutil
import torch
from monai.bundle import run as run_bundle
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
)
from scipy.ndimage import zoom

from medcontext.scans.grids import parallel_grids

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "bundles" / "medcontext_unetr" / "configs"
EXPORT = Path(__file__).with_name("nnunet_export.py")

CLASSES, SPACING, WINDOW = 14, (1.5, 1.5, 2.0), 96
NETWORK = {"spatial_dims": 3, "in_channels": 1, "out_channels": CLASSES, "channels": [4, 8], "strides": [2]}
SHORT = {"size": (192, 192, 60), "repeats": 2}
SECONDS_BETWEEN_SAMPLES = 0.1
WAYS = {
    "scan to label map": {"MedContext": "bundle", "MONAI, class by class": "monai"},
    "logits to label map": {"MedContext": "slabs", "nnU-Net": "nnunet"},
}


def prediction(
    size: Sequence[int] = (512, 512, 150),
    voxel: Sequence[float] = (0.76, 0.76, 3.0),
    repeats: int = 3,
    short: bool = False,
    nnunet: str | None = None,
    output_dir: str | None = None,
) -> None:
    """Processor time and peak memory of one CT's prediction with 14 classes, a tiny network and one thread.

    From scan to label map, the bundle's ``inferring`` is measured beside MONAI's transforms and sliding window with
    one class inverted at a time. From the same logits to a label map, the bundle's slabs are measured beside nnU-Net's
    export. Every measurement has a process of its own; rounds over all ways alternate after one to warm up. Time is
    that after imports, of all processes; memory is that of all processes, imports included.

    Args:
        size: voxels of the CT.
        voxel: their size in mm.
        repeats: rounds that count.
        short: measure a smaller CT, within minutes.
        nnunet: Python of an environment with nnU-Net, such as ``.venv-nnunet/bin/python``; without it, nnU-Net is left
            out.
        output_dir: folder for ``prediction.json`` and ``prediction.md``; without it, the table is printed only.
    """
    size, repeats = (SHORT["size"], SHORT["repeats"]) if short else (tuple(size), repeats)
    measured: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        _write_inputs(Path(folder), size, voxel)
        for round_number in range(repeats + 1):
            for task, ways in WAYS.items():
                for name, way in ways.items():
                    if way == "nnunet" and nnunet is None:
                        continue
                    found = _measured(way, folder, nnunet)
                    print(f"round {round_number}, {task}, {name}: {found}", file=sys.stderr, flush=True)
                    if round_number:
                        measured.setdefault((task, name), []).append(found)
    table = _table(measured)
    scan = {"size": list(size), "voxel_mm": list(voxel), "classes": CLASSES, "repeats": repeats}
    text = _markdown(table, scan)
    print(text)
    if output_dir is not None:
        content = {**_circumstances(), "scan": scan, "rows": table.to_dict("records")}
        Path(output_dir, "prediction.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
        Path(output_dir, "prediction.md").write_text(text, encoding="utf-8")


def measure(way: str, folder: str) -> None:
    """Print the seconds of one way; called by ``prediction``."""
    torch.set_num_threads(1)
    action = {"bundle": _by_bundle, "monai": _by_monai, "slabs": _by_slabs}[way]
    started, clock = _processor_seconds(), time.perf_counter()
    action(Path(folder))
    print(json.dumps({"processor_s": _processor_seconds() - started, "clock_s": time.perf_counter() - clock}))


def _write_inputs(folder: Path, size: Sequence[int], voxel: Sequence[float]) -> None:
    """Write a CT of soft tissue in air, the weights of a network, and smooth logits at the network's spacing."""
    random = np.random.default_rng(0)
    coarse = [max(voxels // 20, 2) for voxels in size]
    texture = zoom(random.normal(size=coarse), np.divide(size, coarse), order=1)
    across, down = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    body = (across**2 / 0.8 + down**2 / 0.5 < 1)[..., None]
    values = np.where(body, 40 + 60 * texture + random.normal(0, 12, size), -1000.0)
    affine = np.diag([-voxel[0], -voxel[1], voxel[2], 1])
    nib.save(nib.Nifti1Image(values.astype(np.int16), affine), folder / "scan.nii.gz")
    torch.manual_seed(0)
    torch.save(UNet(**NETWORK).state_dict(), folder / "model.pt")
    shape = [round((voxels - 1) * mm / target + 1) for voxels, mm, target in zip(size, voxel, SPACING, strict=True)]
    noise = torch.randn(1, CLASSES, *(max(voxels // 8, 2) for voxels in shape))
    np.save(folder / "logits.npy", torch.nn.functional.interpolate(4 * noise, shape, mode="trilinear")[0].numpy())


def _by_bundle(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_bundle(
            "inferring",
            config_file=str(CONFIGS / "inference.json"),
            logging_file=False,
            network_def={"_target_": "UNet", **NETWORK},
            dataset_dir=str(folder / "scan.nii.gz"),
            ckpt_path=str(folder / "model.pt"),
            output_dir=str(folder),
            predictions_dir=str(folder / "predictions"),
            device="$torch.device('cpu')",
        )


@torch.no_grad()
def _by_monai(folder: Path) -> None:
    """Predict as MONAI's tutorials do, with one class at a time in the scan's geometry."""
    transform = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=SPACING, mode="bilinear"),
            ScaleIntensityRanged("image", a_min=-175, a_max=250, b_min=0, b_max=1, clip=True),
        ]
    )
    network = UNet(**NETWORK).eval()
    network.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    data = transform({"image": str(folder / "scan.nii.gz")})
    logits = sliding_window_inference(data["image"][None], (WINDOW,) * 3, 4, network, 0.5, "gaussian")[0]
    probabilities = logits.as_tensor().softmax(0)
    del logits
    invert = Invertd("pred", transform, orig_keys="image", nearest_interp=False)
    for index in range(CLASSES):
        found = invert({**data, "pred": MetaTensor(probabilities[index][None])})["pred"][0].as_tensor()
        if index == 0:
            highest, labels = found, torch.zeros(found.shape, dtype=torch.uint8)
        else:
            labels[found > highest] = index
            highest = torch.maximum(highest, found)
    header = nib.load(folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image(labels.numpy(), header.affine), folder / "monai.nii.gz")


def _by_slabs(folder: Path) -> None:
    scan, logits = nib.load(folder / "scan.nii.gz"), torch.from_numpy(np.load(folder / "logits.npy"))
    grid = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1])
    grid_map = parallel_grids(logits.shape[1:], grid, scan.shape, scan.affine)
    if grid_map is None:
        raise RuntimeError("The grids of scan and logits are not parallel.")
    nib.save(nib.Nifti1Image(grid_map.label_map(logits).numpy(), scan.affine), folder / "slabs.nii.gz")


def _measured(way: str, folder: str, nnunet: str | None) -> dict[str, float]:
    """Run a way in a process of its own, and return what it prints with the peak of its memory in GB."""
    here = [sys.executable, __file__, "measure", way, folder]
    words = [str(nnunet), str(EXPORT), folder, *map(str, SPACING)] if way == "nnunet" else here
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(words, stdout=output)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _memory_of(process.pid))
            time.sleep(SECONDS_BETWEEN_SAMPLES)
        if process.returncode:
            raise SystemExit(f"{' '.join(words)} ended with exit code {process.returncode}.")
        output.seek(0)
        return {**json.loads(output.read().splitlines()[-1]), "peak_gb": peak / 1e9}


def _memory_of(pid: int) -> float:
    """Bytes of a process and its children; what they share counts once."""
    total = 0.0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:  # it has just ended
        pass
    return total


def _processor_seconds() -> float:
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in times)


def _table(measured: Mapping[tuple[str, str], Sequence[Mapping[str, float]]]) -> pd.DataFrame:
    """Medians, the peak of all rounds, and ratios to MedContext's."""
    middle: Callable[[Sequence[float]], float] = statistics.median
    rows = [
        {
            "task": task,
            "way": name,
            "processor_s": middle([each["processor_s"] for each in found]),
            "clock_s": middle([each["clock_s"] for each in found]),
            "peak_gb": max(each["peak_gb"] for each in found),
        }
        for (task, name), found in measured.items()
    ]
    table = pd.DataFrame(rows)
    own = table[table["way"] == "MedContext"].set_index("task")
    for column in ("processor_s", "peak_gb"):
        table[f"{column.split('_')[0]}_ratio"] = table[column] / table["task"].map(own[column])
    return table


def _circumstances() -> dict[str, Any]:
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    import monai

    return {
        "command": f"python ci/benchmark.py {' '.join(sys.argv[1:])}",
        "machine": f"{model}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "monai": monai.__version__,
            "numpy": np.__version__,
        },
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def _markdown(table: pd.DataFrame, scan: Mapping[str, Any]) -> str:
    found = _circumstances()
    rows = [
        f"| {row.task} | {row.way} | {row.processor_s:.1f} | {row.clock_s:.1f} | {row.peak_gb:.2f} "
        f"| {row.processor_ratio:.2f} | {row.peak_ratio:.2f} |"
        for row in table.itertuples()
    ]
    size, voxel = (" × ".join(f"{value:g}" for value in scan[key]) for key in ("size", "voxel_mm"))
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join(
        [
            "# What a prediction costs",
            "",
            f"A generated CT of {size} voxels of {voxel} mm, {scan['classes']} classes, a tiny network, one thread: "
            f"medians of {scan['repeats']} rounds, the highest peak of all, and ratios to MedContext.",
            "",
            "| task | way | processor s | clock s | peak GB | time ÷ MedContext | peak ÷ MedContext |",
            "|---|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
            f"`{found['command']}` on {found['machine']}; {versions}.",
            "",
        ]
    )


if __name__ == "__main__":
    fire.Fire({"measure": measure})
