"""A generated crop of brain MR around one hippocampus, with the labels of the Decathlon's Task04.

The phantom is a teaching model, not a simulation. The hippocampus, left or right, runs from its head, in front and
below, along the floor of the ventricle's horn to its tail. A plane behind the hook that the head bends into parts the
anterior from the posterior label; nothing in the image shows it but the shape. All grey matter shares one intensity:
hippocampus, the amygdala before it, the parahippocampal gyrus that runs below it with the same calibre, thalamus and
the folded cortex around, so only place and shape tell them apart. None of the others has a label. As in the real crops,
which are cut to size, the number of voxels varies by case, and so do scale and shading, since MR has no unit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medcontext.data.datasets import HIPPOCAMPUS_LABELS
from medcontext.phantoms.canvas import Canvas, Pose, smooth_field
from medcontext.phantoms.shapes import Blend, Ellipsoid, HalfSpace, rotation
from medcontext.phantoms.sketch import Phantom, Sketch, centred_affine

__all__ = ["make_hippocampus_phantom"]

FIELD_MM = (35.0, 50.0, 36.0)
FLUID, GREY, WHITE, VESSEL = 0.25, 0.62, 1.0, 1.35


class CropSketch(Sketch):
    """A sketch of one side, on which x runs away from the middle of the head."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        super().__init__(canvas, rng, HIPPOCAMPUS_LABELS)
        self.matter = GREY + float(self.vary(0.03, 1)[0])

    def grey(self) -> float:
        """Draw the intensity of one structure of grey matter."""
        return self.near(self.matter, 0.012)

    def fluid(self) -> float:
        """Draw the intensity of one cleft or ventricle."""
        return self.near(FLUID, 0.03)


