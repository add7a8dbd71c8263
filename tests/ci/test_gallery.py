import pytest
from matplotlib import image

from gallery import draw_phantoms


def test_picture_shows_coloured_organs(tmp_path):
    path = draw_phantoms(tmp_path / "new" / "phantoms.png", num_cases=2)
    pixels = image.imread(path)[..., :3]
    assert pixels.shape[1] == pytest.approx(2 * 1.7 * 110, abs=2)
    coloured = pixels.max(axis=2) - pixels.min(axis=2) > 0.2
    assert 0.05 < coloured.mean() < 0.6


@pytest.mark.parametrize(("dataset", "rows"), [("acdc", 2), ("brats", 5), ("hippocampus", 2)])
def test_picture_of_mr_shows_every_channel(tmp_path, dataset, rows):
    pixels = image.imread(draw_phantoms(tmp_path / "mr.png", dataset=dataset, num_cases=2))[..., :3]
    height = {"acdc": 0.42 + 1, "brats": 0.83 + 4, "hippocampus": 1.03 + 1.43}[dataset] * 1.7 * 110
    assert pixels.shape[0] == pytest.approx(height + 0.8 * 110, rel=0.1)
    coloured = (pixels.max(axis=2) - pixels.min(axis=2) > 0.2).any(axis=1)
    assert coloured[: pixels.shape[0] // rows].any()
    # Labels lie on the first channel only; the legend is below all.
    assert coloured[int(0.45 * len(coloured)) : int(0.9 * len(coloured))].any() == (dataset != "brats")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "lits"}, "dataset must be one of"),
        ({"num_cases": 0}, "num_cases must be from 1 to 30, got 0"),
        ({"planes": ("oblique",)}, "planes must name"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_phantoms(tmp_path / "phantoms.png", **arguments)
