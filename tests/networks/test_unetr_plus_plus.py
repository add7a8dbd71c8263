from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from golden_values import FLOAT32_TOLERANCE, filled_state, golden_input, read_golden, worst_deviation
from medcontext.networks import UNETRPlusPlus
from medcontext.networks.paired_attention import PairedAttention
from medcontext.networks.published import load_official_state_dict
from medcontext.networks.published.unetr_plus_plus import unetr_plus_plus_entry

DATASETS = {"synapse": "btcv", "acdc": "acdc", "tumor": "brats"}
PARAMETERS = {"btcv": 42_952_850, "acdc": 66_796_404, "brats": 42_647_604}
VARIANTS = [f"unetrpp_{name}{size}" for name in DATASETS for size in ("", "_tiny")]
SMALL: dict[str, Any] = {
    "img_size": (16, 32, 32),
    "feature_size": 4,
    "num_heads": 2,
    "depths": (1, 1, 1),
    "decoder_depths": 1,
    "patch_size": (2, 4, 4),
    "proj_sizes": (8, 8, 4),
}
SHAPES = [(2, 3, 16, 32, 32), (2, 3, 8, 8, 8), (2, 3, 4, 4, 4)]
STYLES = [
    pytest.param({}, id="btcv"),
    pytest.param({"share_projection": False, "num_convolutions": 2}, id="acdc"),
    pytest.param({"projection_bias": False, "fusion": "add"}, id="brats"),
    pytest.param({"spatial_layout": "token"}, id="token layout"),
]


def small(**changes: Any) -> UNETRPlusPlus:
    torch.manual_seed(0)
    return UNETRPlusPlus(2, 3, **{**SMALL, **changes})


def image(*size: int) -> torch.Tensor:
    return torch.randn(2, 2, *(size or SMALL["img_size"]), generator=torch.Generator().manual_seed(1))


def with_attention(network: UNETRPlusPlus) -> UNETRPlusPlus:
    """The network with its attention branches faded in and its position embeddings set."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("gamma", "position_embedding")):
                parameter.normal_()
    return network


def published(variant: str) -> UNETRPlusPlus:
    arguments = dict(read_golden(variant, "keys")["kwargs"])
    arguments["deep_supervision"] = arguments.pop("do_ds")
    return UNETRPlusPlus.for_dataset(DATASETS[variant.split("_")[1]], **arguments)


# --- equal to the original ---


@pytest.mark.parametrize("dataset", PARAMETERS)
def test_published_parameter_counts(dataset: str) -> None:
    with torch.device("meta"):
        network = UNETRPlusPlus.for_dataset(dataset)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[dataset]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_published_tensor_has_its_place(variant: str) -> None:
    keys = read_golden(variant, "keys")
    with torch.device("meta"):
        network = published(variant)
        entries = [
            unetr_plus_plus_entry(network, key, torch.empty(entry["shape"])) for key, entry in keys["entries"].items()
        ]
    assert None not in entries
    own = {key: tensor.shape for key, tensor in network.state_dict().items()}
    assert {key: tensor.shape for key, tensor in entries} == own
    assert len(entries) - len(own) == keys["summary"]["aliased_parameter_entries"]


@pytest.mark.parametrize(
    "variant",
    [
        "unetrpp_synapse_tiny",
        *[
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("unetrpp_acdc_tiny", "unetrpp_tumor_tiny", "unetrpp_synapse")
        ],
    ],
)
def test_published_outputs(variant: str) -> None:
    network = published(variant).eval()
    network.always_return_list = True
    report = load_official_state_dict(network, filled_state(variant))
    assert not report.unused
    assert not report.missing
    with torch.no_grad():
        outputs = network(golden_input(variant))
    assert worst_deviation(outputs, variant) < FLOAT32_TOLERANCE


def test_of_a_shared_projection_the_last_published_key_counts() -> None:
    network = small()
    state = {f"decoder4.decoder_block.0.0.epa_block.{key}.bias": torch.full((8,), float(ord(key))) for key in "EF"}
    report = load_official_state_dict(network, state, strict=False)
    own = "decoder_stages.1.0.attention.key_projection.bias"
    assert set(report.loaded.values()) == {own}
    assert network.get_parameter(own).tolist() == [float(ord("F"))] * 8


def test_published_tensors_without_a_place_are_reported() -> None:
    strangers = {"encoder10.conv1.conv.weight": torch.ones(1), "out3.conv.conv.bias": torch.ones(3)}
    state = {**strangers, "out1.conv.conv.bias": torch.ones(3)}
    report = load_official_state_dict(small(deep_supervision=False), state, strict=False)
    assert set(report.unused) == set(strangers)


# --- attention ---


def attention_by_hand(attention: PairedAttention, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Spatial (B, heads, N, d) and channel (B, heads, d, N) branch, one head at a time."""
    projections = attention.qkvv(tokens).chunk(4, dim=-1)
    project_values = attention.value_projection or attention.key_projection
    heads = zip(*(projection.chunk(attention.num_heads, dim=-1) for projection in projections), strict=True)
    spatial, channel = [], []
    for head, (q, k, v_channel, v_spatial) in enumerate(heads):  # each (B, N, d)
        unit_q, unit_k = (x / x.square().sum(1, keepdim=True).sqrt() for x in (q, k))
        keys, values = attention.key_projection(k.mT).mT, project_values(v_spatial.mT).mT  # (B, P, d)
        spatial.append((attention.spatial_temperature[head] * unit_q @ keys.mT).softmax(-1) @ values)
        channel.append((attention.channel_temperature[head] * unit_q.mT @ unit_k).softmax(-1) @ v_channel.mT)
    return torch.stack(spatial, 1), torch.stack(channel, 1)


