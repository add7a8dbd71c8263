"""Old checkpoints made by hand from present networks, loaded into differently initialised ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets import UNETR, SwinUNETR

from medcontext.networks.published import OfficialReport, load_official_state_dict

State = dict[str, torch.Tensor]
HIDDEN, BLOCKS = 24, 12


def unetr(seed: int, **changes: Any) -> UNETR:
    torch.manual_seed(seed)
    arguments = {"in_channels": 2, "out_channels": 3, "img_size": (32, 32, 32), "feature_size": 4}
    return UNETR(**{**arguments, "hidden_size": HIDDEN, "mlp_dim": 48, "num_heads": 2, **changes}).eval()


def swin(seed: int, **changes: Any) -> SwinUNETR:
    torch.manual_seed(seed)
    arguments = {"in_channels": 2, "out_channels": 3, "feature_size": 12, "window_size": 4}
    return SwinUNETR(**{**arguments, "depths": (1,) * 4, "num_heads": (1,) * 4, **changes}).eval()


def image(size: int) -> torch.Tensor:
    return torch.randn(1, 2, size, size, size, generator=torch.Generator().manual_seed(5))


def without_cross_attention(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if ".norm_cross_attn." not in key}


def of_medcontext(state: State) -> State:
    renamed = {key.removeprefix("vit."): tensor for key, tensor in without_cross_attention(state).items()}
    return {**renamed, "mask_token": torch.ones(1, 1, HIDDEN)}


def of_monai_1_4(state: State) -> State:
    parts = ("to_q.weight", "to_k.weight", "to_v.weight", "out_proj.weight", "out_proj.bias")
    extra = {f"vit.blocks.{i}.cross_attn.{part}": torch.ones(HIDDEN) for i in range(BLOCKS) for part in parts}
    return {**state, **extra}


def with_class_token(state: State) -> State:
    return {**without_cross_attention(state), "vit.patch_embedding.cls_token": torch.ones(1, 1, HIDDEN)}


def assert_every_tensor_is_told_of_once(report: OfficialReport, state: State) -> None:
    assert sorted([*report.loaded, *report.verified, *report.unused]) == sorted(state)


@pytest.mark.parametrize(
    ("make_old", "unused", "optional"),
    [
        pytest.param(dict, 0, 0, id="present"),
        pytest.param(without_cross_attention, 0, 2 * BLOCKS, id="MONAI 1.3"),
        pytest.param(of_monai_1_4, 5 * BLOCKS, 0, id="MONAI 1.4"),
        pytest.param(with_class_token, 1, 2 * BLOCKS, id="class token"),
        pytest.param(of_medcontext, 1, 2 * BLOCKS, id="MedContext"),
    ],
)
@pytest.mark.parametrize("old_embedding", ["conv", "perceptron"])
@pytest.mark.parametrize("embedding", ["conv", pytest.param("perceptron", marks=pytest.mark.slow)])
def test_unetr_of_every_age(make_old: Any, unused: int, optional: int, old_embedding: str, embedding: str) -> None:
    source, network = unetr(0, proj_type=old_embedding), unetr(1, proj_type=embedding)
    state = make_old(source.state_dict())
    report = load_official_state_dict(network, state)
    assert_every_tensor_is_told_of_once(report, state)
    assert (len(report.unused), len(report.optional), report.missing) == (unused, optional, ())
    assert all(".norm_cross_attn." in name for name in report.optional)
    tolerance = 0 if old_embedding == embedding else 1e-5
    with torch.no_grad():
        torch.testing.assert_close(network(image(32)), source(image(32)), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("missing", ["vit.norm.weight", "vit.patch_embedding.patch_embeddings.weight"])
def test_what_unetr_does_use_must_be_there(missing: str) -> None:
    state = without_cross_attention(unetr(0).state_dict())
    del state[missing]
    with pytest.raises(ValueError, match=f"differ in 1 tensors: it holds nothing for {missing}"):
        load_official_state_dict(unetr(1), state)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"in_channels": 1}, r"in_channels 1 \(here 2\)"),
        ({"out_channels": 5}, r"out_channels 5 \(here 3\)"),
        ({"feature_size": 8}, r"feature_size 8 \(here 4\)"),
        ({"hidden_size": 36, "mlp_dim": 72}, r"hidden_size 36 \(here 24\), mlp_dim 72 \(here 48\)"),
        ({"img_size": (32, 32, 48)}, r"patches in img_size 12 \(here 8\)"),
        ({"in_channels": 1, "proj_type": "perceptron"}, r"in_channels 1 \(here 2\)"),
    ],
)
def test_of_another_unetr_the_arguments_are_named(changes: dict[str, Any], sentence: str) -> None:
    network = unetr(1)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=rf"The checkpoint and this UNETR differ in .* trained with {sentence}\. "):
        load_official_state_dict(network, of_medcontext(unetr(0, **changes).state_dict()))
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def test_a_patch_weight_of_another_patch_size_is_refused() -> None:
    key = "vit.patch_embedding.patch_embeddings.1.weight"
    with pytest.raises(ValueError, match=rf"{key} has shape \(24, 1000\), .* \(24, 2, 16, 16, 16\)"):
        load_official_state_dict(unetr(1), {key: torch.ones(HIDDEN, 1000)}, strict=False)


def of_self_supervision(state: State, prefix: str = "module.") -> State:
    """The checkpoint of a pre-trained encoder with one of the heads that it was trained with."""
    encoder = {key: tensor for key, tensor in state.items() if key.startswith("swinViT.")}
    renamed = {prefix + key.removeprefix("swinViT.").replace(".mlp.linear", ".mlp.fc"): encoder[key] for key in encoder}
    return {**renamed, "module.rotation_head.weight": torch.ones(4, 192)}


def test_swin_unetr() -> None:
    source, network = swin(0), swin(1)
    state = source.state_dict()
    report = load_official_state_dict(network, state)
    assert_every_tensor_is_told_of_once(report, state)
    assert (len(report.verified), report.unused, report.missing, report.optional) == (4, (), (), ())
    with torch.no_grad():
        torch.testing.assert_close(network(image(64)), source(image(64)), rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["module.", "module.swin_vit.", "swinViT."])
def test_self_supervised_encoder_of_swin_unetr(prefix: str) -> None:
    source, network, by_monai = swin(0), swin(1), swin(1)
    state = of_self_supervision(source.state_dict(), prefix)
    report = load_official_state_dict(network, state, strict=False)
    assert_every_tensor_is_told_of_once(report, state)
    assert report.unused == ("module.rotation_head.weight",)
    assert len(report.verified) == 4
    assert set(report.missing) == {key for key in source.state_dict() if not key.startswith("swinViT.")}
    by_monai.load_from({"state_dict": of_self_supervision(source.state_dict())})
    torch.testing.assert_close(network.state_dict(), by_monai.state_dict(), rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(network.swinViT(image(64)), source.swinViT(image(64)), rtol=0, atol=0)


def test_an_encoder_alone_is_refused_unless_asked_for() -> None:
    with pytest.raises(
        ValueError, match="nothing for encoder1.* 1 that the network lacks, such as module.rotation.* strict=False"
    ):
        load_official_state_dict(swin(1), of_self_supervision(swin(0).state_dict()))


def test_another_index_is_refused_not_taken() -> None:
    network, state = swin(1), swin(0).state_dict()
    key = "swinViT.layers2.0.blocks.0.attn.relative_position_index"
    before = network.get_buffer(key).clone()
    with pytest.raises(ValueError, match=rf"differ in 1 tensors: {key} holds another index than .*window_size"):
        load_official_state_dict(network, {**state, key: state[key].flip(0)})
    assert torch.equal(network.get_buffer(key), before)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"in_channels": 1}, r"in_channels 1 \(here 2\)"),
        ({"out_channels": 5}, r"out_channels 5 \(here 3\)"),
        ({"feature_size": 24}, r"feature_size 24 \(here 12\)"),
        ({"num_heads": (2, 2, 2, 2)}, r"num_heads of the first stage 2 \(here 1\)"),
        ({"window_size": 3}, r"offsets in window_size 125 \(here 343\)"),
        ({"patch_size": 3}, r"patch_size 3 \(here 2\)"),
    ],
)
def test_of_another_swin_unetr_the_arguments_are_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"this SwinUNETR differ in .* trained with {sentence}\. "):
        load_official_state_dict(swin(1), swin(0, **changes).state_dict())
