from __future__ import annotations

import hashlib
from itertools import product

import numpy as np
import pytest
import torch

from golden_values import read_golden
from medcontext.networks.window_attention import WindowAttention, WindowBlock, fit_window, relative_position_index

INDEX_TABLES = [
    entry
    for variant in ("nnformer_synapse", "nnformer_acdc", "nnformer_synapse_tiny_pad")
    for entry in read_golden(variant, "keys")["relative_position_index"].items()
]


def digest(index: torch.Tensor) -> str:
    return hashlib.sha256(np.ascontiguousarray(index.numpy(), dtype="<i8").tobytes()).hexdigest()


@pytest.mark.parametrize(("published", "table"), INDEX_TABLES)
def test_both_indices_are_those_of_the_reference(published: str, table: dict[str, object]) -> None:
    window = table["window_size"]
    assert digest(relative_position_index(window)) == published
    assert digest(relative_position_index(window, "standard")) == table["standard_index_sha256_int64_le"]


@pytest.mark.parametrize("window", [(2, 2, 2), (2, 4, 2), (3, 5, 5), (1, 3, 2)])
def test_the_standard_index_has_one_row_per_offset(window: tuple[int, int, int]) -> None:
    tokens = list(product(*map(range, window)))
    index = relative_position_index(window, "standard")
    rows: dict[tuple[int, ...], set[int]] = {}
    for (i, a), (j, b) in product(enumerate(tokens), repeat=2):
        rows.setdefault(tuple(np.subtract(a, b)), set()).add(int(index[i, j]))
    assert all(len(row) == 1 for row in rows.values())
    assert sorted(row.pop() for row in rows.values()) == list(range(np.prod([2 * size - 1 for size in window])))


@pytest.mark.parametrize(("window", "last", "rows"), [((2, 4, 2), 66, 63), ((4, 4, 1), 108, 49), ((2, 1, 1), 4, 3)])
def test_windows_that_the_published_index_overflows(window: tuple[int, int, int], last: int, rows: int) -> None:
    with pytest.raises(ValueError, match=f"reaches row {last} of a table of {rows}; use relative_position='standard'"):
        WindowAttention(4, 1, window, external_queries=False, relative_position="published")


@pytest.mark.parametrize(
    ("window", "resolution", "expected"),
    [
        (4, (32, 32, 32), ((4, 4, 4), (2, 2, 2))),
        (8, (8, 8, 8), ((8, 8, 8), (0, 0, 0))),
        (8, (4, 16, 16), ((4, 4, 4), (0, 0, 0))),
        (3, (4, 4, 4), ((3, 3, 3), (1, 1, 1))),
        ((3, 5, 5), (14, 40, 40), ((3, 5, 5), (1, 2, 2))),
        ((7, 10, 10), (7, 10, 10), ((7, 10, 10), (0, 0, 0))),
        ((7, 10, 10), (7, 20, 20), ((7, 10, 10), (3, 5, 5))),
    ],
)
def test_windows_fit_the_grid(window: object, resolution: tuple[int, int, int], expected: object) -> None:
    assert fit_window(window, resolution) == expected


def reached(block: WindowBlock, token: tuple[int, int, int]) -> set[tuple[int, ...]]:
    """The tokens that notice a change of one."""
    torch.manual_seed(0)
    tokens = torch.randn(1, *block.resolution, 4)
    changed = tokens.clone()
    changed[(0, *token)] += torch.randn(4)
    with torch.no_grad():
        difference = (block(tokens) - block(changed)).abs().amax(-1)[0]
    return set(map(tuple, difference.nonzero().tolist()))


@pytest.mark.parametrize(
    ("shift", "masked", "token", "expected"),
    [
        (0, True, (0, 0, 0), product((0, 1), repeat=3)),
        (1, True, (1, 2, 1), product((1, 2), repeat=3)),
        (1, True, (0, 0, 0), [(0, 0, 0)]),  # its window holds the far end of every axis too
        (1, False, (0, 0, 0), product((0, 3), repeat=3)),
    ],
)
def test_what_shifted_windows_join(shift: int, masked: bool, token: tuple[int, int, int], expected: object) -> None:
    block = WindowBlock(4, 2, (2, 2, 2), (shift,) * 3, (4, 4, 4), mask_shifted=masked).eval()
    assert reached(block, token) == set(expected)


def test_attention_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    attention = WindowAttention(6, 2, (1, 2, 2), external_queries=True, relative_position="standard").double()
    tokens, queries = torch.randn(2, 3, 5, 4, 6, dtype=torch.float64).unbind(0)
    key, value = attention.qkv(tokens).split(6, -1)
    expected = torch.empty_like(tokens)
    for head, part in enumerate((slice(0, 3), slice(3, 6))):
        bias = attention.relative_position_bias_table[attention.relative_position_index, head]
        logits = queries[..., part] @ key[..., part].transpose(-1, -2) / 3**0.5 + bias
        expected[..., part] = logits.softmax(-1) @ value[..., part]
    torch.testing.assert_close(attention(tokens, queries), attention.projection(expected))


def test_padded_and_shifted_windows_token_by_token() -> None:
    """The block written out: who shares a window of the padded and shifted grid, and which part of it."""
    grid, padded, window, shift = (3, 5, 4), (4, 6, 6), (2, 3, 3), (1, 1, 1)
    torch.manual_seed(0)
    block = WindowBlock(4, 2, window, shift, grid, relative_position="standard").double()
    table = torch.nn.init.normal_(block.attention.relative_position_bias_table)
    tokens = torch.randn(1, *grid, 4, dtype=torch.float64)

    places = list(product(*map(range, padded)))
    shifted = np.mod(np.subtract(places, shift), padded)
    # per axis the window, and whether the shift took the token from the grid's beginning to its end
    groups = np.hstack([shifted // window, shifted >= np.subtract(padded, shift)])
    normed = torch.zeros(1, *padded, 4, dtype=torch.float64)  # padding is zero behind the norm
    normed[:, :3, :5, :4] = block.norm1(tokens)
    query, key, value = block.attention.qkv(normed).reshape(-1, 3, 2, 2).unbind(1)
    attended = torch.empty_like(tokens)
    for place in product(*map(range, grid)):
        i = places.index(place)
        others = np.flatnonzero((groups == groups[i]).all(1))
        offsets = shifted[i] - shifted[others] + np.subtract(window, 1)
        bias = table[np.ravel_multi_index(tuple(offsets.T), (3, 5, 5))]
        weights = (torch.einsum("hd,jhd->jh", query[i], key[others]) / 2**0.5 + bias).softmax(0)
        attended[0][place] = block.attention.projection(torch.einsum("jh,jhd->hd", weights, value[others]).flatten())
    expected = tokens + attended
    torch.testing.assert_close(block(tokens), expected + block.mlp(block.norm2(expected)))