@pytest.mark.parametrize("share_projection", [True, False])
def test_attention_is_the_formula(share_projection: bool) -> None:
    torch.manual_seed(0)
    attention = PairedAttention(
        6, 10, 4, 2, share_projection=share_projection, fusion="add", spatial_layout="token"
    ).double()
    torch.nn.init.uniform_(attention.spatial_temperature)
    torch.nn.init.uniform_(attention.channel_temperature)
    tokens = torch.randn(2, 10, 6, dtype=torch.float64)
    spatial, channel = attention_by_hand(attention, tokens)
    expected = torch.cat([spatial[:, h] + channel[:, h].mT for h in range(2)], dim=-1)
    torch.testing.assert_close(attention(tokens), expected)


def test_published_layout_scatters_the_spatial_branch_and_token_layout_does_not() -> None:
    torch.manual_seed(0)
    attention = PairedAttention(6, 10, 4, 2, fusion="add", spatial_layout="published").double()
    tokens = torch.randn(1, 10, 6, dtype=torch.float64)
    spatial, channel = attention_by_hand(attention, tokens)
    numbers = [spatial[0, head, token, feature] for feature in range(3) for head in range(2) for token in range(10)]
    scattered = torch.stack(numbers).reshape(1, 10, 6)
    torch.testing.assert_close(attention(tokens), scattered + torch.cat([channel[:, 0].mT, channel[:, 1].mT], -1))


@pytest.mark.parametrize(("layout", "follows"), [("token", True), ("published", False)])
def test_results_follow_their_tokens(layout: Any, follows: bool) -> None:
    torch.manual_seed(0)
    attention = PairedAttention(6, 10, 4, 2, spatial_layout=layout).double()
    order = torch.randperm(10)
    moved = copy.deepcopy(attention)
    moved.key_projection.weight.data = attention.key_projection.weight.data[:, order]
    tokens = torch.randn(1, 10, 6, dtype=torch.float64)
    assert torch.allclose(moved(tokens[:, order]), attention(tokens)[:, order]) is follows


