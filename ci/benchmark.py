"""Measure what training costs and what its choices are worth, side by side in one run.

python ci/benchmark.py step          time and memory of a MedContext step against a plain one
python ci/benchmark.py networks      time, memory and operations of the networks as published
python ci/benchmark.py recipes       GPU memory and time of a training step by the recipe of each bundle
python ci/benchmark.py loader        time to load a batch, with and without caches, against a step that uses it
python ci/benchmark.py prediction    time and memory of predicting a CT, beside plain MONAI and nnU-Net's export
python ci/benchmark.py phantoms      generated volumes per second on one core
python ci/benchmark.py modes         Dice of the modes and consistency forms on phantoms, over seeds
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fire
import pandas as pd
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle import run as run_bundle
from monai.losses import DiceCELoss
from monai.networks.nets import UNETR, SwinUNETR
from monai.utils import set_determinism
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medcontext.engines import MedContextTrainer
from medcontext.losses import MedContextLoss
from medcontext.networks import NNFormer, ResidualEncoderUNet, UNETRPlusPlus, make_teacher, prepare_network
from medcontext.phantoms.cohort import write_phantoms
from prediction_costs import prediction
from sync_bundles import bundle_folders

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "bundles" / "medcontext_unetr" / "configs"

# every variant trains the same number of steps, on the same crops
VARIANTS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "baseline": ("baseline", {}),
    "masking_only": ("masking_only", {}),
    "medcontext without consistency": (None, {"consistency_weight": 0.0}),
    "medcontext official": (None, {"consistency_weight": 0.5, "consistency#form": "official"}),
    "medcontext relative": (None, {"consistency_weight": 0.5, "consistency#form": "relative"}),
    "medcontext probability_mse": (None, {"consistency_weight": 0.5, "consistency#form": "probability_mse"}),
    "medcontext probability_kl": (None, {"consistency_weight": 0.5, "consistency#form": "probability_kl"}),
}

# for Synapse: network, crop, and what its authors print: millions of parameters, and "GFLOPs" that count MACs
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], float | None, float | None]] = {
    "UNETR": (lambda: UNETR(1, 14, 96, feature_size=32), (96, 96, 96), 92.49, 75.76),  # theirs has feature size 16
    "SwinUNETR": (lambda: SwinUNETR(1, 14, feature_size=48), (96, 96, 96), 62.83, 384.2),
    "nnFormer": (lambda: NNFormer.for_dataset("btcv"), (64, 128, 128), 150.5, 213.4),
    "UNETR++": (lambda: UNETRPlusPlus.for_dataset("btcv"), (64, 128, 128), 42.96, 47.98),
    "ResEnc U-Net": (lambda: ResidualEncoderUNet(1, 14), (128, 128, 128), None, None),  # nnU-Net plans it by the data
}

# how a step may be taken: mode and passes
STEPS = {
    "plain": ("baseline", "single"),
    "one pass": ("medcontext", "single"),
    "separate passes": ("medcontext", "separate"),
    "one batch": ("medcontext", "batched"),
}

# how a bundle trains: overlays and overrides
RECIPES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "plain": (("baseline",), {}),
    "one pass": ((), {}),
    "separate passes": ((), {"passes": "separate", "consistency_weight": 0.5}),
    "one batch": ((), {"passes": "batched", "consistency_weight": 0.5}),
    "small_gpu": (("small_gpu",), {}),
}


def step(size: int = 48, batch_size: int = 2, feature_size: int = 16, repeats: int = 7) -> None:
    """Median time of a step, and peak memory in a process of its own, as ratios to plain training."""
    device = _device()
    trainers = {name: _trainer(size, batch_size, feature_size, device, *kind) for name, kind in STEPS.items()}

    times = _median_times({name: partial(_one_epoch, trainer) for name, trainer in trainers.items()}, repeats)
    memory = {name: _peak_memory("peak", name, size, batch_size, feature_size) for name in STEPS}
    table = pd.DataFrame({"time / plain": times / times["plain"], "peak memory, MiB": memory})
    print(
        f"UNETR {size}^3, feature size {feature_size}, batch {batch_size}, {device}, {torch.get_num_threads()} threads"
    )
    print(table.round(2).to_string())


def peak(name: str, size: int, batch_size: int, feature_size: int) -> None:
    """Peak memory of a step; called by ``step``."""
    _print_peak(_trainer(size, batch_size, feature_size, _device(), *STEPS[name]).run)


def networks(repeats: int = 5) -> None:
    """Median time of an evaluating forward pass, side by side, and its peak memory, in float32 and batches of one.

    GFLOPs are those of convolutions and matrix products, those within attention included, two for a multiplication
    and addition; norms, activations, softmax and resizing are left out. They are counted without computing, so that
    no fused kernel hides any. The full resolution alone is predicted: nnFormer's coarser heads would add 1.7.
    nnFormer and UNETR++ use PyTorch's ``scaled_dot_product_attention``. UNETR and SwinUNETR are MONAI's own, with
    plain products; it switches fused attention on in SwinUNETR alone, by an argument, and without gradients only.
    """
    times = _median_times({name: _forward(name) for name in NETWORKS}, repeats)
    sizes = {name: _operations_and_parameters(name) for name in NETWORKS}
    rows = {
        name: {
            "time / UNETR": times[name] / times["UNETR"],
            "peak memory, MiB": _peak_memory("forward_peak", name),
            "GFLOPs": sizes[name][0],
            "published, MACs": macs,
            "parameters, M": sizes[name][1],
            "published, M": parameters,
        }
        for name, (_, _, parameters, macs) in NETWORKS.items()
    }
    print(f"UNETR takes {times['UNETR']:.2f} s, {_device()}, {torch.get_num_threads()} threads")
    print(pd.DataFrame.from_dict(rows, orient="index").round(2).to_string())


def forward_peak(name: str) -> None:
    """Peak memory of a forward pass, the weights not counted; called by ``networks``."""
    _print_peak(_forward(name))


def _forward(name: str) -> Callable[[], object]:
    build, size, *_ = NETWORKS[name]
    torch.manual_seed(0)
    network = prepare_network(build().eval(), _device(), None, (1, *size))
    image = torch.randn(1, 1, *size, device=_device())
    return torch.no_grad()(partial(network, image))


def _operations_and_parameters(name: str) -> tuple[float, float]:
    """Operations of a forward pass in thousand millions, and parameters in millions."""
    build, size, *_ = NETWORKS[name]
    network = build().eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, *size, device="meta"))
    return counter.get_total_flops() / 1e9, sum(parameter.numel() for parameter in network.parameters()) / 1e6


def recipes(repeats: int = 10) -> None:
    """Peak GPU memory of the bundles' training for BTCV, weights and optimizer included, and median time of a step.

    Networks, crops, batches and mixed precision are those of the configurations; the crops are random.
    """
    if _device() != "cuda":
        raise SystemExit("recipes measures a GPU; PyTorch finds none.")
    rows = []
    for folder in bundle_folders(ROOT / "bundles"):
        for name, (overlays, overrides) in RECIPES.items():
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            trainer = _recipe_trainer(folder / "configs", overlays, overrides)
            seconds = _median_times({name: partial(_one_epoch, trainer)}, repeats)[name]
            del trainer
            memory = torch.cuda.max_memory_allocated() / 2**30
            rows.append({"bundle": folder.name, "recipe": name, "peak memory, GiB": memory, "seconds": seconds})
    table = pd.DataFrame(rows)
    plain = table[table["recipe"] == "plain"].set_index("bundle")["seconds"]
    table["time / plain"] = table.pop("seconds") / table["bundle"].map(plain)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, plain step in seconds:")
    print(plain.round(3).to_string())
    print(table.round(2).to_string(index=False))


def _recipe_trainer(configs: Path, overlays: tuple[str, ...], overrides: dict[str, Any]) -> MedContextTrainer:
    """The trainer of a bundle with one batch of random crops, and without handlers, which need runs and data."""
    set_determinism(0)
    parser = _parser(configs, ("train", *overlays), max_epochs=1, **overrides)
    crops = parser.get_parsed_content("batch_size") * parser.get_parsed_content("num_samples")
    shape = (crops, 1, *parser.get_parsed_content("roi_size"))
    parser["train#handlers"] = []
    parser["train#dataloader"] = [_random_batch(shape, classes=parser.get_parsed_content("out_channels"))]
    trainer: MedContextTrainer = parser.get_parsed_content("train#trainer")
    return trainer


def _one_epoch(trainer: MedContextTrainer) -> None:
    trainer.state.max_epochs += 1
    trainer.run()


def loader(num_cases: int = 10, epochs: int = 5) -> None:
    """Median time to load a batch of phantom.json on the CPU, in the main process, as a share of its training step.

    Below 1 a single loader process keeps ahead of training. Disk and memory hold what the deterministic transforms
    make of each case; the first epoch, which fills them, is not counted.
    """
    kinds: dict[str, dict[str, Any]] = {
        "no cache": {"cache_rate": 0.0},
        "memory": {"cache_rate": 1.0},
        "disk": {"cache_dir": "cache"},
    }
    with tempfile.TemporaryDirectory() as home, _environment(MEDCONTEXT_HOME=home):
        write_phantoms(Path(home) / "data" / "btcv", num_cases=num_cases, progress=False)
        kinds["disk"]["cache_dir"] = str(Path(home) / "cache")
        loaders = {name: _phantom_loader(settings) for name, settings in kinds.items()}
        times: dict[str, list[float]] = {name: [] for name in loaders}
        for epoch in range(epochs + 1):
            for name, batches in loaders.items():
                started = time.perf_counter()
                count = sum(1 for _ in batches)
                if epoch:
                    times[name].append((time.perf_counter() - started) / count)
    trainer = _trainer(48, 2, 16, _device(), *STEPS["one pass"])
    trainer.run()
    trainer.state.max_epochs += epochs
    started = time.perf_counter()
    trainer.run()
    steps = (time.perf_counter() - started) / epochs
    table = pd.DataFrame({"seconds a batch": {name: statistics.median(values) for name, values in times.items()}})
    print(f"a MedContext step takes {steps:.2f} s, {_device()}, {torch.get_num_threads()} threads")
    print(table.assign(**{"share of a step": table["seconds a batch"] / steps}).round(3).to_string())


def _phantom_loader(settings: dict[str, Any]) -> Any:
    return _parser(CONFIGS, ("train", "btcv", "phantom"), **settings).get_parsed_content("train#dataloader")


def _parser(configs: Path, names: tuple[str, ...], **settings: Any) -> ConfigParser:
    """The configuration of some files of a bundle."""
    files = [str(configs / f"{name}.json") for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workflow = ConfigWorkflow(files, logging_file=False, workflow_type="train", **settings)
    workflow.initialize()
    return workflow.parser


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _median_times(actions: dict[str, Callable[[], object]], repeats: int) -> pd.Series[float]:
    """Seconds that each action takes, all of them in turn, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats + 1):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            if _device() == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    return pd.Series({name: statistics.median(seconds[1:]) for name, seconds in times.items()})