def make_hippocampus_phantom(
    seed: int,
    case: int,
    size: tuple[int, int, int] = (35, 50, 36),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Phantom:
    """Generate one crop of brain MR with the labels of the Medical Segmentation Decathlon's Task04.

    Args:
        seed: the cohort's seed.
        case: the case's number; each (seed, case) has its own stream of random numbers.
        size: voxels along x, y, z of a usual case: up to a seventh more or fewer along each axis by case, which show
            more or less of the surroundings.
        spacing: voxel size in mm along x, y, z; it enters the affine only.

    Returns:
        The case, in RAS. Both labels are present.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, case)))
    share = rng.uniform((0.9, 0.86, 0.86), (1.14, 1.14, 1.14))
    x, y, z = (max(16, round(voxels * part)) for voxels, part in zip(size, share, strict=True))
    shape = (x, y, z)
    field = np.asarray(FIELD_MM) * shape / size
    mirror = np.diag([float(rng.choice((-1, 1))), 1.0, 1.0])
    turn = rotation(rng.uniform(-1, 1, 3) * (8, 5, 6))
    pose = Pose(mirror @ turn * rng.uniform(0.92, 1.06, 3), rng.uniform(-1, 1, 3) * (1.5, 1.5, 1.5), warp=0.8)
    canvas = Canvas(shape, pose, rng, WHITE, field)
    sketch = CropSketch(canvas, rng)
    _paint_surroundings(sketch)
    _paint_hippocampus(sketch)
    centre = np.rint(rng.uniform((20, -35, -30), (32, -15, -10))) * (mirror[0, 0], 1, 1)
    image = _add_shading_and_noise(canvas, rng)
    return Phantom(image, canvas.label, centred_affine(shape, spacing, centre))


def _paint_surroundings(sketch: CropSketch) -> None:
    """Paint folded cortex outwards and below, brain stem and thalamus inwards, and the clefts between them."""
    rng = sketch.rng
    folds = smooth_field(sketch.canvas.label.shape, (8, 9, 8), rng)
    body = sketch.canvas.body
    # sheets where a random field is zero, at the sides only: cortex on both banks of a furrow
    sheets = np.abs(folds) * np.float32(4.5)
    depth = np.minimum(np.float32(9) - body[0], body[2] + np.float32(10.5))
    cortex = np.maximum(sheets - np.float32(2.6), depth)
    sketch.canvas.cover(cortex.copy(), sketch.grey())
    sketch.canvas.cover(np.maximum(sheets - np.float32(0.5), depth + 2), sketch.fluid())
    stem = sketch.ellipsoid((-26, -6, -4), (13, 20, 30))
    cistern = Ellipsoid(stem.centre, np.asarray(stem.radii) + rng.uniform(1.5, 3.5), stem.angles)
    sketch.paint(cistern, sketch.fluid(), roughness=0.8)
    sketch.paint(stem, sketch.near(0.93, 0.02), roughness=0.3)
    sketch.paint(sketch.ellipsoid((-9, -12, 17), (11, 13, 8.5), (0, 0, 12)), sketch.grey(), roughness=0.5)
    sketch.paint(sketch.tube([(-13, 12, -2), (-12, 2, 3), (-11, -12, 6), (-12, -26, 8)], 1.1), VESSEL)
    amygdala = sketch.ellipsoid((-3.5, 17.5, 0), (6.5, 6, 6))
    sketch.paint(amygdala, sketch.grey(), roughness=0.5)
    gyrus = [(-5, 22, -16), (-5.5, 10, -15.5), (-6, -3, -11.5), (-7, -14, -8), (-8, -24, -3)]
    sketch.paint(sketch.tube(gyrus, (4.6, 4.8, 4.4, 4.0, 3.6)), sketch.grey(), roughness=0.6)
    caudate = [(6, -20, 15), (8, -10, 13), (9, 2, 11), (8.5, 12, 9)]
    sketch.paint(sketch.tube(caudate, 1.8), sketch.grey())


def _paint_hippocampus(sketch: CropSketch) -> None:
    """Paint the horn of the ventricle and, in its floor, the hippocampus in its capsule of white matter."""
    canvas, rng = sketch.canvas, sketch.rng
    drop = sketch.vary((0.8, 1.0, 0.8))
    horn = [(3.5, 17, -6), (4.5, 8, -3.5), (4, -4, 1.5), (3, -14, 5.5), (1, -22, 9)]
    width = np.array([2.2, 3.0, 2.6, 2.8, 3.6]) * rng.uniform(0.7, 1.25)
    sketch.paint(sketch.tube(horn, width, drop), sketch.fluid(), roughness=0.3)
    sketch.paint(sketch.tube([(-6, 1, -1), (-6.5, -7, 3), (-8, -15, 7)], 1.2, drop), WHITE)
    course = [(-1.5, 15, -8.5), (-1.5, 9, -7), (-2.2, 2, -4.2), (-3, -6, -0.5), (-3.6, -12, 2.5), (-5, -18, 6)]
    body = sketch.tube(course, (4.2, 5.4, 4.9, 4.6, 4.3, 2.8), drop)
    hook = sketch.ellipsoid((-6.5, 9.5, -5.5), (4.2, 4.6, 3.4), (0, 0, 20), drop)
    distance = Blend(body, hook, softness=3.0).distance(*canvas.body) + np.float32(0.35) * canvas.roughness
    border = HalfSpace(np.array([0, 2.2, -4]) + drop + sketch.vary((0, 0.9, 0)), (*sketch.vary(0.06, 1), -1, 0.1))
    front = np.maximum(distance, border.distance(*canvas.body))
    canvas.cover(distance - np.float32(0.8), sketch.near(0.92, 0.02))
    canvas.cover(distance, sketch.grey(), sketch.ids["posterior"])
    canvas.cover(front, np.nan, sketch.ids["anterior"])  # same intensity, other label


def _add_shading_and_noise(canvas: Canvas, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Return the image with texture, shading, noise and a random scale."""
    shading = 1 + np.float32(0.07) * smooth_field(canvas.label.shape, (4, 4, 4), rng)
    noise = rng.standard_normal(canvas.label.shape, dtype=np.float32) * np.float32(rng.uniform(0.03, 0.06))
    values = (canvas.image * (1 + np.float32(0.03) * canvas.roughness) * shading + noise) * 10 ** rng.uniform(2, 3.8)
    return np.rint(values).clip(0, 32767).astype(np.int16)
