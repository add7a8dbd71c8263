from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy import ndimage

from medcontext.keys import MedContextKeys
from medcontext.transforms import RandPatchDropout, RandPatchDropoutd


def draw(shape: tuple[int, ...], seed: int = 0, **arguments: Any) -> np.ndarray:
    """The context mask (spatial) of one draw for an image of ones."""
    dropout = RandPatchDropout(**arguments).set_random_state(seed)
    return dropout(np.ones((1, *shape), np.float32))[1][0] > 0


@pytest.mark.parametrize("mode", ["random", "block", "tube"])
@pytest.mark.parametrize(
    ("shape", "size", "ratio", "voxels"),
    [
        ((8, 8, 8), 4, 0.5, 256),  # 8 patches of 64 voxels, or 4 tubes of 128
        ((8, 8, 8), 4, 0.0, 0),
        ((8, 8, 8), 4, 1.0, 512),
        ((4, 4, 4), (2, 2, 4), 0.25, 16),  # 4 patches, or 4 tubes, of 16 voxels
        ((8, 8), 2, 0.25, 16),  # 16 patches of 4, or 4 tubes of 16
    ],
)
def test_ratio_is_exact(mode: str, shape: tuple[int, ...], size: Any, ratio: float, voxels: int) -> None:
    assert draw(shape, mode=mode, patch_size=size, ratio=ratio).sum() == voxels


@pytest.mark.parametrize("mode", ["random", "block"])
def test_number_of_patches_is_rounded(mode: str) -> None:
    mask = draw((6, 6, 6), mode=mode, patch_size=2, ratio=0.4)
    assert mask.sum() == 11 * 8  # 0.4 of 27 patches is 10.8


def test_number_of_tubes_is_rounded() -> None:
    mask = draw((6, 6, 6), mode="tube", patch_size=2, ratio=0.4)
    assert mask.sum() == 4 * 24  # 0.4 of 9 tubes is 3.6


@pytest.mark.parametrize("mode", ["random", "block", "tube"])
def test_patches_are_whole_tokens(mode: str) -> None:
    mask = draw((8, 12, 8), mode=mode, patch_size=4, ratio=0.4)
    tokens = mask[::4, ::4, ::4]
    np.testing.assert_array_equal(mask, np.kron(tokens, np.ones((4, 4, 4), bool)))


def test_patches_at_the_far_border_are_cut() -> None:
    masks = np.stack([draw((5,), seed, patch_size=3, ratio=0.5) for seed in range(20)])
    assert {tuple(mask) for mask in masks.astype(int)} == {(1, 1, 1, 0, 0), (0, 0, 0, 1, 1)}


@pytest.mark.parametrize(("tube_axis", "axis"), [(-1, 2), (2, 2), (0, 0), (1, 1), (-3, 0)])
def test_tubes_run_along_the_axis(tube_axis: int, axis: int) -> None:
    mask = draw((8, 8, 8), mode="tube", patch_size=2, ratio=0.5, tube_axis=tube_axis)
    first = mask.take([0], axis=axis)
    np.testing.assert_array_equal(mask, np.repeat(first, 8, axis=axis))
    assert first.sum() == 32


@pytest.mark.parametrize("seed", range(10))
def test_one_block_is_connected(seed: int) -> None:
    mask = draw((12, 12, 12), seed, mode="block", patch_size=2, ratio=0.3)
    assert ndimage.label(mask)[1] == 1


def test_random_patches_are_not_a_block() -> None:
    assert ndimage.label(draw((12, 12, 12), mode="random", patch_size=2, ratio=0.1))[1] > 1


def test_blocks_lie_apart() -> None:
    pieces = [
        ndimage.label(draw((16, 16, 16), seed, mode="block", num_blocks=3, patch_size=2, ratio=0.05))[1]
        for seed in range(10)
    ]
    assert max(pieces) == 3
    assert min(pieces) >= 1


