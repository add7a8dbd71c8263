"""What each bundle trains with, against the published constants written out here once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.optimizers import WarmupCosineSchedule

from bundle_runs import (
    NNFORMER,
    RESENC_UNET,
    ROOT,
    SWIN_UNETR,
    UNETR,
    UNETR_PLUS_PLUS,
    config_files,
    for_bundles,
    read_json,
    workflow_for,
)
from medcontext.engines import WarmupPolynomialSchedule
from medcontext.networks import NNFormer, ResidualEncoderUNet, UNETRPlusPlus
from medcontext.phantoms.cohort import write_phantoms

DEPTH_FIRST = (NNFORMER, UNETR_PLUS_PLUS, RESENC_UNET)
COHORTS: dict[str, dict[str, Any]] = {
    "btcv": {"num_cases": 6, "size": (48, 48, 48), "spacing": (3.0, 3.0, 4.0)},
    "acdc": {"num_cases": 6, "size": (64, 64, 8), "spacing": (3.0, 3.0, 10.0)},
    "brats": {"num_cases": 4, "size": (48, 48, 48), "spacing": (3.0, 3.0, 3.0)},
}
# nobody published these networks for the hippocampus: finer patches for the smaller crop, Synapse's otherwise
CROP = {"img_size": (48, 64, 48), "patch_size": 2, "out_channels": 3}
HIPPOCAMPUS = {NNFORMER: {**CROP, "embed_dim": 96, "num_heads": (3, 6, 12, 24)}, UNETR_PLUS_PLUS: CROP}
# the topologies that nnU-Net's ResEnc M plans for these crops and spacings
RESENC: dict[str, dict[str, Any]] = {
    "btcv": {"features_per_stage": (32, 64, 128, 256, 320, 320), "n_blocks_per_stage": (1, 3, 4, 6, 6, 6)},
    "acdc": {
        "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
        "kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    },
    "brats": {"strides": (1, 2, 2, 2, 2, 2)},
    "hippocampus": {"features_per_stage": (32, 64, 128, 256), "n_blocks_per_stage": (1, 3, 4, 6)},
}
CHANNELS = {"btcv": (1, 14), "acdc": (1, 4), "brats": (4, 4), "hippocampus": (1, 3)}
PARAMETERS = {
    UNETR: 101_805_646,
    SWIN_UNETR: 62_187_296,
    NNFORMER: 150_054_210,
    UNETR_PLUS_PLUS: 42_952_850,
    RESENC_UNET: 102_359_430,
}


@for_bundles()
@pytest.mark.parametrize("dataset", ["btcv", "acdc", "brats", "hippocampus"])
@pytest.mark.parametrize("name", ["train", pytest.param("inference", marks=pytest.mark.slow)])
def test_the_network_is_the_published_one(bundle: str, dataset: str, name: str) -> None:
    parser = ConfigParser({})
    for file in config_files(bundle, name, dataset):
        parser.update(read_json(ROOT / file))
    with torch.device("cpu" if bundle == SWIN_UNETR else "meta"):  # MONAI's reads a number while it is built
        network = parser.get_parsed_content("network_def")
        variants = {NNFORMER: NNFormer, UNETR_PLUS_PLUS: UNETRPlusPlus}
        origin, changes = ("btcv", HIPPOCAMPUS.get(bundle, {})) if dataset == "hippocampus" else (dataset, {})
        published = variants[bundle].for_dataset(origin, **changes) if bundle in variants else network
        if bundle == RESENC_UNET:
            published = ResidualEncoderUNet(*CHANNELS[dataset], **RESENC[dataset])
    if dataset == "btcv":
        assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[bundle]
    shapes, expected = ({k: v.shape for k, v in net.state_dict().items()} for net in (network, published))
    assert shapes == expected
    assert str(network) == str(published)  # dropout rates and the like
    if bundle in variants:
        assert network.img_size == published.img_size


@for_bundles()
def test_optimizer_schedule_and_loss(bundle: str, home: Path) -> None:
    get = workflow_for(bundle, "train", max_epochs=10, run_name="x").parser.get_parsed_content
    schedule = get("lr_scheduler")
    (group,) = get("optimizer").param_groups
    assert len(get("train#dataloader")) == 2
    if bundle in DEPTH_FIRST:
        assert type(get("optimizer")) is torch.optim.SGD
        assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.99, True, 3e-5)
        assert group["initial_lr"] == 1e-2
        assert type(schedule) is WarmupPolynomialSchedule
        assert [schedule.factor(step) for step in (0, 10, 20)] == pytest.approx([1, 0.5**0.9, 0])
        assert get("max_grad_norm") == 12
        assert type(get("segmentation_loss")) is DeepSupervisionLoss
        weights = [2 / 3, 1 / 3, 0] if bundle == RESENC_UNET else [4 / 7, 2 / 7, 1 / 7]
        assert get("segmentation_loss").weights == pytest.approx(weights)
    else:
        assert type(get("optimizer")) is torch.optim.AdamW
        assert (group["initial_lr"], group["weight_decay"]) == (1e-4, 1e-5)
        assert type(schedule) is WarmupCosineSchedule
        assert get("max_grad_norm") is None
        assert type(get("segmentation_loss")) is DiceCELoss


@for_bundles()
@pytest.mark.parametrize(
    ("dataset", "amp", "weight", "ratio", "patch"),
    [
        ("btcv", True, 0.4, 0.4, (2, 4, 4)),
        ("acdc", True, 0.5, 0.4, (1, 4, 4)),
        ("brats", True, 0.5, 0.6, (4, 4, 4)),
        ("brats", False, 1.0, 0.6, (4, 4, 4)),
        ("hippocampus", True, 0.5, 0.4, (2, 2, 2)),
    ],
)
def test_paper_follows_the_dataset(
    bundle: str, home: Path, dataset: str, amp: bool, weight: float, ratio: float, patch: tuple[int, ...]
) -> None:
    overrides = {"dataset_dir": str(home / "data" / "btcv"), "amp": amp}
    get = workflow_for(bundle, "train", dataset, "paper", tiny=False, **overrides).parser.get_parsed_content
    masking = get("masking").dropout
    if bundle in DEPTH_FIRST:
        assert (get("consistency_weight"), masking.ratio) == (weight, ratio)
        assert (get("learning_rate"), get("warmup_fraction"), get("max_grad_norm")) == (1e-2, 0, 12)
        assert (masking.patch_size, masking.tube_axis) == (patch, 0)  # S is the first axis of SPL
    else:
        assert (get("consistency_weight"), masking.ratio) == (0.5, 0.6)
        assert (get("learning_rate"), get("warmup_fraction"), get("max_grad_norm")) == (1e-4, 0.01, None)
        assert (masking.patch_size, masking.tube_axis) == (16 if bundle == UNETR else 2, 2)
    own_script = bundle in (UNETR, SWIN_UNETR) and dataset == "btcv"
    assert get("protocol") == ("paper_unetr" if own_script else "paper")
    assert masking.mode == "tube"
    assert get("consistency").form == "official"
    assert (get("teacher_momentum"), get("teacher_warmup")) == ([0.996, 1.0], 0.01)
    assert (get("select_checkpoint"), get("cases#validation")) == ("student_last", [])
    assert (get("passes"), get("sided_mirroring"), get("mirrored_axes")) == ("separate", "allow", [0, 1, 2])


@pytest.mark.parametrize("dataset", ["btcv", "acdc", "brats"])
def test_patches_hide_as_much_of_the_organs_as_organ_dropout_does(
    home: Path, dataset: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The control answers whether it matters that organs are dropped, so it must drop as much of them."""
    data = tmp_path_factory.mktemp("cohort")
    write_phantoms(data, dataset=dataset, **COHORTS[dataset], progress=False)
    shares = []
    for overlays in ((), ("patch_dropout",)):
        keys = {"dataset_dir": str(data), "masked_share": 1.0, "run_name": "x", "validation_cases": 0, "num_samples": 1}
        workflow = workflow_for(UNETR, "train", dataset, "phantom", *overlays, tiny=False, **keys)
        preprocessing, masking = map(workflow.parser.get_parsed_content, ("validate#preprocessing", "masking"))
        masking.set_random_state(0)
        hidden = []
        for case in workflow.parser.get_parsed_content("cases#training"):
            whole = preprocessing(case)
            for _ in range(40):
                masked = masking(whole)
                hidden.append(float(masked["context_mask"][masked["label"] > 0].mean()))
        shares.append(sum(hidden) / len(hidden))
    assert shares[1] == pytest.approx(shares[0], abs=0.05)


