"""nnU-Net's residual encoder U-Net, with the outputs and the checks that the other networks have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from dynamic_network_architectures.architectures import unet
from torch import Tensor, nn

from medcontext.networks.scripting import TracedNetwork
from medcontext.networks.sizes import check_strided_size, stride_products

__all__ = ["ResidualEncoderUNet"]

PerStage = Sequence[int | Sequence[int]]


class ResidualEncoderUNet(unet.ResidualEncoderUNet):
    r"""nnU-Net's residual encoder U-Net for images (B, C, \*spatial) of three axes, by default of the size ResEnc M.

    A convolution embeds each voxel. Each stage of the encoder consists of residual blocks, of which the first
    downsamples by the stage's stride. The decoder upsamples by transposed convolutions, concatenates the encoder's
    features of that resolution, and convolves them. Norms are instance norms, activations leaky ReLUs.

    In training mode with deep supervision the network returns logits (B, out_channels, \*spatial) of all decoder stages
    as a list, full resolution first, which :func:`medcontext.losses.deep_supervision_weights` weights. Otherwise it
    returns the full-resolution tensor alone.

    Names of arguments and weights are those of nnU-Net's plans and checkpoints.

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        features_per_stage: channels of each stage, as many numbers as stages.
        n_blocks_per_stage: residual blocks of each encoder stage, or one number for all.
        strides: downsampling of each stage, one number or one per axis for each; 1 at the first and 2 at all others by
            default.
        kernel_sizes: size of the convolutions, one number, or one number or one per axis for each stage.
        n_conv_per_stage_decoder: convolutions of each decoder stage, deepest first, or one number for all.
        deep_supervision: predict at every decoder stage while training.

    Raises:
        ValueError: If there are fewer than two stages, or an argument is for another number of stages.

    Source: Isensee et al., nnU-Net Revisited: A Call for Rigorous Validation in 3D Medical Image Segmentation, MICCAI
    2024 (arXiv 2404.09556). The layers are those of the package ``dynamic-network-architectures``.

    Example:
        >>> import torch
        >>> network = ResidualEncoderUNet(1, 3, features_per_stage=(4, 8, 8), n_blocks_per_stage=1)
        >>> [tuple(output.shape) for output in network(torch.zeros(1, 1, 16, 16, 16))]
        [(1, 3, 16, 16, 16), (1, 3, 8, 8, 8)]
        >>> tuple(network.eval()(torch.zeros(1, 1, 16, 16, 16)).shape)
        (1, 3, 16, 16, 16)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features_per_stage: Sequence[int] = (32, 64, 128, 256, 320, 320),
        n_blocks_per_stage: int | Sequence[int] = (1, 3, 4, 6, 6, 6),
        strides: PerStage | None = None,
        kernel_sizes: int | PerStage = 3,
        n_conv_per_stage_decoder: int | Sequence[int] = 1,
        deep_supervision: bool = True,
    ) -> None:
        stages = len(features_per_stage)
        strides = [1] + [2] * (stages - 1) if strides is None else strides
        _check_stages(
            stages,
            n_blocks_per_stage=n_blocks_per_stage,
            strides=strides,
            kernel_sizes=kernel_sizes,
            n_conv_per_stage_decoder=n_conv_per_stage_decoder,
        )
        super().__init__(
            in_channels,
            stages,
            features_per_stage,
            nn.Conv3d,
            kernel_sizes,
            strides,
            n_blocks_per_stage,
            out_channels,
            n_conv_per_stage_decoder,
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=deep_supervision,
        )
        self.in_channels = in_channels
        self.deep_supervision = deep_supervision
        self.divisors = stride_products(strides)
        self.apply(self.initialize)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of training or evaluation, in which the decoder predicts at full resolution alone."""
        self.decoder.deep_supervision = mode and self.deep_supervision
        return super().train(mode)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        r"""Segment an image (B, in_channels, \*spatial) into logits.

        Raises:
            ValueError: If an axis is no multiple of its divisor, the product of its strides, or a single voxel would
                be left at the deepest stage.
        """
        check_strided_size("image size", image.shape[2:], self.divisors)
        logits: Tensor | list[Tensor] = super().forward(image)
        return logits

    def __prepare_scriptable__(self) -> TracedNetwork:
        """Return the trace that ``torch.jit.script`` takes instead, of full-resolution logits at any size."""
        return TracedNetwork(self, self.in_channels, [2 * divisor for divisor in self.divisors])


def _check_stages(stages: int, **arguments: int | PerStage) -> None:
    if stages < 2:
        raise ValueError(f"features_per_stage needs at least two stages, got {stages}.")
    for name, values in arguments.items():
        expected = stages - 1 if "decoder" in name else stages
        if not isinstance(values, int) and len(values) != expected:
            raise ValueError(f"{name} needs {expected} entries for {stages} stages, got {len(values)}.")