def test_draws_differ_and_repeat_with_the_seed() -> None:
    image = torch.ones(1, 16, 16, 16)
    dropout = RandPatchDropout(patch_size=4).set_random_state(3)
    first, second = dropout(image)[1], dropout(image)[1]
    assert not torch.equal(first, second)
    dropout.set_random_state(3)
    assert torch.equal(dropout(image)[1], first)
    assert torch.equal(dropout(image, randomize=False)[1], first)


@pytest.mark.parametrize("fill", ["zero", "mean", "noise"])
@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_fill(fill: str, ratio: float) -> None:
    image = np.random.RandomState(0).normal([[2.0], [-5.0]], [[1.0], [3.0]], (2, 4096)).astype(np.float32)
    image = image.reshape(2, 16, 16, 16)
    masked, mask = RandPatchDropout(patch_size=4, ratio=ratio, fill=fill).set_random_state(0)(image)
    dropped, kept = masked[:, mask[0] > 0], image[:, mask[0] == 0]
    np.testing.assert_array_equal(masked[:, mask[0] == 0], kept)
    if fill == "zero" or ratio == 1.0:
        assert not dropped.any()
    elif fill == "mean":
        np.testing.assert_allclose(dropped, np.broadcast_to(kept.mean(1, keepdims=True), dropped.shape), rtol=1e-5)
    else:
        np.testing.assert_allclose(dropped.mean(1), kept.mean(1), atol=0.3)
        np.testing.assert_allclose(dropped.std(1), kept.std(1), rtol=0.1)


def test_prob_zero_drops_nothing() -> None:
    image = torch.rand(2, 8, 8, 8)
    masked, mask = RandPatchDropout(patch_size=2, prob=0.0)(image)
    assert torch.equal(masked, image)
    assert masked is not image
    assert masked.data_ptr() != image.data_ptr()
    assert not mask.any()


def test_prob_is_a_probability() -> None:
    dropout = RandPatchDropout(patch_size=2, prob=0.3).set_random_state(0)
    dropped = [bool(dropout(np.ones((1, 4, 4), np.float32))[1].any()) for _ in range(1000)]
    assert 0.25 < np.mean(dropped) < 0.35


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.int16])
def test_types_are_kept(dtype: torch.dtype) -> None:
    image = torch.ones(1, 8, 8, dtype=dtype)
    for given_image in (image, image.numpy(), MetaTensor(image, meta={"name": "case"})):
        masked, mask = RandPatchDropout(patch_size=2, fill="mean")(given_image)
        assert type(masked) is type(mask) is type(given_image)
        assert masked.dtype == given_image.dtype
        assert "float32" in str(mask.dtype)
        assert mask.shape == (1, 8, 8)
    assert masked.meta["name"] == mask.meta["name"] == "case"


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(2, 9), min_size=2, max_size=3),
    size=st.integers(1, 5),
    mode=st.sampled_from(["random", "block", "tube"]),
    ratio=st.floats(0, 1),
    fill=st.sampled_from(["zero", "mean", "noise"]),
    seed=st.integers(0, 99),
)
def test_mask_and_image_agree(shape: list[int], size: int, mode: str, ratio: float, fill: str, seed: int) -> None:
    image = np.random.RandomState(seed).normal(size=(2, *shape)).astype(np.float32)
    before = image.copy()
    dropout = RandPatchDropout(mode=mode, ratio=ratio, patch_size=size, fill=fill, num_blocks=2)
    masked, mask = dropout.set_random_state(seed)(image)
    np.testing.assert_array_equal(image, before)
    assert set(np.unique(mask)) <= {0.0, 1.0}
    np.testing.assert_array_equal(masked[:, mask[0] == 0], image[:, mask[0] == 0])
    grid = mask[0][tuple(slice(None, None, size) for _ in shape)]
    patches = grid[..., 0] if mode == "tube" else grid
    assert patches.sum() == round(ratio * patches.size)


