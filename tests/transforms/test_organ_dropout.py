from __future__ import annotations

import pickle
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose, RandCropByPosNegLabeld
from scipy import ndimage

from medcontext.keys import MedContextKeys
from medcontext.transforms import RandOrganDropout, RandOrganDropoutd

PLAIN: dict[str, Any] = {"extent": "organ", "decoy_fraction": 0}


def box(shape: tuple[int, ...], *faces: tuple[int, int]) -> np.ndarray:
    """A box, from first to last voxel along each axis."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(first, last + 1) for first, last in faces)] = True
    return mask


def draw(label: np.ndarray, image: np.ndarray | None = None, seed: int = 0, **arguments: Any) -> np.ndarray:
    """The context mask (spatial) of one draw; the image is body all over unless given."""
    if image is None:
        image = np.ones(label.shape, np.float32)
        image.flat[0] = 0
    dropout = RandOrganDropout(**arguments).set_random_state(seed)
    mask = dropout(image[None], label[None])[1][0]
    assert set(np.unique(mask)) <= {0.0, 1.0}
    return mask > 0


def cells_that_meet(organ: np.ndarray, size: tuple[int, ...], offset: tuple[int, ...]) -> np.ndarray:
    """All voxels of the cells that hold a voxel of ``organ``, found one by one."""
    met = {tuple((p - o) // s for p, o, s in zip(v, offset, size, strict=True)) for v in np.argwhere(organ)}
    mask = np.zeros_like(organ)
    for voxel in np.ndindex(organ.shape):
        mask[voxel] = tuple((p - o) // s for p, o, s in zip(voxel, offset, size, strict=True)) in met
    return mask


def anatomy() -> tuple[np.ndarray, np.ndarray]:
    """A round body in air with four organs: image and label, 24 × 24 × 24."""
    place = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"))
    image = (np.square(place - 11.5).sum(0) < 11**2).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    for organ, centre in enumerate([(7, 8, 12), (16, 9, 12), (12, 17, 8), (12, 15, 17)], start=1):
        inside = np.square(place - np.reshape(centre, (3, 1, 1, 1))).sum(0) < 3.2**2
        label[inside] = organ
        image[inside] += 0.1 * organ
    return image, label


@pytest.mark.parametrize(("cell_size", "size"), [(4, (4, 4)), ((4, 2), (4, 2)), (1, (1, 1)), (6, (6, 6))])
def test_cells_are_those_of_a_moving_grid_that_meet_the_organ(cell_size: Any, size: tuple[int, ...]) -> None:
    organ = box((10, 10), (3, 5), (4, 4))
    possible = {cells_that_meet(organ, size, offset).tobytes() for offset in product(*map(range, size))}
    drawn = {draw(organ.astype(int), seed=seed, cell_size=cell_size, **PLAIN).tobytes() for seed in range(150)}
    assert drawn <= possible
    assert len(drawn) > len(possible) / 2


def test_cells_worked_out_by_hand() -> None:
    label = np.array([[0, 0, 0, 1, 1, 0, 0, 0]])
    drawn = {tuple(draw(label, seed=seed, cell_size=3, **PLAIN)[0].astype(int)) for seed in range(40)}
    assert drawn == {
        (0, 0, 0, 1, 1, 1, 0, 0),  # cells start at 0, 3, 6
        (0, 1, 1, 1, 1, 1, 1, 0),  # at 1, 4, 7
        (0, 0, 1, 1, 1, 0, 0, 0),  # at 2, 5
    }


def test_voxel_shape_is_the_organ() -> None:
    label = anatomy()[1]
    np.testing.assert_array_equal(draw(label, shape="voxel", organs=[3], **PLAIN), label == 3)


@pytest.mark.parametrize(("cell_size", "reach"), [(2, (2, 2)), ((3, 1), (3, 1))])
def test_box_is_jittered_around_the_organ(cell_size: Any, reach: tuple[int, int]) -> None:
    organ = box((16, 16), (6, 9), (5, 10))
    organ[6, 5] = False
    drawn = [draw(organ.astype(int), seed=seed, shape="box", cell_size=cell_size, **PLAIN) for seed in range(60)]
    faces = np.array(
        [[(face.start, face.stop - 1) for face in ndimage.find_objects(mask.astype(int))[0]] for mask in drawn]
    )
    for mask, ((top, bottom), (left, right)) in zip(drawn, faces, strict=True):
        np.testing.assert_array_equal(mask, box((16, 16), (top, bottom), (left, right)))
    for axis, (first, last) in enumerate([(6, 9), (5, 10)]):
        assert set(faces[:, axis, 0]) == set(range(first - reach[axis], first + 1))
        assert set(faces[:, axis, 1]) == set(range(last, last + reach[axis] + 1))


def test_box_is_cut_at_the_border() -> None:
    assert draw(np.ones((3, 3), int), shape="box", cell_size=5, **PLAIN).all()


@pytest.mark.parametrize("shape", ["cells", "voxel"])
def test_part_is_a_connected_share(shape: str) -> None:
    organ = box((20, 20, 20), (4, 13), (4, 13), (4, 13))
    shares = []
    for seed in range(20):
        mask = draw(organ.astype(int), seed=seed, extent="part", decoy_fraction=0, shape=shape, cell_size=1)
        assert not mask[~organ].any()
        assert ndimage.label(mask)[1] == 1
        shares.append(mask.sum() / organ.sum())
    assert min(shares) >= 0.249
    assert max(shares) <= 0.751
    assert max(shares) - min(shares) > 0.2


def test_part_of_a_bent_organ_is_connected() -> None:
    organ = box((16, 16), (2, 12), (2, 3)) | box((16, 16), (2, 12), (6, 7)) | box((16, 16), (12, 13), (2, 7))
    for seed in range(30):
        mask = draw(organ.astype(int), seed=seed, extent="part", shape="voxel", decoy_fraction=0)
        assert ndimage.label(mask)[1] == 1
        assert mask.sum() <= 0.76 * organ.sum()


def test_part_of_cells_is_made_of_whole_cells() -> None:
    label = anatomy()[1]
    arguments = {"cell_size": 4, "decoy_fraction": 0, "organs": [2]}
    for seed in range(10):
        whole = draw(label, seed=seed, extent="organ", **arguments)
        part = draw(label, seed=seed, extent="part", **arguments)
        assert part.any()
        assert part.sum() < whole.sum()
        assert not part[~whole].any()


@pytest.mark.parametrize(("part_prob", "wholes"), [(0.0, 40), (1.0, 0), (0.5, None)])
def test_part_prob_decides_between_organ_and_part(part_prob: float, wholes: int | None) -> None:
    label = anatomy()[1]
    arguments = {"extent": "both", "part_prob": part_prob, "shape": "voxel", "organs": [1], "decoy_fraction": 0}
    whole = sum(np.array_equal(draw(label, seed=seed, **arguments), label == 1) for seed in range(40))
    assert whole == wholes if wholes is not None else 10 < whole < 30


@pytest.mark.parametrize("shape", ["cells", "voxel"])
@pytest.mark.parametrize(("decoy_fraction", "decoys"), [(0, 0), (0.5, 32), (1, 64), (2.25, 144)])
def test_decoys_are_counted_in_cells(shape: str, decoy_fraction: float, decoys: int) -> None:
    organ = box((20, 20, 20), (6, 9), (6, 9), (6, 9))
    arguments = {"extent": "organ", "shape": shape, "cell_size": 1, "decoy_fraction": decoy_fraction}
    mask = draw(organ.astype(int), **arguments)
    assert mask[organ].all()
    assert mask[~organ].sum() == decoys


@pytest.mark.parametrize("seed", range(10))
def test_decoys_lie_in_the_body_outside_the_dropped_organs(seed: int) -> None:
    image, label = anatomy()
    arguments: dict[str, Any] = {"extent": "organ", "cell_size": 4, "num_organs": 2}
    mask = draw(label, image, seed, **arguments)
    organs = draw(label, image, seed, decoy_fraction=0, **arguments)
    assert mask[organs].all()
    decoys = mask & ~organs
    assert decoys.any()
    dropped = [organ for organ in range(1, 5) if organs[label == organ].all()]
    assert len(dropped) == 2
    assert not np.isin(label[decoys], dropped).any()
    assert (image[decoys] > 0).mean() >= 0.5


def test_decoys_lie_beside_the_organ() -> None:
    organ = box((40, 40), (18, 21), (18, 21))
    reach = box((40, 40), (16, 23), (16, 23))  # half of four voxels in each direction
    for seed in range(10):
        assert not draw(organ.astype(int), seed=seed, extent="organ", cell_size=1)[~reach].any()


def test_decoys_without_room_beside_the_organ_lie_elsewhere_in_the_body() -> None:
    organ = box((30, 30), (2, 5), (2, 5))
    other = box((30, 30), (20, 27), (20, 27))
    image = (organ | other).astype(np.float32)
    mask = draw(organ.astype(int), image, extent="organ", cell_size=1)
    assert mask[other].sum() == 16
    assert not mask[~organ & ~other].any()


def test_decoys_are_fewer_where_the_body_has_no_more() -> None:
    organ = box((12, 12), (2, 7), (2, 7))
    body = box((12, 12), (2, 8), (2, 7))
    np.testing.assert_array_equal(draw(organ.astype(int), body.astype(np.float32), extent="organ", cell_size=1), body)


def test_body_of_an_image_normalised_over_non_zero_voxels() -> None:
    organ, body = box((16, 16), (4, 7), (4, 7)), box((16, 16), (3, 10), (3, 10))
    image = np.where(body, np.random.RandomState(0).normal(size=(16, 16)), 0).astype(np.float32)
    image[3, 3] = -9.0
    mask = draw(organ.astype(int), image, extent="organ", cell_size=1, decoy_fraction=5)
    assert mask.sum() == 16 + 47  # the minimum itself counts as background
    assert not mask[~body].any()


def test_body_is_the_union_over_channels() -> None:
    organ = box((8, 8), (0, 1), (0, 1))
    first, second = box((8, 8), (0, 3), (0, 3)), box((8, 8), (0, 7), (0, 2))
    image = np.stack([first, second]).astype(np.float32)
    dropout = RandOrganDropout(extent="organ", cell_size=1, decoy_fraction=99)
    mask = dropout(image, organ[None].astype(int))[1][0] > 0
    np.testing.assert_array_equal(mask, first | second)


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        ({}, {1, 2, 3}),
        ({"num_organs": 2}, {2}),
        ({"num_organs": [2, 3]}, {2, 3}),
        ({"num_organs": 9}, {4}),
        ({"organ_fraction": 0.5}, {2}),
        ({"organ_fraction": 0.01}, {1}),
        ({"organ_fraction": 1.0}, {4}),
        ({"organs": [2, 4, 7], "num_organs": 3}, {2}),
    ],
)
def test_number_of_organs(arguments: dict[str, Any], counts: set[int]) -> None:
    label = anatomy()[1]
    drawn = [set(np.unique(label[draw(label, seed=s, shape="voxel", **PLAIN, **arguments)])) for s in range(25)]
    assert {len(organs) for organs in drawn} == counts
    assert set.union(*drawn) == ({2, 4} if "organs" in arguments else {1, 2, 3, 4})


@pytest.mark.parametrize(
    ("margin", "rows", "columns"), [(0, (5, 6), (5, 6)), (2, (3, 8), (3, 8)), ((1, 3), (4, 7), (2, 9))]
)
def test_margin(margin: Any, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    label = box((12, 12), (5, 6), (5, 6)).astype(int)
    grown = box((12, 12), rows, columns)
    np.testing.assert_array_equal(draw(label, shape="voxel", margin=margin, **PLAIN), grown)
    np.testing.assert_array_equal(draw(label, shape="cells", cell_size=1, margin=margin, **PLAIN), grown)
    around = draw(label, shape="box", cell_size=1, margin=margin, **PLAIN)
    assert around[grown].all()
    assert not around[~ndimage.binary_dilation(grown, np.ones((3, 3)))].any()


@pytest.mark.parametrize(
    ("arguments", "dropped"),
    [
        ({}, 16 * 64),  # a quarter of 4 × 4 × 4 patches
        ({"patch_ratio": 0.5}, 32 * 64),
        ({"patch_mode": "tube", "patch_size": 8}, 1 * 8 * 8 * 16),
        ({"patch_mode": "random", "patch_size": (8, 8, 16), "patch_ratio": 1.0}, 16**3),
    ],
)
def test_a_crop_without_organs_gets_patch_dropout(arguments: dict[str, Any], dropped: int) -> None:
    label = np.zeros((16, 16, 16), int)
    assert draw(label, cell_size=4, **arguments).sum() == dropped
    assert draw(label + 5, cell_size=4, organs=[1, 2], **arguments).sum() == dropped


def test_patch_dropout_of_crops_without_organs_follows_the_seed() -> None:
    label = np.zeros((16, 16, 16), int)
    masks = [draw(label, seed=seed, cell_size=4) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def test_ids_below_zero_are_no_organs() -> None:
    label = box((8, 8), (2, 3), (2, 3)).astype(int) - 1
    assert draw(label, cell_size=4, patch_ratio=0).sum() == 0


@pytest.mark.parametrize(
    ("fill", "expected"),
    [("zero", [[0, 0, 3, 5], [0, 0, 30, 50]]), ("mean", [[4, 4, 3, 5], [40, 40, 30, 50]])],
)
def test_fill(fill: str, expected: list[list[float]]) -> None:
    image = np.array([[1, 2, 3, 5], [10, 20, 30, 50]], np.float32)[:, None]
    label = np.array([[[1, 1, 0, 0]]])
    masked, mask = RandOrganDropout(shape="voxel", fill=fill, **PLAIN)(image, label)
    np.testing.assert_array_equal(masked[:, 0], expected)
    np.testing.assert_array_equal(mask, label)


def test_noise_has_the_kept_voxels_mean_and_deviation() -> None:
    image, label = anatomy()
    label = (label > 0).astype(int) * (np.arange(24) < 20)
    image = np.stack([image, 100 - 30 * image])
    masked, mask = RandOrganDropout(shape="voxel", margin=4, fill="noise", **PLAIN).set_random_state(0)(
        image, label[None]
    )
    dropped, kept = masked[:, mask[0] > 0], image[:, mask[0] == 0]
    np.testing.assert_allclose(dropped.mean(1), kept.mean(1), atol=0.05 * kept.std(1).max())
    np.testing.assert_allclose(dropped.std(1), kept.std(1), rtol=0.05)


def test_prob_zero_drops_nothing() -> None:
    image, label = (torch.from_numpy(array)[None] for array in anatomy())
    masked, mask = RandOrganDropout(prob=0.0)(image, label)
    assert torch.equal(masked, image)
    assert masked.data_ptr() != image.data_ptr()
    assert mask.shape == label.shape
    assert not mask.any()


def test_prob_is_a_probability() -> None:
    dropout = RandOrganDropout(prob=0.3).set_random_state(0)
    image, label = np.ones((1, 4, 4), np.float32), np.ones((1, 4, 4), int)
    assert 0.25 < np.mean([bool(dropout(image, label)[1].any()) for _ in range(1000)]) < 0.35


def test_draws_differ_and_repeat_with_the_seed() -> None:
    image, label = (torch.from_numpy(array)[None] for array in anatomy())
    dropout = RandOrganDropout(cell_size=4, fill="noise").set_random_state(3)
    first, second = dropout(image, label), dropout(image, label)
    assert not torch.equal(first[1], second[1])
    dropout.set_random_state(3)
    for again in (dropout(image, label), dropout(image, label, randomize=False)):
        assert torch.equal(again[0], first[0])
        assert torch.equal(again[1], first[1])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("dims", [2, 3])
def test_types_are_kept(dtype: torch.dtype, dims: int) -> None:
    image, label = (torch.from_numpy(array[(12,) * (3 - dims)])[None] for array in anatomy())
    label = label.to(dtype)
    dropout = RandOrganDropout(cell_size=4)
    masks = []
    for give in (torch.Tensor.clone, torch.Tensor.numpy, lambda x: MetaTensor(x, meta={"name": "case"})):
        given_image = give(image)
        masked, mask = dropout.set_random_state(0)(given_image, give(label))
        assert type(masked) is type(mask) is type(given_image)
        assert masked.dtype == given_image.dtype
        assert "float32" in str(mask.dtype)
        assert masked.shape == mask.shape == label.shape
        masks.append(np.asarray(mask))
    assert masked.meta["name"] == mask.meta["name"] == "case"
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


@settings(max_examples=60, deadline=None)
@given(
    spatial=st.lists(st.integers(3, 12), min_size=2, max_size=3),
    shape=st.sampled_from(["cells", "box", "voxel"]),
    extent=st.sampled_from(["organ", "part", "both"]),
    cell_size=st.integers(1, 5),
    decoy_fraction=st.sampled_from([0, 0.5, 1, 3]),
    margin=st.integers(0, 2),
    fill=st.sampled_from(["zero", "mean", "noise"]),
    seed=st.integers(0, 999),
)
def test_mask_and_image_agree(
    spatial: list[int], shape: str, extent: str, cell_size: int, fill: str, seed: int, **arguments: Any
) -> None:
    random = np.random.RandomState(seed)
    image, label = random.normal(size=(2, *spatial)).astype(np.float32), random.randint(-2, 4, (1, *spatial)).clip(0)
    before = image.copy(), label.copy()
    dropout = RandOrganDropout(shape=shape, extent=extent, cell_size=cell_size, fill=fill, **arguments)
    masked, mask = dropout.set_random_state(seed)(image, label)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])
    assert set(np.unique(mask)) <= {0.0, 1.0}
    np.testing.assert_array_equal(masked[:, mask[0] == 0], image[:, mask[0] == 0])
    if label.any():
        assert mask.any()
    if shape == "cells" and label.any():
        offsets = product(range(cell_size), repeat=len(spatial))
        assert any(
            np.array_equal(cells_that_meet(mask[0] > 0, (cell_size,) * len(spatial), o), mask[0]) for o in offsets
        )


def test_dictionary_version_adds_two_keys() -> None:
    image, label = (torch.from_numpy(array)[None] for array in anatomy())
    data = {"image": image, "label": label, "name": "case"}
    before = image.clone(), label.clone()
    added = RandOrganDropoutd(cell_size=4).set_random_state(1)(data)
    assert set(data) == {"image", "label", "name"}
    assert set(added) == {*data, MedContextKeys.MASKED_IMAGE, MedContextKeys.CONTEXT_MASK}
    assert added["image"] is image
    assert added["label"] is label
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])
    masked, mask = RandOrganDropout(cell_size=4).set_random_state(1)(image, label)
    assert torch.equal(added["masked_image"], masked)
    assert torch.equal(added["context_mask"], mask)


def test_dictionary_version_passes_every_argument_on() -> None:
    arguments: dict[str, Any] = {
        "extent": "part",
        "part_prob": 0.25,
        "shape": "box",
        "cell_size": (4, 4, 2),
        "decoy_fraction": 0.5,
        "organ_fraction": 0.5,
        "organs": [1, 2, 3],
        "margin": (1, 1, 0),
        "fill": "noise",
        "prob": 0.9,
        "patch_mode": "random",
        "patch_ratio": 0.1,
        "patch_size": 3,
    }
    wrapped, plain = RandOrganDropoutd(**arguments).dropout, RandOrganDropout(**arguments)
    fallbacks = vars(wrapped).pop("patch_dropout"), vars(plain).pop("patch_dropout")
    assert vars(wrapped) == vars(plain)
    assert vars(fallbacks[0]) == vars(fallbacks[1])
    assert RandOrganDropoutd(num_organs=2).dropout.num_organs == (2, 2)


def pipeline() -> Compose:
    crop = RandCropByPosNegLabeld(["image", "label"], label_key="label", spatial_size=(16, 16, 16), num_samples=2)
    return Compose([crop, RandOrganDropoutd(cell_size=4, num_organs=1, fill="zero")])


def test_crops_of_one_volume_are_masked_one_by_one() -> None:
    image, label = (MetaTensor(array[None]) for array in anatomy())
    transform = pipeline().set_random_state(0)
    first, second = transform({"image": image, "label": label})
    for crop in (first, second):
        assert crop["masked_image"].shape == crop["context_mask"].shape == (1, 16, 16, 16)
        kept = crop["context_mask"] == 0
        assert torch.equal(crop["masked_image"][kept], crop["image"][kept])
        assert not crop["masked_image"][~kept].any()
    assert not torch.equal(first["context_mask"], second["context_mask"])
    transform.set_random_state(0)
    assert torch.equal(transform({"image": image, "label": label})[1]["context_mask"], second["context_mask"])


def test_cached_volumes_are_masked_anew_in_every_epoch() -> None:
    data = [dict(zip(("image", "label"), (array[None] for array in anatomy()), strict=True))]
    loader = DataLoader(CacheDataset(data, RandOrganDropoutd(cell_size=4), progress=False), batch_size=1)
    first, second = (next(iter(loader))["context_mask"] for _ in range(2))
    assert first.shape == (1, 1, 24, 24, 24)
    assert not torch.equal(first, second)


def test_dictionary_version_survives_pickling() -> None:
    data = dict(zip(("t2", "organs"), (array[None] for array in anatomy()), strict=True))
    dropout = RandOrganDropoutd("t2", "organs", masked_key="holes", mask_key="mask", cell_size=4).set_random_state(1)
    dropout(data)
    copy = pickle.loads(pickle.dumps(dropout))
    np.testing.assert_array_equal(copy(data)["mask"], dropout(data)["mask"])


def test_dictionary_version_without_image_or_label() -> None:
    assert RandOrganDropoutd("t2", allow_missing_keys=True)({"image": 1}) == {"image": 1}
    with pytest.raises(KeyError, match="t2"):
        RandOrganDropoutd("t2")({"image": 1})
    with pytest.raises(KeyError, match=r"label_key 'organs' is not among \['image', 'label'\]"):
        RandOrganDropoutd(label_key="organs")({"image": 1, "label": 1})
    with pytest.raises(ValueError, match=r"keys must name one image, got \('image', 'label'\)"):
        RandOrganDropoutd(("image", "label"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"extent": "half"}, ValueError, "extent must be one of 'organ', 'part', 'both', got 'half'"),
        ({"shape": "sphere"}, ValueError, "shape must be one of 'cells', 'box', 'voxel', got 'sphere'"),
        ({"fill": 0}, ValueError, "fill must be one of 'zero', 'mean', 'noise', got 0"),
        ({"part_prob": 2}, ValueError, r"part_prob must lie in \[0, 1\], got 2"),
        ({"prob": True}, TypeError, "prob must be a number, got True"),
        ({"cell_size": 0}, ValueError, "cell_size must be at least 1, got 0"),
        ({"cell_size": [8, 8.0, 8]}, TypeError, "cell_size must be an integer, got 8.0"),
        ({"cell_size": "8"}, TypeError, "cell_size must be an integer, got '8'"),
        ({"decoy_fraction": -1}, ValueError, "decoy_fraction must be 0 or more and finite, got -1"),
        ({"decoy_fraction": float("nan")}, ValueError, "decoy_fraction must be 0 or more and finite, got nan"),
        ({"decoy_fraction": "1"}, TypeError, "decoy_fraction must be a number, got '1'"),
        ({"num_organs": 0}, ValueError, "num_organs must be at least 1, got 0"),
        ({"num_organs": 1.5}, TypeError, "num_organs must be an integer, got 1.5"),
        ({"num_organs": (3, 1)}, ValueError, r"num_organs must be a number or a range \(min, max\), got \(3, 1\)"),
        ({"num_organs": (1, 2, 3)}, ValueError, r"num_organs must be a number or a range .* got \(1, 2, 3\)"),
        ({"num_organs": 1, "organ_fraction": 0.5}, ValueError, "exclude each other, got 1 and 0.5: give one"),
        ({"organ_fraction": 0}, ValueError, r"organ_fraction must lie in \(0, 1\], got 0"),
        ({"organs": []}, ValueError, "organs must not be empty: give the label ids"),
        ({"organs": [0, 1]}, ValueError, "organs must be at least 1, got 0"),
        ({"organs": 3}, TypeError, "organs must be a sequence of label ids, got 3"),
        ({"organs": ["liver"]}, TypeError, "organs must be an integer, got 'liver': give the label ids"),
        ({"margin": -1}, ValueError, "margin must be at least 0, got -1"),
        ({"margin": (1, -2, 1)}, ValueError, "margin must be at least 0, got -2"),
        ({"patch_mode": "tubes"}, ValueError, "patch_mode must be one of 'random', 'block', 'tube', got 'tubes'"),
        ({"patch_ratio": -0.5}, ValueError, r"patch_ratio must lie in \[0, 1\], got -0.5"),
        ({"patch_size": 0}, ValueError, "patch_size must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RandOrganDropout(**arguments)
    with pytest.raises(error, match=message):
        RandOrganDropoutd(**arguments)


def test_argument_that_the_array_transform_does_not_have() -> None:
    with pytest.raises(TypeError, match="RandOrganDropout has no argument 'cel_size'. Did you mean 'cell_size'?"):
        RandOrganDropoutd(cel_size=4)


@pytest.mark.parametrize("label", [(1, 4, 5), (2, 4, 4), (4, 4), (1, 4, 4, 4)])
def test_label_that_does_not_match_the_image(label: tuple[int, ...]) -> None:
    shapes = rf"got image \(3, 4, 4\) and label \({', '.join(map(str, label))}\)"
    with pytest.raises(ValueError, match=shapes):
        RandOrganDropout()(np.ones((3, 4, 4), np.float32), np.ones(label, int))


@pytest.mark.parametrize("argument", ["cell_size", "margin", "patch_size"])
def test_arguments_that_do_not_fit_the_image(argument: str) -> None:
    label = np.zeros((1, 4, 4), int) if argument == "patch_size" else np.ones((1, 4, 4), int)
    with pytest.raises(ValueError, match=rf"{argument} has 3 numbers, \(2, 2, 2\), but the image has 2 spatial axes"):
        RandOrganDropout(**{argument: (2, 2, 2)})(np.ones((1, 4, 4), np.float32), label)


def test_drawing_comes_first() -> None:
    image, label = np.ones((1, 4, 4), np.float32), np.ones((1, 4, 4), int)
    dropout = RandOrganDropout()
    with pytest.raises(ValueError, match="no mask was drawn yet"):
        dropout(image, label, randomize=False)
    dropout(image, label)
    with pytest.raises(ValueError, match=r"drawn mask has spatial shape \(4, 4\) but the image \(2, 2\)"):
        dropout(image[:, :2, :2], label[:, :2, :2], randomize=False)


def test_noise_is_finite_where_the_kept_voxels_are_alike() -> None:
    for seed in range(40):
        image, label = torch.zeros(1, 16, 16, 16), torch.zeros(1, 16, 16, 16)
        image[:, 4:8, 4:8, 4:8] = 1234.567 + torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(seed)) * 77
        label[:, 4:8, 4:8, 4:8] = 1
        dropout = RandOrganDropout(cell_size=4, extent="organ", fill="noise", decoy_fraction=0).set_random_state(seed)
        assert not dropout(image, label)[0].any()
