from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch

from golden_values import FLOAT32_TOLERANCE, filled_state, golden_input, read_golden, worst_deviation
from medcontext.networks import NNFormer, prepare_network
from medcontext.networks.published import load_official_state_dict
from medcontext.networks.published.nnformer import nnformer_entry

DATASETS = {"synapse": "btcv", "acdc": "acdc", "tumor": "brats"}
PARAMETERS = [
    ("btcv", {}, 150_054_210),
    ("acdc", {}, 37_160_200),
    ("acdc", {"deep_supervision": True}, 37_197_072),
    ("brats", {}, 37_606_726),
]
VARIANTS = [
    "nnformer_synapse",
    "nnformer_acdc",
    "nnformer_acdc_ds",
    "nnformer_tumor",
    "nnformer_synapse_tiny",
    "nnformer_synapse_tiny_pad",
    "nnformer_acdc_tiny",
    "nnformer_tumor_tiny",
]
SMALL: dict[str, Any] = {"img_size": (32, 64, 64), "embed_dim": 12, "num_heads": (1, 2, 3, 4)}
STYLES = [
    pytest.param({}, id="btcv"),
    pytest.param({"window_size": (6, 3, 3, 2)}, id="padded windows"),
    pytest.param({"window_size": ((2, 4, 4), 4, (4, 4, 4), (2, 2, 2)), "mask_shifted": False}, id="acdc windows"),
    pytest.param({"merging_strides": ((1, 2, 2), 2, 2), "img_size": (28, 64, 64)}, id="odd depth"),
    pytest.param({"decoder_num_heads": (2, 3, 4), "patch_size": 4, "img_size": 64}, id="brats"),
    pytest.param({"depths": (1, 2, 1), "num_heads": (1, 2, 3), "window_size": (4, 4, 4)}, id="three stages"),
    pytest.param({"window_size": ((2, 4, 2), 4, 4, 2), "relative_position": "standard"}, id="standard index"),
]


def small(**changes: Any) -> NNFormer:
    torch.manual_seed(0)
    return NNFormer(2, 3, **{**SMALL, **changes})


def image(network: NNFormer, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 2, *network.img_size, generator=torch.Generator().manual_seed(1))


def published(variant: str, **changes: Any) -> NNFormer:
    arguments = dict(read_golden(variant, "keys")["kwargs"])
    names = {
        "crop_size": "img_size",
        "embedding_dim": "embed_dim",
        "input_channels": "in_channels",
        "num_classes": "out_channels",
    }
    cumulative = arguments.pop("down_stride", None)
    assert cumulative in (None, [[1, 4, 4], [1, 8, 8], [2, 16, 16], [4, 32, 32]])
    renamed = {names.get(key, key): value for key, value in arguments.items()}
    return NNFormer.for_dataset(DATASETS[variant.split("_")[1]], **(renamed | changes))


def loaded(variant: str, **changes: Any) -> NNFormer:
    network = published(variant, **changes).eval()
    network.always_return_list = True
    load_official_state_dict(network, filled_state(variant))
    return network


# --- equal to the original ---


