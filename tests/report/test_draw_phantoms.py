import pytest
from matplotlib import image

from medcontext.report.phantoms import draw_phantoms


def test_picture_shows_coloured_organs(tmp_path):
    path = draw_phantoms(tmp_path / "new" / "phantoms.png", num_cases=2)
    pixels = image.imread(path)[..., :3]
    assert pixels.shape[1] == pytest.approx(2 * 1.7 * 110, abs=2)
    coloured = pixels.max(axis=2) - pixels.min(axis=2) > 0.2
    assert 0.05 < coloured.mean() < 0.6


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
