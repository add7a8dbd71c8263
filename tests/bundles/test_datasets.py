"""Every bundle on generated twins of every dataset, from training to label maps in the original geometry."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine

from bundle_runs import (
    BUNDLES,
    NNFORMER,
    RESENC_UNET,
    SWIN_UNETR,
    UNETR,
    UNETR_PLUS_PLUS,
    for_bundles,
    read_json,
    run,
    train,
    workflow_for,
)
from medcontext.bundle import check_network

REPORTED = {
    "btcv": ["spleen", "right_kidney", "left_kidney", "gallbladder", "liver", "stomach", "aorta", "pancreas"],
    "acdc": ["right_ventricle", "myocardium", "left_ventricle"],
    "brats": ["whole_tumor", "tumor_core", "enhancing_tumor"],
    "hippocampus": ["anterior", "posterior"],
}
QUICK = {
    (SWIN_UNETR, "brats", "baseline"),
    (NNFORMER, "acdc", "medcontext"),
    (UNETR_PLUS_PLUS, "brats", "medcontext"),
    (UNETR, "hippocampus", "medcontext"),
    (RESENC_UNET, "acdc", "medcontext"),
}
COMBINATIONS = [
    pytest.param(*names, marks=[pytest.mark.slow] * (names not in QUICK))
    for names in product(BUNDLES, REPORTED, ("medcontext", "baseline"))
]


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize(("bundle", "dataset", "mode"), COMBINATIONS)
def test_trains_evaluates_and_predicts(
    bundle: str, dataset: str, mode: str, home: Path, other_cohorts: Callable[[str], Path]
) -> None:
    data = home / "data" / dataset
    if dataset != "btcv":
        data.symlink_to(other_cohorts(dataset))
    modes = [] if mode == "medcontext" else [mode]
    folder = train(bundle, home, dataset, *modes, max_epochs=1)
    models = str(folder / "models")
    run(bundle, "evaluating", "train", dataset, *modes, "evaluate", ckpt_dir=models)
    table = pd.read_csv(folder / "evaluation" / "metrics.csv")
    cases = read_json(data / "dataset.json")["test"]
    assert len(table) == len(cases) * len(REPORTED[dataset])
    assert list(dict.fromkeys(table["label"])) == sorted(REPORTED[dataset], key=REPORTED[dataset].index)
    assert table["dice"].between(0, 1).sum() + table["dice"].isna().sum() == len(table)

    run(bundle, "inferring", "inference", dataset, ckpt_dir=models, dataset_dir=str(data))
    channels = workflow_for(bundle, "train", dataset).parser.get_parsed_content("out_channels")
    for case in cases:
        image = nib.load(data / case["image"])
        name = Path(case["image"]).name.removesuffix(".nii.gz")
        predicted = nib.load(folder / "predictions" / f"{name}_seg.nii.gz")
        assert predicted.shape == image.shape[:3]
        assert predicted.get_data_dtype() == np.uint8
        np.testing.assert_allclose(predicted.affine, image.affine, atol=1e-4)
        assert np.asarray(predicted.dataobj).max() < channels


def _one_hot(label: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(label.as_tensor()[0].long(), 4).movedim(-1, 0)


def test_regions_are_unions_of_the_classes(home: Path, other_cohorts: Callable[[str], Path]) -> None:
    (home / "data" / "brats").symlink_to(other_cohorts("brats"))
    get = workflow_for(UNETR, "train", "brats").parser.get_parsed_content
    label = get("validate#preprocessing")(get("cases#validation")[0])["label"]
    edema, core, whole = (int(np.isin(label, ids).sum()) for ids in ([1], [2, 3], [1, 2, 3]))
    assert 0 < core < whole
    engine = Engine(lambda _, items: items)
    get("validate#key_metric")["val_mean_dice"].attach(engine, "val_mean_dice")
    prediction = (label == 1).float()  # all of the edema, none of the core
    metrics = engine.run([[{"pred": _one_hot(prediction), "label": _one_hot(label)}]]).metrics
    dice = 2 * edema / (edema + whole)
    assert metrics == {
        "val_dice_whole_tumor": pytest.approx(dice),
        "val_dice_tumor_core": 0,
        "val_dice_enhancing_tumor": 0,
        "val_mean_dice": pytest.approx(dice / 3),
    }


@for_bundles(UNETR, NNFORMER)
def test_overlays_of_every_kind_resolve_for_training_and_prediction(
    bundle: str, home: Path, other_cohorts: Callable[[str], Path]
) -> None:
    """A network of one size, and data of the dataset that was named, whatever is combined."""
    for dataset in ("acdc", "brats", "hippocampus"):
        (home / "data" / dataset).symlink_to(other_cohorts(dataset))
    for dataset, scale in product(("", *REPORTED), ("", "phantom", "small_gpu")):
        overlays = [name for name in (dataset, scale) if name]
        entries = [
            workflow_for(bundle, name, *overlays, tiny=False).parser.get_parsed_content
            for name in ("train", "inference")
        ]
        for key in ("in_channels", "out_channels", "orientation", "spacing", "roi_size"):
            assert entries[0](key) == entries[1](key), (overlays, key)
        assert Path(entries[1]("dataset_dir")).name == Path(entries[0]("dataset_dir")).name == (dataset or "btcv")
        if scale == "phantom":
            networks = [get("network_def") for get in entries]
            shapes = [{key: value.shape for key, value in network.state_dict().items()} for network in networks]
            assert shapes[0] == shapes[1]
            check_network(networks[0], *(entries[0](key) for key in ("in_channels", "out_channels", "roi_size")))
            assert 5 <= entries[0]("max_epochs") <= 48


@for_bundles(UNETR, NNFORMER)
def test_augmentation_moves_image_and_label_alike(bundle: str, home: Path) -> None:
    transforms = workflow_for(bundle, "train").parser.get_parsed_content("augmentation#spatial")[:2]
    grid = torch.stack(torch.meshgrid(*[torch.arange(48.0)] * 3, indexing="ij"))
    ball = (((grid - torch.tensor([20.0, 26.0, 22.0]).view(3, 1, 1, 1)) ** 2).sum(0) < 100).float()[None]
    for transform in transforms:
        transform.prob = 1.0
        for seed in range(4):
            transform.set_random_state(seed)
            moved = transform({"image": ball.clone(), "label": ball.clone()})
            centres = [(grid * moved[key]).flatten(1).sum(1) / moved[key].sum() for key in ("image", "label")]
            assert (centres[0] - centres[1]).abs().max() < 0.15, (type(transform).__name__, seed)
            assert set(moved["label"].unique().tolist()) == {0.0, 1.0}


@for_bundles(UNETR, NNFORMER)
def test_thick_slices_are_neither_turned_nor_scaled_across(
    bundle: str, home: Path, other_cohorts: Callable[[str], Path]
) -> None:
    (home / "data" / "acdc").symlink_to(other_cohorts("acdc"))
    for dataset, expected in (("acdc", True), ("btcv", False)):
        get = workflow_for(bundle, "train", dataset).parser.get_parsed_content
        rotate, zoom = get("augmentation#spatial")[:2]
        turns, thick = rotate.rand_rotate, [code in "IS" for code in get("orientation")]
        for found, is_thick in zip((turns.range_x, turns.range_y, turns.range_z), thick, strict=True):
            assert found == pytest.approx((-0.5236, 0.5236) if is_thick or not expected else (0, 0), abs=1e-4)
        assert tuple(zoom.rand_zoom.min_zoom) == (tuple(1.0 if n else 0.7 for n in thick) if expected else (0.7,))