def _print_peak(action: Callable[[], object]) -> None:
    """Print the peak memory in MiB above the level before an action, on Linux or CUDA."""
    if _device() == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
        action()
        print(torch.cuda.max_memory_allocated() / 2**20 - before)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
        before = _memory("VmRSS")
        action()
        print(_memory("VmHWM") - before)


def _memory(field: str) -> float:
    """A value of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _peak_memory(*command: object) -> float:
    """What a command of this file that measures memory prints, in a process of its own."""
    words = [sys.executable, __file__, *map(str, command)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def _trainer(size: int, batch_size: int, feature_size: int, device: str, mode: str, passes: str) -> MedContextTrainer:
    torch.manual_seed(0)
    shape = (size,) * 3
    network = prepare_network(
        UNETR(1, 14, shape, feature_size=feature_size, hidden_size=96, mlp_dim=384, num_heads=4),
        device,
        None,
        (1, *shape),
    )
    return MedContextTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=[_random_batch((batch_size, 1, *shape), classes=14)],
        network=network,
        teacher=make_teacher(network),
        mode=mode,
        passes=passes,
        optimizer=torch.optim.AdamW(network.parameters()),
        loss_function=MedContextLoss(
            DiceCELoss(to_onehot_y=True, softmax=True), consistency_weight=0.0 if passes == "single" else 0.5
        ),
    )


def _random_batch(shape: tuple[int, ...], classes: int) -> dict[str, torch.Tensor]:
    image, mask = torch.randn(shape), (torch.rand(shape) > 0.5).float()
    label = torch.randint(0, classes, shape).float()
    return {"image": image, "label": label, "masked_image": image * (1 - mask), "context_mask": mask}


def phantoms(num_cases: int = 30) -> None:
    """Volumes of 96 × 96 × 96 that one core generates and writes in a second."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        write_phantoms(folder, num_cases=num_cases, progress=False)
        print(f"{num_cases / (time.process_time() - started):.1f} volumes per CPU second")


