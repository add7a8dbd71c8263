from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNETR
from torch import nn

from medcontext.networks import TokenMasking, plain_network

SIZE = (32, 32, 32)


def unetr() -> nn.Module:
    torch.manual_seed(0)
    return UNETR(1, 2, SIZE, feature_size=4, hidden_size=24, mlp_dim=48, num_heads=2)


def tokens_of(network: nn.Module, path: str, *inputs: torch.Tensor) -> torch.Tensor:
    """What the rest of the network sees behind the embedding, hooks included."""
    found = []
    blocks = network.network.vit.blocks[0]
    handle = blocks.register_forward_pre_hook(lambda module, args: found.append(args[0].detach()))
    network(*inputs)
    handle.remove()
    return found[0]


def test_masked_tokens_are_the_learned_one_and_the_others_stay() -> None:
    masking = TokenMasking(unetr(), "vit.patch_embedding", (1, *SIZE)).eval()
    with torch.no_grad():
        masking.mask_token.copy_(torch.arange(24.0))
    image = torch.randn(1, 1, *SIZE)
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 16:, :16, :16] = 1  # spatial axis 2 is the fastest: token (0, 0, ...) order is (x, y, z)
    plain, masked = (tokens_of(masking, "", image, *extra) for extra in ((), (mask,)))
    assert masking.grid == (2, 2, 2)
    changed = (plain != masked).any(-1)[0]
    assert changed.reshape(2, 2, 2).nonzero().tolist() == [[1, 0, 0]]
    torch.testing.assert_close(masked[0][changed][0], torch.arange(24.0))


def test_without_a_mask_the_network_is_itself() -> None:
    network = unetr().eval()
    masking = TokenMasking(network, "vit.patch_embedding", (1, *SIZE)).eval()
    image = torch.randn(1, 1, *SIZE)
    torch.testing.assert_close(masking(image), network(image), rtol=0, atol=0)
    nothing = torch.zeros(1, 1, *SIZE)
    torch.testing.assert_close(masking(image, nothing), network(image), rtol=0, atol=0)


def test_the_mask_token_learns_and_is_not_part_of_the_network() -> None:
    masking = TokenMasking(unetr(), "vit.patch_embedding", (1, *SIZE))
    masking(torch.randn(1, 1, *SIZE), torch.ones(1, 1, *SIZE)).square().mean().backward()
    assert masking.mask_token.grad is not None
    assert masking.mask_token.grad.abs().sum() > 0
    assert not any("mask_token" in name for name in plain_network(masking).state_dict())
    assert plain_network(masking).state_dict().keys() == unetr().state_dict().keys()


def test_hooks_do_not_stay() -> None:
    masking = TokenMasking(unetr(), "vit.patch_embedding", (1, *SIZE))
    masking(torch.randn(1, 1, *SIZE), torch.ones(1, 1, *SIZE))
    assert not masking.network.vit.patch_embedding._forward_hooks


@pytest.mark.parametrize(
    ("embedding", "arguments", "message"),
    [
        ("vit.embedding", {}, r"UNETR has no module 'vit.embedding'; .*vit.patch_embedding"),
        ("vit.norm", {"grid": (2, 2, 1)}, r"grid \(2, 2, 1\) has 4 tokens, but 'vit.norm' returns 8"),
    ],
)
def test_wrong_paths_and_grids(embedding: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenMasking(unetr(), embedding, (1, *SIZE), **arguments)
