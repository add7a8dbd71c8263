"""What holds for published checkpoints of any network; the names of each are tested beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets import UNETR
from torch import nn

from medcontext.networks import NNFormer, TokenMasking, UNETRPlusPlus
from medcontext.networks.published import load_official_state_dict

HIDDEN = 24
SIZE = (32, 32, 32)


def unetr(seed: int = 0) -> UNETR:
    torch.manual_seed(seed)
    return UNETR(1, 3, SIZE, feature_size=4, hidden_size=HIDDEN, mlp_dim=48, num_heads=2)


def nnformer() -> NNFormer:
    size = {"img_size": (16, 16, 16), "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 4)}
    return NNFormer(1, 3, **size, window_size=(2, 2))


def unetr_plus_plus() -> UNETRPlusPlus:
    size: dict[str, Any] = {"img_size": (4, 16, 16), "feature_size": 4, "depths": (1, 1), "decoder_depths": 1}
    return UNETRPlusPlus(1, 3, **size, num_heads=2, proj_sizes=(8, 4))


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


# --- the mask token ---


@pytest.mark.parametrize("compiled", [False, True])
def test_mask_token_of_unetr(compiled: bool) -> None:
    source, masking = unetr(), TokenMasking(unetr(1), "vit.patch_embedding", (1, *SIZE))
    token = torch.arange(HIDDEN).reshape(1, 1, HIDDEN).float()
    wrapped = torch.compile(masking, backend="eager") if compiled else masking
    report = load_official_state_dict(wrapped, {**source.state_dict(), "mask_token": token})
    assert report.loaded["mask_token"] == "mask_token"
    assert (report.unused, report.optional) == ((), ())
    assert masking.mask_token.tolist() == list(range(HIDDEN))
    torch.testing.assert_close(masking.network.state_dict(), source.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 1, 12), (12,), (1, 12, 1, 1, 1)])
@pytest.mark.parametrize(
    ("network", "key", "other", "embedding"),
    [
        (nnformer(), "model_down.mask_token", "model_down.norm0.weight", "patch_embedding"),
        (unetr_plus_plus(), "unetr_pp_encoder.mask_token", "out1.conv.conv.bias", "patch_embedding"),
    ],
)
def test_mask_tokens_of_any_shape(
    network: nn.Module, key: str, other: str, embedding: str, shape: tuple[int, ...]
) -> None:
    masking = TokenMasking(network, embedding, (1, *network.img_size))
    width = masking.mask_token.numel()
    token = torch.arange(width).float().reshape([width if size == 12 else 1 for size in shape])
    state = {f"module.{key}": token, other: torch.ones(3 if other.startswith("out") else 12)}
    assert load_official_state_dict(masking, state, strict=False).loaded[f"module.{key}"] == "mask_token"
    assert masking.mask_token.tolist() == list(range(width))
    report = load_official_state_dict(network, state, strict=False)
    assert report.unused == (f"module.{key}",)


@pytest.mark.parametrize("shape", [(1, 1, 12), (1, 2, 12)])
def test_a_mask_token_of_another_width_changes_nothing(shape: tuple[int, ...]) -> None:
    masking = TokenMasking(unetr(1), "vit.patch_embedding", (1, *SIZE))
    before = values(masking)
    with pytest.raises(ValueError, match=r"differ in 1 tensors: mask_token has shape .*12\S*\), mask_token \(24,\)"):
        load_official_state_dict(masking, {**unetr().state_dict(), "mask_token": torch.ones(shape)})
    torch.testing.assert_close(values(masking), before, rtol=0, atol=0)


def test_a_checkpoint_need_not_hold_a_mask_token() -> None:
    masking = TokenMasking(unetr(1), "vit.patch_embedding", (1, *SIZE))
    report = load_official_state_dict(masking, unetr().state_dict())
    assert (report.missing, report.optional) == ((), ("mask_token",))
    assert not masking.mask_token.any()


# --- names and reports ---


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "module.network.", "backbone.", "net.", "model.net."]
)
def test_prefixes_of_wrappers(prefix: str) -> None:
    source, network = unetr(), unetr(1)
    report = load_official_state_dict(network, {prefix + key: value for key, value in source.state_dict().items()})
    assert all(name == prefix + target for name, target in report.loaded.items())
    torch.testing.assert_close(network.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_subclasses_take_the_same_checkpoints() -> None:
    class OwnUNETR(UNETR):
        pass

    network = OwnUNETR(1, 3, SIZE, feature_size=4, hidden_size=HIDDEN, mlp_dim=48, num_heads=2)
    assert not load_official_state_dict(network, unetr().state_dict()).unused


@pytest.mark.parametrize("strict", [True, False])
def test_checkpoints_of_another_network_are_distinguished(strict: bool) -> None:
    state = {"model_down.norm0.weight": torch.ones(12), "model_down.norm0.bias": torch.ones(12)}
    message = "None of the checkpoint's 2 tensors, such as model_down.norm0.weight, is one of UNETR"
    with pytest.raises(ValueError, match=message):
        load_official_state_dict(unetr(), state, strict=strict)


def test_a_report_tells_like_names_together() -> None:
    state = {key: value for key, value in unetr().state_dict().items() if "cross_attn" not in key}
    del state["out.conv.conv.bias"], state["vit.blocks.3.norm1.bias"]
    extra = {f"vit.blocks.{i}.cross_attn.to_q.weight": torch.ones(1) for i in range(12)}
    report = load_official_state_dict(unetr(1), {**state, **extra, "epoch": torch.ones(1)}, strict=False)
    assert str(report).splitlines() == [
        f"{len(state)} tensors loaded, 0 index tables verified",
        "13 not in the network, ignored: vit.blocks.*.cross_attn.to_q.weight (12), epoch",
        "2 not in the checkpoint, not filled: vit.blocks.*.norm1.bias, out.conv.conv.bias",
        "24 not in the checkpoint and not needed: vit.blocks.*.norm_cross_attn.weight (12), "
        "vit.blocks.*.norm_cross_attn.bias (12)",
    ]


BLOCK = "model_down.layers.0.blocks.0.attn"
PAIRED = "unetr_pp_encoder.stages.0.0"


@pytest.mark.parametrize(
    ("network", "key", "shape", "sentence"),
    [
        (nnformer(), "model_down.patch_embed.proj1.conv1.weight", (6, 4, 3, 3, 3), r"in_channels 4 \(here 1\)"),
        (nnformer(), "final.0.up.bias", (14,), r"out_channels 14 \(here 3\)"),
        (nnformer(), "model_down.patch_embed.norm.weight", (96,), r"embed_dim 96 \(here 12\)"),
        (nnformer(), f"{BLOCK}.relative_position_bias_table", (27, 6), r"num_heads of the first stage 6 \(here 2\)"),
        (nnformer(), f"{BLOCK}.relative_position_bias_table", (125, 2), r"offsets in window_size .* 125 \(here 27\)"),
        (unetr_plus_plus(), "encoder1.conv1.conv.weight", (4, 4, 3, 3, 3), r"in_channels 4 \(here 1\)"),
        (unetr_plus_plus(), "out1.conv.conv.bias", (14,), r"out_channels 14 \(here 3\)"),
        (
            unetr_plus_plus(),
            "decoder2.decoder_block.0.conv1.conv.weight",
            (16, 16, 3, 3, 3),
            r"feature_size 16 \(here 4\)",
        ),
        (unetr_plus_plus(), "unetr_pp_encoder.downsample_layers.0.1.weight", (32,), r"dims .* stage 32 \(here 8\)"),
        (unetr_plus_plus(), f"{PAIRED}.epa_block.temperature2", (4, 1, 1), r"num_heads .* stage 4 \(here 2\)"),
        (unetr_plus_plus(), f"{PAIRED}.epa_block.E.weight", (64, 32), r"proj_sizes .* stage 64 \(here 8\)"),
        (unetr_plus_plus(), f"{PAIRED}.pos_embed", (1, 64, 8), r"patches in img_size 64 \(here 32\)"),
    ],
)
def test_differing_arguments_are_named(network: nn.Module, key: str, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"differ in 1 tensors: {key} has shape .* trained with {sentence}\. "):
        load_official_state_dict(network, {key: torch.ones(shape)}, strict=False)