def modes(
    seeds: int = 3,
    train_fraction: float = 0.2,
    max_epochs: int = 150,
    variants: str | tuple[str, ...] = tuple(VARIANTS),
) -> None:
    """Test Dice of each variant: same crops, same steps, a small UNETR on whole phantoms at 4.5 × 4.5 × 6 mm.

    The last state is taken, so the test cases choose nothing.
    """
    names = [variants] if isinstance(variants, str) else list(variants)
    rows = []
    with tempfile.TemporaryDirectory() as home, _environment(MEDCONTEXT_HOME=home):
        write_phantoms(Path(home) / "data" / "btcv", size=(64, 64, 64), spacing=(2.25, 2.25, 3.0), progress=False)
        for seed in range(seeds):
            for name in names:
                rows.append(
                    {"variant": name, "seed": seed, "dice": _dice(name, seed, train_fraction, max_epochs, home)}
                )
                print(rows[-1], file=sys.stderr, flush=True)
    table = pd.DataFrame(rows).pivot(index="variant", columns="seed", values="dice").loc[names]
    print(table.assign(mean=table.mean(axis=1), sd=table.std(axis=1)).round(4).to_string())


def _dice(name: str, seed: int, train_fraction: float, max_epochs: int, home: str) -> float:
    overlay, overrides = VARIANTS[name]
    files = ["train", "phantom", *([overlay] if overlay else [])]
    run_name = f"{name}-{seed}".replace(" ", "_")
    settings = {
        "spacing": [4.5, 4.5, 6.0],
        "roi_size": [32, 32, 32],
        "network_def#feature_size": 8,
        "train_fraction": train_fraction,
        "max_epochs": max_epochs,
        "val_interval": max_epochs,
        "select_checkpoint": "last",
        "reported": "@labels",
        "cases#validation": "$medcontext.data.load_cases(@datalist, 'test')",
        "seed": seed,
        "run_name": run_name,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_bundle(
            "training",
            config_file=[str(CONFIGS / f"{file}.json") for file in files],
            logging_file=str(CONFIGS / "logging.conf"),
            **settings,
            **overrides,
        )
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{home}/mlruns.db")
    run_file = Path(home) / "runs" / "medcontext_unetr" / run_name / "models" / "run.json"
    run = client.get_run(json.loads(run_file.read_text())["mlflow_run_id"])
    return float(run.data.metrics["dice/val_mean_dice"])


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":
    fire.Fire(
        {f.__name__: f for f in (step, networks, recipes, loader, prediction, phantoms, modes, peak, forward_peak)}
    )
