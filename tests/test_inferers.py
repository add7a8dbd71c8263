from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import nn

from medcontext.inferers import AveragingInferer, NonFinitePredictionError
from medcontext.networks import CheckpointEnsemble


class Pointwise(nn.Module):
    """Sees one voxel at a time, so that mirroring changes nothing."""

    def __init__(self, slope: float = 2.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(image), self.slope * image], dim=1)


class Ramp(nn.Module):
    """Knows its place along one axis and nothing of the image: the second class has log odds 0, 1, 2, ..."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        shape = [1] * 5
        shape[self.axis + 2] = -1
        ramp = torch.arange(image.shape[self.axis + 2]).float().view(shape).expand_as(image)
        return torch.cat([torch.zeros_like(ramp), ramp], dim=1)


def inferer(flips: Sequence[str | int] = (), orientation: str = "RAS", roi: int = 4) -> AveragingInferer:
    return AveragingInferer([roi] * 3, 2, 0.25, flips=flips, orientation=orientation)


def test_without_flips_it_is_the_sliding_window() -> None:
    image = torch.randn(1, 1, 7, 6, 5)
    torch.testing.assert_close(
        inferer()(image, Pointwise()), SlidingWindowInferer([4] * 3, 2, 0.25)(image, Pointwise()), rtol=0, atol=0
    )


@pytest.mark.parametrize("flips", [["R"], ["A", "S"], [0, 1, 2]])
def test_mirroring_changes_nothing_where_the_network_does_not_see_it(flips: list[str | int]) -> None:
    image = torch.randn(2, 1, 7, 6, 5)
    output = inferer(flips)(image, Pointwise())
    torch.testing.assert_close(output.softmax(1), Pointwise()(image).softmax(1))


@pytest.mark.parametrize(
    ("flips", "orientation", "axis", "averaged"),
    [
        (["R"], "RAS", 0, True),
        (["L"], "RAS", 0, True),
        (["l"], "SPL", 2, True),
        (["S"], "SPL", 0, True),
        (["I"], "SPL", 0, True),
        ([1], "RAS", 1, True),
        (["R"], "RAS", 1, False),
        (["R", "A"], "RAS", 1, True),
    ],
)
def test_views_are_turned_back_and_their_probabilities_averaged(
    flips: list[str | int], orientation: str, axis: int, averaged: bool
) -> None:
    output = inferer(flips, orientation)(torch.zeros(1, 1, 4, 4, 4), Ramp(axis))
    odds = torch.arange(4).float()
    expected = (odds.sigmoid() + odds.flip(0).sigmoid()) / 2 if averaged else odds.sigmoid()
    torch.testing.assert_close(output.softmax(1)[0, 1].movedim(axis, 0)[:, 1, 2], expected)


@pytest.mark.parametrize(("flips", "passes"), [((), 2), (("R",), 4), (("R", "A", "S"), 16)])
def test_members_see_every_view_of_the_whole_volume_one_after_the_other(flips: tuple[str, ...], passes: int) -> None:
    ensemble = CheckpointEnsemble(Pointwise(), [{"slope": torch.tensor(0.0)}, {"slope": torch.tensor(1000.0)}])
    seen: list[float] = []
    ensemble.network.register_forward_hook(lambda module, *_: seen.append(module.slope.item()))
    output = inferer(flips)(torch.ones(1, 1, 4, 4, 4), ensemble)
    torch.testing.assert_close(output.softmax(1)[0, :, 0, 0, 0], torch.tensor([0.25, 0.75]))
    assert seen == [0.0] * (passes // 2) + [1000.0] * (passes // 2)


@pytest.mark.parametrize(
    ("flips", "message"),
    [
        (["X"], "tta_flips must hold axes of RAS, by letter or by number from 0 to 2, got 'X'"),
        (["RA"], "tta_flips must hold axes of RAS, .*got 'RA'"),
        ([3], "tta_flips must hold axes of RAS, .*got 3"),
        ([True], "tta_flips must hold axes of RAS, .*got True"),
        (["R", "L"], "tta_flips must name different axes"),
        ([0, "R"], "tta_flips must name different axes"),
    ],
)
def test_axes_that_are_none(flips: Sequence[str | int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inferer(flips)


@pytest.mark.parametrize("flips", [[], ["A"]])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_end_the_prediction(flips: list[str], value: float) -> None:
    image = MetaTensor(torch.ones(1, 1, 4, 4, 4), meta={"filename_or_obj": ["scan.nii.gz"]})
    with pytest.raises(NonFinitePredictionError, match="output for scan.nii.gz is NaN or infinite; give other weights"):
        inferer(flips)(image, Pointwise(value))
