from __future__ import annotations

import pytest

from bundle_runs import NNFORMER, ROOT, SWIN_UNETR, UNETR, UNETR_PLUS_PLUS, read_json
from medcontext.planning.cost import GIB, StepCost, check_crop, resolved_network, step_bytes, step_cost

CONVOLUTION = {
    "_target_": "torch.nn.Conv3d",
    "in_channels": "@in_channels",
    "out_channels": "@out_channels",
    "kernel_size": 3,
    "padding": 1,
}


def test_a_convolution_keeps_its_input() -> None:
    network = resolved_network(CONVOLUTION, 2, 5, (8, 8, 4))
    voxels = 8 * 8 * 4
    assert step_cost(network, (8, 8, 4)) == StepCost(
        activations=2 * voxels * 4, weights=2 * 5 * 27 + 5, operations=2 * voxels * 27 * 2 * 5
    )


@pytest.mark.parametrize(
    ("optimizer", "half", "expected"),
    [
        ("torch.optim.AdamW", False, 2 * 1000 + 2 * 4 * 4 * 3 * 64 + 20 * 10),
        ("torch.optim.SGD", True, 2 * 900 + 2 * 4 * 4 * 3 * 64 + 16 * 10 + GIB / 2),
        ("my.Optimizer", False, 2 * 1000 + 2 * 4 * 4 * 3 * 64 + 20 * 10),
    ],
)
def test_the_memory_of_two_crops(optimizer: str, half: bool, expected: float) -> None:
    cost = StepCost(activations=1000, weights=10, operations=0)
    assert step_bytes(cost, (4, 4, 4), 2, 3, optimizer, half=half) == pytest.approx(expected)


def test_a_crop_that_the_network_rejects() -> None:
    network = {"_target_": "UNETR", "in_channels": 1, "out_channels": 2, "img_size": [16, 16, 24], "feature_size": 4}
    network |= {"hidden_size": 12, "mlp_dim": 12, "num_heads": 2}
    with pytest.raises(ValueError, match=r"roi_size \[16, 16, 24\] .*axis 2 must be a multiple of 16"):
        check_crop(network, (16, 16, 24))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "measured"), [(UNETR, 6.8), (SWIN_UNETR, 17.6), (NNFORMER, 6.5), (UNETR_PLUS_PLUS, 3.6)]
)
def test_the_estimate_is_not_below_what_a_gpu_took(bundle: str, measured: float) -> None:
    """The recipes for BTCV, whose GiB each bundle's README gives; the context of CUDA is not among them."""
    config = read_json(ROOT / "bundles" / bundle / "configs" / "train.json")
    crop, crops = config["roi_size"], config["batch_size"] * config["num_samples"]
    cost = step_cost(resolved_network(config["network_def"], 1, 14, crop), crop)
    needed = step_bytes(cost, crop, crops, 14, config["optimizer"]["_target_"], half=True) / GIB
    assert measured + 0.5 < needed < 1.5 * measured + 0.5
