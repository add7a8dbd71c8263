"""What every network of the bundles does, ours and MONAI's: one contract, five networks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import UNETR, SwinUNETR
from torch import Tensor, nn

from medcontext.bundle import check_network
from medcontext.networks import NNFormer, ResidualEncoderUNet, TokenMasking, UNETRPlusPlus, make_teacher, plain_network

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    """A small network and what it promises.

    Attributes:
        build: from a size of image to the network, for one channel and three classes.
        size: the images of these tests.
        legal: further sizes that the network takes.
        illegal: (axis, voxels along it, divisor, nearest legal size); the other axes are those of ``size``.
        embedding: path of the patch embedding.
        grid: tokens of an image of ``size`` there.
        coarser: sizes of the outputs that a training network gives behind the full resolution.
        fixed: the network takes images of one size only.
        unused: part of the names of parameters that the network never uses.
        graph_breaks: ``torch.compile`` cannot take the network as one graph.
    """

    build: Callable[[Sequence[int]], nn.Module]
    size: Size
    legal: tuple[Size, ...]
    illegal: tuple[tuple[int, int, int, int], ...]
    embedding: str
    grid: Size
    coarser: tuple[Size, ...] = ()
    fixed: bool = True
    unused: str | None = None
    graph_breaks: bool = False


def unetr(size: Sequence[int]) -> nn.Module:
    return UNETR(1, 3, size, feature_size=4, hidden_size=24, mlp_dim=48, num_heads=2)


def swin_unetr(size: Sequence[int]) -> nn.Module:
    return SwinUNETR(1, 3, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4)


def nnformer(size: Sequence[int], **changes: Any) -> nn.Module:
    small = {"embed_dim": 12, "depths": (2, 2, 1), "num_heads": (1, 2, 3), "window_size": (4, 3, (2, 2, 2))}
    return NNFormer(1, 3, size, **{**small, "drop_path_rate": 0.0, **changes})


def unetr_plus_plus(size: Sequence[int], **changes: Any) -> nn.Module:
    small = {"feature_size": 4, "num_heads": 2, "depths": (1, 1, 1), "proj_sizes": (8, 8, 4), "decoder_depths": 1}
    return UNETRPlusPlus(1, 3, size, **{**small, "attention_dropout": 0.0, "conv_dropout": 0.0, **changes})


def residual_encoder_unet(size: Sequence[int], **changes: Any) -> nn.Module:
    small = {"features_per_stage": (4, 6, 8, 8), "n_blocks_per_stage": (1, 1, 2, 1)}
    return ResidualEncoderUNet(1, 3, **{**small, "strides": (1, (1, 2, 2), 2, 2), **changes})


CASES = {
    "UNETR": Case(
        unetr,
        size=(32, 16, 48),
        legal=((16, 16, 16), (96, 96, 96)),
        illegal=((0, 30, 16, 32), (1, 24, 16, 16), (2, 47, 16, 48)),
        embedding="vit.patch_embedding",
        grid=(2, 1, 3),
        unused="norm_cross_attn",
    ),
    "SwinUNETR": Case(
        swin_unetr,
        size=(32, 64, 32),
        legal=((32, 32, 64), (96, 96, 96)),
        illegal=((0, 30, 32, 32), (1, 80, 32, 64), (2, 49, 32, 64)),
        embedding="swinViT.patch_embed",
        grid=(16, 32, 16),
        fixed=False,
        graph_breaks=True,  # MONAI checks the size with NumPy, which the compiler takes for data
    ),
    "nnFormer": Case(
        nnformer,
        size=(16, 32, 24),
        legal=((8, 16, 16), (18, 28, 20), (64, 128, 128)),
        illegal=((0, 17, 2, 16), (1, 30, 4, 28), (2, 12, 4, 16)),
        embedding="patch_embedding",
        grid=(8, 8, 6),
        coarser=((8, 16, 12),),
    ),
    "UNETR++": Case(
        unetr_plus_plus,
        size=(16, 32, 16),
        legal=((8, 16, 16), (24, 16, 48), (64, 128, 128)),
        illegal=((0, 12, 8, 8), (1, 41, 16, 48), (2, 8, 16, 16)),
        embedding="patch_embedding",
        grid=(8, 8, 4),
        coarser=((8, 8, 4), (4, 4, 2)),
    ),
    "residual encoder U-Net": Case(
        residual_encoder_unet,
        size=(8, 16, 24),
        legal=((4, 8, 16), (128, 128, 128)),
        illegal=((0, 6, 4, 4), (1, 29, 8, 32), (2, 4, 8, 8)),
        embedding="encoder.stem",
        grid=(8, 16, 24),
        coarser=((8, 8, 12), (4, 4, 6)),
        fixed=False,
    ),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
OURS = ("nnFormer", "UNETR++", "residual encoder U-Net")


def quick_for(*names: str) -> pytest.MarkDecorator:
    """Run a test for these networks always, and for the others with the slow tests."""
    params = [pytest.param(CASES[name], id=name, marks=[pytest.mark.slow] * (name not in names)) for name in CASES]
    return pytest.mark.parametrize("case", params)


supervised = pytest.mark.parametrize("case", [CASES[name] for name in OURS], ids=OURS)


def built(case: Case, seed: int = 0) -> nn.Module:
    """The network, with all that starts at zero set to something, lest it hide what lies behind."""
    torch.manual_seed(seed)
    network = case.build(case.size)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return network


def image(case: Case, batch: int = 1) -> Tensor:
    return torch.randn(batch, 1, *case.size, generator=torch.Generator().manual_seed(1))


def loss(outputs: Tensor | list[Tensor]) -> Tensor:
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return torch.stack([output.float().square().mean() for output in outputs]).sum()


def assert_same(outputs: Any, expected: Any) -> None:
    torch.testing.assert_close(outputs, expected, rtol=0, atol=0)


# --- sizes ---


@pytest.mark.parametrize(
    ("case", "size"),
    [
        pytest.param(case, size, id=f"{name} {size}")
        for name, case in CASES.items()
        for size in (case.size, *case.legal)
    ],
)
def test_legal_sizes(case: Case, size: Size) -> None:
    check_network(case.build(size), 1, 3, size)


@pytest.mark.parametrize(
    ("case", "illegal"),
    [pytest.param(case, illegal, id=f"{name} {illegal}") for name, case in CASES.items() for illegal in case.illegal],
)
def test_illegal_sizes_name_axis_divisor_and_remedy(case: Case, illegal: tuple[int, int, int, int]) -> None:
    axis, voxels, divisor, nearest = illegal
    size = [voxels if index == axis else length for index, length in enumerate(case.size)]
    message = rf"size along axis {axis} must be a multiple of {divisor} and .*, got {voxels}; .* size is {nearest}\."
    with pytest.raises(ValueError, match=message):
        check_network(case.build(size), 1, 3, size)
    size[axis] = nearest
    check_network(case.build(size), 1, 3, size)


@every
def test_images_of_another_size(case: Case) -> None:
    network, longer = case.build(case.size), [2 * case.size[0], *case.size[1:]]
    if case.fixed:
        with pytest.raises(
            ValueError, match=rf"takes \({case.size[0]}, .* only; they differ along axis 0\. Crop or pad"
        ):
            check_network(network, 1, 3, longer)
    else:
        check_network(network, 1, 3, longer)


# --- outputs and gradients ---


@every
def test_outputs_in_training_and_evaluation(case: Case) -> None:
    network = built(case)
    outputs = network(image(case, 2))
    assert isinstance(outputs, list) is bool(case.coarser)
    shapes = [output.shape for output in (outputs if case.coarser else [outputs])]
    assert shapes == [(2, 3, *size) for size in (case.size, *case.coarser)]
    output = network.eval()(image(case, 2))
    assert isinstance(output, Tensor)
    assert output.shape == (2, 3, *case.size)


@pytest.mark.parametrize("case", [CASES["nnFormer"], CASES["UNETR++"]], ids=["nnFormer", "UNETR++"])
def test_all_outputs_in_evaluation_on_demand(case: Case) -> None:
    network = built(case).eval()
    alone = network(image(case))
    network.always_return_list = True
    outputs = network(image(case))
    assert [output.shape for output in outputs] == [(1, 3, *size) for size in (case.size, *case.coarser)]
    assert_same(outputs[0], alone)


@supervised
def test_one_output_without_deep_supervision(case: Case) -> None:
    network = case.build(case.size, deep_supervision=False)
    output = network(image(case))
    assert isinstance(output, Tensor)
    assert output.shape == (1, 3, *case.size)


@pytest.mark.parametrize("name", [pytest.param("UNETR", marks=pytest.mark.slow), *OURS])  # SwinUNETR is traced only
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript_takes_batches_of_any_length(name: str) -> None:
    network = built(CASES[name])
    script = torch.jit.script(network).eval()
    assert network.training
    network.eval()
    for batch in (1, 3):
        torch.testing.assert_close(script(image(CASES[name], batch)), network(image(CASES[name], batch)))


@every
def test_backward_reaches_every_parameter(case: Case) -> None:
    network = built(case)
    loss(network(image(case))).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    unreached = {name for name, gradient in gradients.items() if gradient is None or not gradient.abs().sum() > 0}
    assert unreached == {name for name in gradients if case.unused and case.unused in name}
    assert bool(unreached) is bool(case.unused)


@every
def test_lower_precision(case: Case) -> None:
    network = built(case)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(image(case))
    loss(outputs).backward()
    torch.testing.assert_close(loss(outputs), loss(network(image(case))), rtol=0.05, atol=0)
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


# --- weights ---


@every
def test_the_same_seed_gives_the_same_weights_and_outputs(case: Case) -> None:
    first, second, other = (built(case, seed).eval() for seed in (0, 0, 1))
    assert_same(second.state_dict(), first.state_dict())
    assert not torch.equal(next(other.parameters()), next(first.parameters()))
    with torch.no_grad():
        output = first(image(case))
        assert_same(first(image(case)), output)
        assert_same(second(image(case)), output)


@every
def test_weights_come_back_from_a_file(case: Case, tmp_path: Path) -> None:
    network, other = built(case).eval(), built(case, seed=1).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    with torch.no_grad():
        assert_same(other(image(case)), network(image(case)))


# --- export ---


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@quick_for(*OURS)
def test_torchscript_trace_takes_any_batch(case: Case) -> None:
    network = built(case).eval()
    with torch.no_grad():
        traced = torch.jit.trace(network, image(case))
        assert_same(traced(image(case)), network(image(case)))
        torch.testing.assert_close(traced(image(case, 2)), network(image(case, 2)))


@quick_for("UNETR++")
def test_compiled_evaluation(case: Case) -> None:
    network = built(case).eval()
    compiled = torch.compile(network, backend="eager", fullgraph=not case.graph_breaks)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image(case)), network(image(case)))


@pytest.mark.slow
@every
def test_compiled_training(case: Case) -> None:
    network = built(case)
    compiled = torch.compile(copy.deepcopy(network), backend="aot_eager", fullgraph=not case.graph_breaks)
    for each in (network, compiled):
        loss(each(image(case))).backward()
    for plain, other in zip(network.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, plain.grad, rtol=1e-3, atol=1e-5)


# --- token masking and teacher ---


@every
def test_tokens_can_be_masked(case: Case) -> None:
    network = built(case)
    masking = TokenMasking(network, case.embedding, (1, *case.size))
    assert masking.grid == case.grid
    assert plain_network(masking).state_dict().keys() == case.build(case.size).state_dict().keys()
    context_mask = torch.zeros(1, 1, *case.size)
    context_mask[..., : case.size[2] // 2] = 1
    masked = masking(image(case), context_mask)
    assert not torch.equal(loss(masked), loss(masking(image(case))))
    loss(masked).backward()
    assert masking.mask_token.grad.abs().sum() > 0


def tokens_of(network: nn.Module, embedding: str, shape: Sequence[int]) -> Any:
    return TokenMasking(network.to("meta"), embedding, shape).grid


@pytest.mark.parametrize(
    ("network", "embedding", "shape", "grid"),
    [
        (unetr([96] * 3), "vit.patch_embedding", (1, 96, 96, 96), (6, 6, 6)),
        (swin_unetr([96] * 3), "swinViT.patch_embed", (1, 96, 96, 96), (48, 48, 48)),
        (
            NNFormer.for_dataset("btcv", embed_dim=12, num_heads=[1] * 4),
            "patch_embedding",
            (1, 64, 128, 128),
            (32,) * 3,
        ),
        (NNFormer.for_dataset("acdc", embed_dim=12), "patch_embedding", (1, 14, 160, 160), (14, 40, 40)),
        (NNFormer.for_dataset("brats", embed_dim=12), "patch_embedding", (4, 128, 128, 128), (32,) * 3),
    ],
)
def test_tokens_of_the_published_sizes(network: nn.Module, embedding: str, shape: Sequence[int], grid: Size) -> None:
    assert tokens_of(network, embedding, shape) == grid


@every
def test_teacher_is_a_frozen_copy(case: Case) -> None:
    student = TokenMasking(built(case), case.embedding, (1, *case.size))
    teacher = make_teacher(student)
    assert type(teacher) is type(student.network)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    with torch.no_grad():
        before = teacher(image(case))
        assert isinstance(before, Tensor)
        assert_same(before, student.network.eval()(image(case)))
        for parameter in student.parameters():
            parameter.add_(1.0)
        assert_same(teacher(image(case)), before)
