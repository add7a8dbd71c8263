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
