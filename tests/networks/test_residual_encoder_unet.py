"""That the network is nnU-Net's; what it shares with the other networks is in test_contract.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures import unet
from torch import nn

from medcontext.networks import ResidualEncoderUNet
from medcontext.networks.sizes import crop_divisors

TARGET = "medcontext.networks.ResidualEncoderUNet"
SMALL: dict[str, Any] = {
    "features_per_stage": [4, 6, 8],
    "n_blocks_per_stage": [1, 2, 1],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "n_conv_per_stage_decoder": [1, 1],
}
# what nnU-Net adds to them in a plan
PLANNED: dict[str, Any] = {
    "n_stages": 3,
    "conv_op": nn.Conv3d,
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
}


def test_weights_and_outputs_are_those_of_a_planned_network() -> None:
    torch.manual_seed(0)
    planned = unet.ResidualEncoderUNet(2, num_classes=3, deep_supervision=True, **SMALL, **PLANNED)
    network = ResidualEncoderUNet(2, 3, **SMALL)
    network.load_state_dict(planned.state_dict())
    image = torch.randn(1, 2, 4, 8, 12)
    expected = planned(image)
    torch.testing.assert_close(network(image), expected, rtol=0, atol=0)
    torch.testing.assert_close(network.eval()(image), expected[0], rtol=0, atol=0)
    assert len(network.train()(image)) == len(expected)


def test_residual_branches_start_as_nothing() -> None:
    network = ResidualEncoderUNet(1, 2, **SMALL)
    last = [module.norm.weight for name, module in network.encoder.named_modules() if name.endswith("conv2")]
    assert len(last) == 4
    assert not any(weight.any() for weight in last)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript_takes_images_of_other_sizes() -> None:
    network = ResidualEncoderUNet(1, 2, **SMALL).eval()
    script = torch.jit.script(network)
    for size in ((4, 8, 8), (6, 16, 4)):
        image = torch.randn(1, 1, *size)
        torch.testing.assert_close(script(image), network(image))


def test_one_voxel_at_the_deepest_stage() -> None:
    with pytest.raises(
        ValueError, match=r"image size must be longer than 2 .*, got \[2, 4, 4\]: .* use 4 along axis 0"
    ):
        ResidualEncoderUNet(1, 2, **SMALL)(torch.zeros(1, 1, 2, 4, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features_per_stage": [4]}, "features_per_stage needs at least two stages, got 1"),
        ({"n_blocks_per_stage": [1, 2]}, "n_blocks_per_stage needs 3 entries for 3 stages, got 2"),
        ({"strides": [1, 2, 2, 2]}, "strides needs 3 entries for 3 stages, got 4"),
        ({"kernel_sizes": [3]}, "kernel_sizes needs 3 entries for 3 stages, got 1"),
        ({"n_conv_per_stage_decoder": [1, 1, 1]}, "n_conv_per_stage_decoder needs 2 entries for 3 stages, got 3"),
    ],
)
def test_arguments_of_another_number_of_stages(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualEncoderUNet(1, 2, **{**SMALL, **changes})


@pytest.mark.parametrize(
    ("arguments", "divisors"),
    [(SMALL, (2, 4, 4)), ({"features_per_stage": [4, 4, 4, 4], "n_blocks_per_stage": 1}, (8, 8, 8))],
)
def test_a_plan_knows_the_crops(arguments: dict[str, Any], divisors: tuple[int, ...]) -> None:
    assert crop_divisors({"_target_": TARGET, **arguments}) == divisors
    assert ResidualEncoderUNet(1, 2, **arguments).divisors == divisors


def test_a_plan_knows_the_crops_of_the_default() -> None:
    assert crop_divisors({"_target_": TARGET}) == (32, 32, 32)
