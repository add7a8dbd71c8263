from __future__ import annotations

import itertools

import pytest

from medcontext.data import btcv_labels, sided_axes, sided_labels


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (btcv_labels(8), [{"left_kidney", "right_kidney"}]),
        (btcv_labels(13), [{"left_kidney", "right_kidney"}, {"left_adrenal_gland", "right_adrenal_gland"}]),
        (
            ["left lateral ventricle", "right lateral ventricle", "third ventricle"],
            [{"left lateral ventricle", "right lateral ventricle"}],
        ),
        (["Left-Thalamus", "right thalamus"], [{"Left-Thalamus", "right thalamus"}]),
        (["Lung_L-left", "Lung_L-right"], [{"Lung_L-left", "Lung_L-right"}]),
        (["kidney_left", "kidney_right"], [{"kidney_left", "kidney_right"}]),
        (["left_kidney", "right_adrenal_gland"], []),
        (["left_kidney"], []),
        (["edema", "enhancing_tumor", "leftover", "rightover"], []),
        (["Anterior", "Posterior"], [{"Anterior", "Posterior"}]),
        (
            ["left anterior insula", "left posterior insula", "right anterior insula"],
            [{"left anterior insula", "right anterior insula"}, {"left anterior insula", "left posterior insula"}],
        ),
        (
            ["upper lobe of left lung", "lower lobe of left lung"],
            [{"upper lobe of left lung", "lower lobe of left lung"}],
        ),
        (["superior_vena_cava", "inferior_vena_cava", "aorta"], [{"superior_vena_cava", "inferior_vena_cava"}]),
    ],
)
def test_pairs_by_name(names: list[str], pairs: list[set[str]]) -> None:
    found = sided_labels(dict.fromkeys(names, 1))
    assert sorted(map(sorted, found)) == sorted(map(sorted, pairs))


def test_the_heart_s_ventricles_look_like_a_pair_and_must_be_declared_as_none() -> None:
    labels = {"right_ventricle": 1, "myocardium": 2, "left_ventricle": 3}
    assert sided_labels(labels) == [["right_ventricle", "left_ventricle"]]
    assert sided_axes([], "RAS") == []


ORIENTATIONS = [
    "".join(codes) for ends in itertools.permutations(["LR", "AP", "SI"]) for codes in itertools.product(*ends)
]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("pair", "ends"),
    [
        (["left_kidney", "right_kidney"], "LR"),
        (["RIGHT kidney", "Left kidney"], "LR"),
        (["Anterior", "Posterior"], "AP"),
        (["superior lobe", "inferior lobe"], "SI"),
        (["lower lobe", "upper lobe"], "SI"),
        (["kidney 1", "kidney 2"], "LR"),  # declared, and their names do not say of what
    ],
)
def test_the_axis_follows_the_orientation(orientation: str, pair: list[str], ends: str) -> None:
    (axis,) = sided_axes([pair], orientation)
    assert orientation[axis] in ends


def test_every_axis_that_a_pair_has() -> None:
    pairs = [["left_kidney", "right_kidney"], ["Anterior", "Posterior"]]
    assert sided_axes(pairs, "RAS") == [0, 1]
    assert sided_axes(pairs, "SPL") == [1, 2]


@pytest.mark.parametrize("pairs", [["left_kidney", "right_kidney"], [["left_kidney"]], [["a", "b", "c"]]])
def test_pairs_are_two_names(pairs: list[str]) -> None:
    with pytest.raises(ValueError, match=r"sided_labels must be pairs of names, such as \['left_kidney'"):
        sided_axes(pairs, "RAS")