def test_dictionary_version_adds_two_keys() -> None:
    data = {"image": torch.rand(1, 8, 8), "label": torch.ones(1, 8, 8)}
    before = data["image"].clone()
    added = RandPatchDropoutd(patch_size=2, ratio=0.5).set_random_state(1)(data)
    assert set(data) == {"image", "label"}
    assert set(added) == {"image", "label", MedContextKeys.MASKED_IMAGE, MedContextKeys.CONTEXT_MASK}
    assert added["image"] is data["image"]
    assert torch.equal(data["image"], before)
    masked, mask = RandPatchDropout(patch_size=2, ratio=0.5).set_random_state(1)(before)
    assert torch.equal(added["masked_image"], masked)
    assert torch.equal(added["context_mask"], mask)


def test_dictionary_version_survives_pickling() -> None:
    data = {"image": torch.rand(1, 8, 8)}
    dropout = RandPatchDropoutd("image", masked_key="holes", mask_key="mask", patch_size=2).set_random_state(1)
    copy = pickle.loads(pickle.dumps(dropout))
    assert torch.equal(copy(data)["mask"], dropout(data)["mask"])


def test_dictionary_version_without_its_image() -> None:
    assert RandPatchDropoutd("t2", allow_missing_keys=True)({"image": 1}) == {"image": 1}
    with pytest.raises(KeyError, match="t2"):
        RandPatchDropoutd("t2")({"image": 1})
    with pytest.raises(ValueError, match=r"keys must name one image, got \('t1', 't2'\)"):
        RandPatchDropoutd(("t1", "t2"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "tubes"}, ValueError, "mode must be one of 'random', 'block', 'tube', got 'tubes'"),
        ({"fill": "black"}, ValueError, "fill must be one of 'zero', 'mean', 'noise', got 'black'"),
        ({"ratio": 1.5}, ValueError, r"ratio must lie in \[0, 1\], got 1.5"),
        ({"ratio": "half"}, TypeError, "ratio must be a number, got 'half'"),
        ({"prob": -0.1}, ValueError, r"prob must lie in \[0, 1\], got -0.1"),
        ({"patch_size": 0}, ValueError, "patch_size must be at least 1, got 0"),
        ({"patch_size": 2.5}, TypeError, "patch_size must be an integer, got 2.5"),
        ({"patch_size": ()}, ValueError, "patch_size must not be empty"),
        ({"num_blocks": 0}, ValueError, "num_blocks must be at least 1, got 0"),
        ({"num_blocks": 1.0}, TypeError, "num_blocks must be an integer, got 1.0"),
        ({"tube_axis": "S"}, TypeError, "tube_axis must be an integer, got 'S'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RandPatchDropout(**arguments)
    with pytest.raises(error, match=message):
        RandPatchDropoutd(**arguments)


def test_argument_that_the_array_transform_does_not_have() -> None:
    with pytest.raises(TypeError, match="RandPatchDropout has no argument 'patchsize'. Did you mean 'patch_size'?"):
        RandPatchDropoutd(patchsize=4)


def test_arguments_that_do_not_fit_the_image() -> None:
    image = np.ones((1, 4, 4), np.float32)
    with pytest.raises(ValueError, match=r"patch_size has 3 numbers, \(2, 2, 2\), but the image has 2 spatial axes"):
        RandPatchDropout(patch_size=(2, 2, 2))(image)
    with pytest.raises(ValueError, match="tube_axis is 2 but the image has 2 spatial axes"):
        RandPatchDropout(mode="tube", tube_axis=2)(image)


def test_drawing_comes_first() -> None:
    dropout = RandPatchDropout(patch_size=2)
    with pytest.raises(ValueError, match="no mask was drawn yet"):
        dropout(np.ones((1, 4, 4), np.float32), randomize=False)
    dropout(np.ones((1, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r"drawn mask has spatial shape \(4, 4\) but the image \(6, 6\)"):
        dropout(np.ones((1, 6, 6), np.float32), randomize=False)