@pytest.mark.parametrize(("dataset", "overrides", "count"), PARAMETERS)
def test_published_parameter_counts(dataset: str, overrides: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        network = NNFormer.for_dataset(dataset, **overrides)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_published_tensor_has_its_place(variant: str) -> None:
    with torch.device("meta"):
        network = published(variant)
    theirs = {
        nnformer_entry(network, key, torch.empty(0))[0]: entry["shape"]
        for key, entry in read_golden(variant, "keys")["entries"].items()
    }
    assert theirs == {key: list(tensor.shape) for key, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    "variant",
    [
        "nnformer_synapse_tiny",
        "nnformer_acdc_tiny",
        "nnformer_tumor_tiny",
        pytest.param("nnformer_synapse", marks=pytest.mark.slow),
    ],
)
def test_published_outputs(variant: str) -> None:
    network = loaded(variant)
    with torch.no_grad():
        outputs = network(golden_input(variant))
    assert worst_deviation(outputs, variant) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("change", [{"relative_position": "standard"}, {"mask_shifted": False}])
def test_the_golden_values_tell_variants_apart(change: dict[str, Any]) -> None:
    network = loaded("nnformer_synapse_tiny", **change)
    with torch.no_grad():
        outputs = network(golden_input("nnformer_synapse_tiny"))
    assert worst_deviation(outputs, "nnformer_synapse_tiny") > 100 * FLOAT32_TOLERANCE


def test_unknown_datasets_are_refused() -> None:
    with pytest.raises(ValueError, match="no published nnFormer for 'synapse'; take one of btcv, acdc, brats"):
        NNFormer.for_dataset("synapse")


# --- published checkpoints ---


def official_state(variant: str) -> dict[str, torch.Tensor]:
    """A published checkpoint with its index tables, as they are in the network."""
    network, state = published(variant).state_dict(), filled_state(variant)
    for key in read_golden(variant, "keys")["entries"]:
        state.setdefault(key, network[nnformer_entry(published, key, torch.empty(0))[0]])
    return state


def test_loading_reports_every_tensor() -> None:
    state = {f"module.{key}": tensor for key, tensor in official_state("nnformer_synapse_tiny").items()}
    state["module.mask_token"] = torch.zeros(1)
    network = published("nnformer_synapse_tiny", deep_supervision=False)
    report = load_official_state_dict(network, state)
    assert report.unused == (
        *(f"module.final.{i}.up.{n}" for i in (1, 2) for n in ("weight", "bias")),
        "module.mask_token",
    )
    assert len(report.verified) == 14
    assert not report.missing
    assert len(report.loaded) + len(report.verified) + len(report.unused) == len(state)
    for name, target in report.loaded.items():
        torch.testing.assert_close(network.state_dict()[target], state[name], rtol=0, atol=0)
    assert str(report).startswith("232 tensors loaded, 14 index tables verified\n5 not in the network, ignored: module")


def test_another_index_is_refused() -> None:
    state = official_state("nnformer_synapse_tiny")
    with pytest.raises(ValueError, match="differ in 14 tensors: .*holds another index than .*relative_position"):
        load_official_state_dict(published("nnformer_synapse_tiny", relative_position="standard"), state)


def test_incomplete_and_misshapen_checkpoints_change_nothing() -> None:
    network = published("nnformer_synapse_tiny")
    before, state = copy.deepcopy(network.state_dict()), filled_state("nnformer_synapse_tiny")
    bias = state.pop("final.0.up.bias")
    with pytest.raises(ValueError, match="differ in 1 tensors: it holds nothing for heads.0.bias"):
        load_official_state_dict(network, state)
    with pytest.raises(ValueError, match=r"final.0.up.bias has shape \(2,\), heads.0.bias \(5,\)"):
        load_official_state_dict(network, state | {"final.0.up.bias": bias[:2]})
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert load_official_state_dict(network, state, strict=False).missing == ("heads.0.bias",)


def test_networks_without_published_names() -> None:
    with pytest.raises(ValueError, match="No published checkpoints are known for Linear, only for .*NNFormer"):
        load_official_state_dict(torch.nn.Linear(1, 1), {})


# --- the network ---


@pytest.mark.parametrize("style", STYLES)
def test_outputs_and_gradients_of_the_variants(style: dict[str, Any]) -> None:
    network = small(**style, drop_path_rate=0)
    outputs = network(image(network, 1))
    assert [output.shape[:2] for output in outputs] == [(1, 3)] * (len(style.get("depths", range(4))) - 1)
    assert outputs[0].shape[2:] == network.img_size
    assert all(low.shape[-1] * 2 == high.shape[-1] for high, low in pairwise(outputs))
    sum(output.square().mean() for output in outputs).backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_channels_last_changes_little() -> None:
    network = small().eval()
    with torch.no_grad():
        plain = network(image(network))
        last = prepare_network(network, "cpu", None, (2, *network.img_size))(image(network))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-5)


def test_stochastic_depth_is_largest_at_the_end_of_each_path() -> None:
    network = small(drop_path_rate=0.7)
    encoder, decoder = (
        [[round(block.drop_path.drop_prob, 6) for block in stage.blocks] for stage in stages]
        for stages in (network.encoder, network.decoder)
    )
    assert encoder == [[0, 0.1], [0.2, 0.3], [0.4, 0.5], [0.6, 0.7]]
    assert decoder == [[0.56, 0.7], [0.28, 0.42], [0, 0.14]]


# --- arguments ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": (2, 8, 4)}, r"patch_size along axis 1 must be one of \[1, 2, 3, 4, 6, 9\], got 8"),
        ({"window_size": ((2, 4, 2), 4, 4, 4)}, r"window \(2, 4, 2\) .* row 66 of a table of 63; .*'standard'"),
        ({"window_size": ((2, 4), 4, 4, 4)}, r"positive integer or three of them per stage, got \(2, 4\)"),
        ({"window_size": (4, 4, 4)}, "window_size needs 4 entries for 4 stages, got 3"),
        ({"num_heads": (1, 2, 3)}, "^num_heads needs 4 entries for 4 stages, got 3"),
        ({"decoder_num_heads": (1, 2)}, "decoder_num_heads needs 3 entries for 4 stages, got 2"),
        ({"num_heads": (5, 2, 3, 4)}, "5 heads do not divide 12 channels"),
        ({"num_heads": (0, 2, 3, 4)}, "0 heads do not divide 12 channels"),
        ({"depths": (2,)}, r"at least two stages of one block or more, got \(2,\)"),
        ({"embed_dim": 11}, "embed_dim must be even, got 11"),
        ({"merging_strides": (2, 2)}, "merging_strides needs 3 entries, one between every two stages, got 2"),
        ({"merging_strides": (2, 2, 3)}, r"merging_strides may hold 1 and 2 only, got \(2, 2, 3\)"),
        ({"relative_position": "swin"}, "relative_position must be one of 'published', 'standard', got 'swin'"),
        ({"spatial_dims": 2}, "spatial_dims must be 3, got 2"),
    ],
)
def test_illegal_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)
