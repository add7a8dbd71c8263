from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ClassesToIndicesd, RandCropByLabelClassesd, RandCropByPosNegLabeld

from medcontext.transforms import AnnotatedClassesToIndicesd, RandCropByAnnotatedPosNegd, RandOrganDropout


@pytest.fixture
def label() -> MetaTensor:
    """One slice each of an organ, of background that may be more, of background, and seven of ignored voxels."""
    values = torch.full((1, 10, 10, 10), -1.0)
    values[:, 0], values[:, 1], values[:, 2] = 1, -2, 0
    return MetaTensor(values)


def test_classes_of_full_annotations_are_monais(label: MetaTensor) -> None:
    data = {"label": label.clamp_min(0)}
    ours, theirs = (
        kind("label", num_classes=2, max_samples_per_class=50)(data)["label_cls_indices"]
        for kind in (AnnotatedClassesToIndicesd, ClassesToIndicesd)
    )
    assert [found.tolist() for found in ours] == [found.tolist() for found in theirs]


def test_crops_lie_around_annotated_voxels(label: MetaTensor) -> None:
    found = AnnotatedClassesToIndicesd("label", num_classes=2)({"label": label})
    assert found["label"] is label
    crop = RandCropByLabelClassesd(
        "label", label_key="label", indices_key="label_cls_indices", spatial_size=1, num_classes=2, num_samples=60
    ).set_random_state(0)
    assert {int(one["label"]) for one in crop(found)} == {1, -2, 0}


def test_positive_crops_lie_around_organs(label: MetaTensor) -> None:
    def values(kind: type[RandCropByPosNegLabeld], neg: int) -> set[int]:
        crop = kind("label", label_key="label", spatial_size=1, pos=1, neg=neg, num_samples=60).set_random_state(0)
        return {int(one["label"]) for one in crop({"label": label})}

    assert values(RandCropByAnnotatedPosNegd, 0) == {1}
    assert values(RandCropByAnnotatedPosNegd, 1) == {1, 0, -1, -2}
    assert values(RandCropByPosNegLabeld, 0) == {1, -1, -2}  # MONAI alone takes all but 0 for organs


def test_only_annotated_organs_are_dropped(label: MetaTensor) -> None:
    dropout = RandOrganDropout(shape="voxel", extent="organ", decoy_fraction=0, num_organs=3).set_random_state(0)
    _, mask = dropout(torch.rand(1, 10, 10, 10), label)
    assert np.array_equal(mask, label == 1)