def test_attention_weights_drop_out_in_training_only() -> None:
    torch.manual_seed(0)
    attention, tokens = PairedAttention(6, 10, 4, 2, dropout=0.5), torch.randn(1, 10, 6)
    assert not torch.equal(attention(tokens), attention(tokens))
    assert torch.equal(attention.eval()(tokens), attention(tokens))


# --- the network ---


@pytest.mark.parametrize("style", STYLES)
def test_outputs_and_gradients_of_the_variants(style: dict[str, Any]) -> None:
    network = with_attention(small(**style))
    outputs = network(image())
    assert [tuple(output.shape) for output in outputs] == SHAPES
    sum(output.square().mean() for output in outputs).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.abs().sum() > 0] == []


def test_training_repeats_with_its_seed() -> None:
    network = small()
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(network(image()))
    for first, second in zip(*outputs, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_layouts_are_different_functions() -> None:
    networks = [with_attention(small(spatial_layout=layout)).eval() for layout in ("published", "token")]
    networks[1].load_state_dict(networks[0].state_dict())
    assert not torch.allclose(networks[0](image()), networks[1](image()), atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"spatial_dims": 2, "img_size": 32, "patch_size": 4}, (32, 32)),
        ({"patch_size": (1, 2, 2), "img_size": (4, 16, 8)}, (4, 16, 8)),
        ({"num_heads": (1, 2, 4), "dims": (6, 10, 16), "hidden_size": 16, "depths": (1, 2, 1)}, SMALL["img_size"]),
        ({"depths": (1,) * 4, "proj_sizes": (8,) * 4, "decoder_depths": (1, 0, 2)}, SMALL["img_size"]),
        ({"depths": (1, 1), "proj_sizes": (8, 4), "attention_dropout": 0.0}, SMALL["img_size"]),
    ],
)
def test_other_sizes_and_depths(changes: dict[str, Any], size: tuple[int, ...]) -> None:
    network = small(**changes)
    assert network(image(*size))[0].shape == (2, 3, *size)


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 64}, r"got 64, but dims end with 32"),
        ({"proj_sizes": (8, 4)}, r"proj_sizes needs one number per stage: got 2 for 3 stages"),
        ({"dims": (8, 16)}, r"depths needs one number per stage: got 3 for 2 stages"),
        ({"num_heads": 3}, r"num_heads must divide .*3 heads and 8 features"),
        ({"num_heads": 0}, r"num_heads must divide .*0 heads"),
        ({"fusion": "sum"}, r"fusion must be one of 'concatenate', 'add', got 'sum'"),
        ({"spatial_layout": "tokens"}, r"spatial_layout must be one of 'published', 'token', got 'tokens'"),
        ({"attention_dropout": 1.0}, r"drop probability .* \[0, 1\), got 1.0"),
        ({"patch_size": (2, 0, 4)}, "patch_size must be at least 1, got 0"),
        ({"proj_sizes": (8, 0, 4)}, "proj_sizes must be at least 1, got 0"),
        ({"dims": (8, 0, 4)}, "dims must be at least 1, got 0"),
        ({"dims": (8, 8, 8), "feature_size": 0}, "feature_size must be at least 1, got 0"),
        ({"depths": (1, -1, 1)}, "depths must be at least 0, got -1"),
        ({"decoder_depths": -1}, "decoder_depths must be at least 0, got -1"),
        ({"num_convolutions": -1}, "num_convolutions must be at least 0, got -1"),
        ({"spatial_dims": 1}, r"spatial_dims must be 2 or 3, got 1"),
    ],
)
def test_illegal_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_unknown_dataset() -> None:
    with pytest.raises(ValueError, match=r"no published UNETR\+\+ for 'synapse'; take one of btcv, acdc, brats"):
        UNETRPlusPlus.for_dataset(dataset="synapse")


def test_overrides_of_a_published_variant() -> None:
    changes = {name: value for name, value in SMALL.items() if name != "patch_size"}
    network = UNETRPlusPlus.for_dataset("btcv", **changes, out_channels=3, in_channels=2)
    assert [tuple(output.shape) for output in network(image())] == SHAPES
