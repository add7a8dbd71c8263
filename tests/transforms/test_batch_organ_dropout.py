from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medcontext.phantoms import make_btcv_phantom
from medcontext.transforms import BatchOrganDropout, RandOrganDropout


def block_scene(batch: int = 4, size: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Bodies of 1 in air of 0, in each a block of each of two organs."""
    image, label = torch.zeros(batch, 1, size, size, size), torch.zeros(batch, 1, size, size, size)
    image[:, :, 4:] = 1
    label[:, :, 6:10, 4:9, 4:9], label[:, :, 14:20, 14:20, 14:20] = 1, 2
    return image, label


@torch.random.fork_rng()
def drop(
    image: torch.Tensor, label: torch.Tensor, seed: int = 0, **arguments: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    some = {} if "num_organs" in arguments else {"organ_fraction": 0.5}
    return BatchOrganDropout(arguments.pop("num_classes", 3), **{**some, **arguments})(image, label)


@pytest.mark.parametrize(("num_organs", "expected"), [(1, {1}), (2, {2}), ((1, 2), {1, 2}), (5, {2})])
def test_number_of_organs(num_organs: int | tuple[int, int], expected: set[int]) -> None:
    image, label = block_scene(16)
    mask = drop(image, label, cell_size=3, decoy_fraction=0.0, num_organs=num_organs)[1]
    hit = torch.stack([(mask * (label == organ)).flatten(1).any(1) for organ in (1, 2)])
    assert set(hit.sum(0).tolist()) == expected


@pytest.mark.parametrize("seed", range(8))
def test_without_decoys_what_is_dropped_meets_the_organ(seed: int) -> None:
    """The holes are cells of one grid, each of which holds a voxel of the organ that was drawn."""
    image, label = block_scene()
    masked, mask = drop(image, label, seed, cell_size=4, decoy_fraction=0.0, fill="zero")
    torch.testing.assert_close(masked, image * (1 - mask))
    for sample, organs in zip(mask[:, 0].numpy() > 0, label[:, 0].numpy(), strict=True):
        assert sample.any()
        (hit,) = {int(value) for value in np.unique(organs[sample])} - {0}  # one of two organs
        pieces, number = ndimage.label(sample)
        reach = ndimage.binary_dilation(organs == hit, np.ones((3, 3, 3)), iterations=3)  # a cell less a voxel
        assert not (sample & ~reach).any()
        assert all((organs[pieces == piece] == hit).any() for piece in range(1, number + 1))


@pytest.mark.parametrize(("extent", "fewest", "most"), [("both", 0.3, 0.7), ("organ", 1, 1), ("part", 0, 0)])
def test_all_organs_are_drawn_whole_or_in_part(extent: str, fewest: float, most: float) -> None:
    image, label = block_scene(64)
    mask = drop(image, label, cell_size=3, decoy_fraction=0.0, extent=extent)[1]
    hits = torch.stack([(mask * (label == organ)).flatten(1).sum(1) for organ in (1, 2)])
    sizes = torch.tensor([100.0, 216.0])[:, None]
    assert ((hits > 0).sum(0) == 1).all()  # half of two organs
    assert 16 < (hits[0] > 0).sum() < 48
    whole = (hits == sizes).any(0).float().mean()
    assert fewest <= whole <= most


def test_decoys_lie_in_the_body_and_are_as_many_cells() -> None:
    image, label = block_scene(32)
    for fraction in (1.0, 2.0):
        alone = drop(image, label, cell_size=4, decoy_fraction=0.0)[1]
        mask = drop(image, label, cell_size=4, decoy_fraction=fraction)[1]
        decoys = mask * (1 - alone)
        assert (mask * alone == alone).all()  # the same organs, of the same seed
        ratio = decoys.flatten(1).sum(1) / alone.flatten(1).sum(1)
        assert 0.7 < float(ratio.mean()) / fraction < 1.1  # in voxels, of which cells at the crop's border have fewer
        in_air = (decoys * (image == 0)).sum() / decoys.sum()
        assert in_air < 0.05  # cells at the border are at least half in the body
        assert (decoys.flatten(1).sum(1) > 0).all()


@pytest.mark.parametrize("decoy_fraction", [0.0, 1.0])
def test_crops_without_organs_stay_as_they_are(decoy_fraction: float) -> None:
    image, label = block_scene(4)
    label[1], label[3] = 0, 0
    masked, mask = drop(image, label, cell_size=4, decoy_fraction=decoy_fraction, fill="noise")
    assert mask.flatten(1).any(1).tolist() == [True, False, True, False]
    torch.testing.assert_close(masked[[1, 3]], image[[1, 3]], rtol=0, atol=0)


def test_probability_is_of_crops() -> None:
    image, label = block_scene(100, 16)
    label[:, :, 6:10, 4:9, 4:9] = 1
    shares = {
        prob: float(drop(image, label, prob=prob)[1].flatten(1).any(1).float().mean()) for prob in (0.0, 0.5, 1.0)
    }
    assert (shares[0.0], shares[1.0]) == (0, 1)
    assert shares[0.5] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, 1), (0.5, 2), (1.0, 4)])
def test_share_of_the_organs_that_a_crop_shows(fraction: float, expected: int) -> None:
    image, label = torch.ones(6, 1, 16, 16, 16), torch.zeros(6, 1, 16, 16, 16)
    for organ, (x, y) in enumerate(((1, 1), (1, 9), (9, 1), (9, 9)), 1):
        label[:, :, x : x + 4, y : y + 4, 6:10] = organ
    mask = drop(image, label, num_classes=14, cell_size=1, organ_fraction=fraction, decoy_fraction=0.0)[1]
    counts = [len(set(organs[hidden > 0].tolist()) - {0}) for hidden, organs in zip(mask, label, strict=True)]
    assert counts == [expected] * 6


@pytest.mark.parametrize("fill", ["zero", "mean", "noise"])
def test_what_dropped_voxels_become(fill: str) -> None:
    torch.manual_seed(1)
    image, label = block_scene(2)
    image = torch.cat([5 + torch.randn_like(image), 50 + 10 * torch.randn_like(image)], 1)
    before = image.clone()
    masked, mask = drop(image, label, cell_size=6, fill=fill)
    torch.testing.assert_close(image, before, rtol=0, atol=0)
    for sample in range(2):
        hidden = mask[sample, 0] > 0
        for channel in range(2):
            kept, filled = image[sample, channel][~hidden], masked[sample, channel][hidden]
            torch.testing.assert_close(masked[sample, channel][~hidden], kept, rtol=0, atol=0)
            mean = {"zero": 0.0}.get(fill, float(kept.mean()))
            deviation = float(kept.std()) if fill == "noise" else 0.0
            assert float(filled.mean()) == pytest.approx(mean, rel=0.02, abs=1e-6)
            assert float(filled.std()) == pytest.approx(deviation, rel=0.1, abs=1e-4)


@pytest.mark.parametrize("shape", [(13, 9), (7, 16, 11), (5, 5, 5)])
def test_any_size_in_two_and_three_dimensions(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    image, label = torch.rand(2, 3, *shape), torch.randint(0, 3, (2, 1, *shape))
    masked, mask = drop(image, label, cell_size=4)
    assert (masked.shape, mask.shape, mask.dtype) == (image.shape, label.shape, torch.float32)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_halves_stay_halves_and_the_seed_decides() -> None:
    image, label = block_scene()
    first, again, other = (drop(image.half(), label, seed)[0] for seed in (3, 3, 4))
    assert first.dtype is torch.float16
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("decoy_fraction", "tolerance"), [(0.0, 0.08), (1.0, 0.2)])
@pytest.mark.parametrize("cell_size", [pytest.param(4, marks=pytest.mark.slow), 8])
def test_it_hides_about_as_much_as_organ_dropout(cell_size: int, decoy_fraction: float, tolerance: float) -> None:
    """Its counterpart in the batch; decoys are laid out more simply here, and meet fewer of the other organs."""
    arguments = {"cell_size": cell_size, "organ_fraction": 0.5, "decoy_fraction": decoy_fraction}
    phantoms = [make_btcv_phantom(0, case, (48, 48, 48), (3.0, 3.0, 4.0)) for case in range(1, 7)]
    images = [torch.from_numpy((phantom.image.clip(-175, 250) + 175) / 425).float()[None] for phantom in phantoms]
    labels = [torch.from_numpy(phantom.label).float()[None] for phantom in phantoms]
    single = RandOrganDropout(**arguments).set_random_state(0)
    pairs = [(single(image, label)[1], label) for image, label in zip(images, labels, strict=True) for _ in range(4)]
    torch.manual_seed(0)
    whole = torch.stack(labels)
    masks = [BatchOrganDropout(14, **arguments)(torch.stack(images), whole)[1] for _ in range(4)]
    ours = torch.stack(masks).flatten(0, 1), whole.repeat(4, 1, 1, 1, 1)
    theirs = torch.stack([mask for mask, _ in pairs]), torch.stack([label for _, label in pairs])
    for where, most in ((lambda label: label > 0, tolerance), (lambda label: label >= 0, 0.03)):
        found, expected = (
            float(torch.stack([m[where(y)].mean() for m, y in zip(mask, label, strict=True)]).mean())
            for mask, label in (ours, theirs)
        )
        assert found == pytest.approx(expected, abs=most)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_classes": 1}, ValueError, "num_classes must be at least 2, got 1: count the background"),
        ({"num_classes": 2.5}, TypeError, "num_classes must be an integer, got 2.5"),
        ({"cell_size": 0}, ValueError, "cell_size must be at least 1, got 0"),
        ({"organ_fraction": 0}, ValueError, r"organ_fraction must lie in \(0, 1\], got 0"),
        ({"decoy_fraction": -1}, ValueError, "decoy_fraction must be 0 or more"),
        ({"fill": "air"}, ValueError, "fill must be one of 'zero', 'mean', 'noise', got 'air'"),
        ({"prob": 2}, ValueError, r"prob must lie in \[0, 1\], got 2"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BatchOrganDropout(**{"num_classes": 3, **arguments})


def test_a_cell_size_of_other_axes() -> None:
    with pytest.raises(ValueError, match="cell_size has 2 numbers"):
        drop(*block_scene(), cell_size=(4, 4))


@settings(max_examples=20, deadline=None)
@given(
    spatial=st.lists(st.integers(3, 9), min_size=2, max_size=3),
    cell_size=st.integers(1, 4),
    extent=st.sampled_from(["organ", "part", "both"]),
    decoy_fraction=st.sampled_from([0, 0.5, 3]),
    fill=st.sampled_from(["zero", "mean", "noise"]),
    seed=st.integers(0, 999),
)
def test_mask_and_image_agree(spatial: list[int], seed: int, **arguments: Any) -> None:
    torch.manual_seed(seed)
    image, label = torch.rand(2, 1, *spatial) + 1, torch.randint(0, 4, (2, 1, *spatial))
    before = image.clone(), label.clone()
    masked, mask = BatchOrganDropout(num_classes=4, **arguments)(image, label)
    torch.testing.assert_close((image, label), before, rtol=0, atol=0)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(masked[mask == 0], image[mask == 0], rtol=0, atol=0)
    assert torch.isfinite(masked).all()
    assert mask.flatten(1).any(1).tolist() == (label > 0).flatten(1).any(1).tolist()