@pytest.mark.parametrize("bundle", DEPTH_FIRST)
def test_coarser_outputs_meet_labels_of_their_own_size(bundle: str, home: Path) -> None:
    get = workflow_for(bundle, "train", run_name="x").parser.get_parsed_content
    label = torch.zeros(1, 1, 32, 32, 32)
    label[..., 8:24, 8:24, 8:24] = 3
    sizes = {NNFORMER: [32], UNETR_PLUS_PLUS: [32, 16], RESENC_UNET: [32, 16, 8]}[bundle]
    assert [output.shape[2] for output in get("network_def")(torch.zeros(2, 1, 32, 32, 32))] == sizes
    logits = torch.nn.functional.one_hot(label[:, 0].long(), 14).movedim(-1, 1).float() * 100
    perfect = [torch.nn.functional.interpolate(logits, size=size, mode="nearest-exact") for size in (32, 16, 8)]
    loss = get("segmentation_loss")
    assert loss(perfect, label).item() == pytest.approx(0, abs=1e-3)
    wrong = loss.loss(-logits, label).item()
    for index, weight in enumerate(loss.weights):
        outputs = [-output if place == index else output for place, output in enumerate(perfect)]
        assert loss(outputs, label).item() == pytest.approx(weight * wrong, rel=0.05, abs=1e-3)
