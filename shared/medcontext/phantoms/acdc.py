"""A generated cardiac MR with the labels of ACDC: short-axis slices of one patient at end-diastole and end-systole.

The phantom is a teaching model, not a simulation. A heart of natural size lies in a narrowed chest that fills the field
of 240 × 240 mm, whatever the number of pixels; slices are thick, few, and shifted against each other as between
breath-holds. The left ventricle is a ring of muscle that narrows towards the apex, the right one a crescent on its
right that ends before it, and the outermost slices show neither. At end-systole the same heart is shorter, its cavities
are smaller and its wall is thicker, by the patient's group. All blood shares one intensity: both cavities, atria,
aorta, caval and liver veins, and the stomach's contents next to it. All muscle shares another: myocardium, the right
ventricle's wall (without a label, as in ACDC), papillary muscles (part of the left cavity, as in ACDC), liver, stomach
wall and chest. MR has no unit: scale and shading vary by patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from medcontext.data.datasets import ACDC_LABELS, load_split
from medcontext.phantoms.canvas import Canvas, Pose, smooth_field
from medcontext.phantoms.shapes import (
    Blend,
    Clip,
    Column,
    Cut,
    Ellipsoid,
    HalfSpace,
    Tube,
    Volume,
    rotation,
)
from medcontext.phantoms.sketch import Phantom, Sketch, centred_affine

__all__ = ["Phase", "acdc_frames", "acdc_info", "make_acdc_phantom"]

Phase = Literal["ED", "ES"]

FIELD_MM = (240.0, 240.0, 100.0)
AIR, LUNG, FAT = 0.01, 0.07, 0.78
LONG_AXIS = 51.0
"""Distance in mm from the apex to the middle of the ellipsoid whose lower part is the left ventricle."""


@dataclass(frozen=True)
class Group:
    """Properties of the hearts in one of ACDC's five groups of patients.

    Attributes:
        radius: radius of the left cavity at end-diastole in mm.
        wall: thickness of the myocardium at end-diastole in mm.
        shortening: share of the left cavity's radius that contraction takes.
        right: size of the right ventricle, where 1 is normal.
        infarct: distance in mm of the cavity from the ring's middle at end-systole, where a part of the wall is still.
    """

    radius: float
    wall: float
    shortening: float
    right: float = 1.0
    infarct: float = 0.0


GROUPS = {
    "DCM": Group(32, 8.5, 0.11),
    "HCM": Group(21.5, 14, 0.36),
    "MINF": Group(27, 9, 0.17, infarct=3.0),
    "NOR": Group(24, 9, 0.31),
    "RV": Group(23, 9, 0.27, right=1.2),
}
"""The groups, 20 patients of ACDC's training set each, in the order of their numbers."""


@dataclass(frozen=True)
class Heart:
    """One patient's left and right ventricle in one phase."""

    middle: npt.NDArray[np.float64]
    outer: Ellipsoid
    inner: Ellipsoid
    right: Ellipsoid
    base: HalfSpace
    axis: npt.NDArray[np.float64]


class ChestSketch(Sketch):
    """A sketch with one patient's intensities, in which blood is about 1."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        super().__init__(canvas, rng, ACDC_LABELS)
        self.muscle = rng.uniform(0.36, 0.48)

    def blood(self) -> float:
        """Draw the intensity of one vessel or cavity."""
        return self.near(1.0, 0.025)

    def tissue(self) -> float:
        """Draw the intensity of one muscle or solid organ."""
        return self.near(self.muscle, 0.012)


@cache
def acdc_frames() -> dict[str, dict[Phase, int]]:
    """Return the numbers of every patient's end-diastolic and end-systolic frame, as in the published case ids.

    The cine starts at end-diastole; where neither frame is the first, the later one shows end-diastole.
    """
    frames: dict[str, list[int]] = {}
    for case in (case for part in load_split("acdc").values() for case in part):
        patient, frame = case.split("_frame")
        frames.setdefault(patient, []).append(int(frame))
    return {
        patient: {"ED": 1, "ES": max(pair)} if 1 in pair else {"ED": max(pair), "ES": min(pair)}
        for patient, pair in frames.items()
    }


def acdc_info(seed: int, patient: int) -> dict[str, str | int | float]:
    """Return a patient's ``Info.cfg`` of ACDC: frames, group, height (cm), length of the cine and weight (kg)."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, patient, 2)))
    frames = acdc_frames().get(f"patient{patient:03d}", {"ED": 1, "ES": 10})
    return {
        "ED": frames["ED"],
        "ES": frames["ES"],
        "Group": _group(patient),
        "Height": float(rng.integers(150, 195)),
        "NbFrame": int(rng.integers(20, 31)),
        "Weight": float(rng.integers(50, 110)),
    }


def _group(patient: int) -> str:
    return list(GROUPS)[(patient - 1) // 20 % len(GROUPS)]


def make_acdc_phantom(
    seed: int,
    patient: int,
    phase: Phase,
    size: tuple[int, int, int] = (160, 160, 10),
    spacing: tuple[float, float, float] = (1.5, 1.5, 10.0),
) -> Phantom:
    """Generate one phase of one patient's short-axis MR with ACDC's labels.

    Args:
        seed: the cohort's seed.
        patient: the patient's number; each (seed, patient) has its own stream of random numbers, from which both phases
            are drawn alike except for the noise.
        phase: ``"ED"`` (end-diastole) or ``"ES"`` (end-systole).
        size: pixels along x and y, and the slices along z of a usual patient: a fifth more or fewer by patient, and
            more where the slices are thinner.
        spacing: pixel size and usual slice distance in mm. It enters the affine only; pixels vary by up to 6 % and
            every third patient or so has slices of 0.65 or 0.8 of the distance.

    Returns:
        The case, in RAS, short axis along z with the base above.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, patient)))
    pixel, thickness = rng.uniform(0.94, 1.06), float(rng.choice((1.0, 1.0, 1.0, 1.0, 0.8, 0.65)))
    slices = max(4, round(size[2] * (1 + 0.2 * int(rng.integers(-1, 2))) / thickness))
    field = (FIELD_MM[0] * pixel, FIELD_MM[1] * pixel, FIELD_MM[2] * slices * thickness / size[2])
    shape = (size[0], size[1], slices)
    turn = rotation(rng.uniform(-1, 1, 3) * (2, 2, 4))
    pose = Pose(turn * rng.uniform(0.94, 1.04), rng.uniform(-1, 1, 3) * (6, 6, 4), warp=1.6)
    canvas = Canvas(shape, pose, rng, AIR, field, edge=1.2 * field[0] / size[0])
    canvas.shift_slices(rng.standard_normal((2, slices)).clip(-2, 2) * 1.1)
    sketch = ChestSketch(canvas, rng)
    _paint_chest(sketch)
    _paint_abdomen(sketch)
    heart = _draw_heart(sketch, GROUPS[_group(patient)], phase)
    _paint_vessels(sketch, heart)
    _paint_ventricles(sketch, heart)
    centre = np.rint(rng.uniform((-30, -40, -50), (30, 40, 50)))
    shading = smooth_field(shape, (4, 4, 4), rng)
    scale = rng.uniform(160, 700)
    frame = np.random.default_rng(np.random.SeedSequence((seed, patient, phase == "ES")))
    image = np.rint(scale * _add_shading_and_noise(canvas, shading, frame)).clip(0, 32767).astype(np.int16)
    voxel = (spacing[0] * pixel, spacing[1] * pixel, spacing[2] * thickness)
    return Phantom(image, canvas.label, centred_affine(shape, voxel, centre))


def _paint_chest(sketch: ChestSketch) -> None:
    """Paint skin, fat, chest wall with ribs, lungs with their vessels, and the spine."""
    rng = sketch.rng
    skin = Column((0, -6), (117 + rng.uniform(-4, 0), 102 + rng.uniform(-4, 2)))
    fat = rng.uniform(7, 15)
    sketch.paint(skin, FAT)
    sketch.paint(Column(skin.centre, np.asarray(skin.radii) - fat), sketch.tissue(), roughness=0.8)
    cavity = Column(skin.centre, np.asarray(skin.radii) - fat - rng.uniform(9, 13))
    sketch.paint(cavity, sketch.near(LUNG, 0.01), roughness=0.6)
    rim = np.asarray(cavity.radii) + 4
    for angle in np.radians(rng.uniform(-8, 8) + np.arange(-25, 206, 33)):
        place = np.asarray(skin.centre) + rim * (np.cos(angle), np.sin(angle))
        rib = Tube([(*place, -60), (*(place * 0.97 - (0, 12)), 60)], (3.6, 3.6))
        sketch.paint(rib, 0.12)
        sketch.paint(Tube(rib.points, (1.8, 1.8)), 0.45)
    for _ in range(40):
        start = rng.uniform((-85, -40, -50), (85, 55, 50))
        vessel = sketch.tube([start, start + rng.uniform(-1, 1, 3) * (12, 12, 25)], rng.uniform(1.2, 3.2))
        sketch.paint(Clip(vessel, (cavity,), 2.0), sketch.near(0.8, 0.1))
    mediastinum = Blend(Column((10, 62), (40, 32)), Column((8, -44), (26, 36)), softness=30.0)
    sketch.paint(Clip(mediastinum, (cavity,), 1.0), FAT, roughness=1.2)
    sketch.paint(Column((4, -84), (38, 17)), sketch.tissue(), roughness=0.6)
    sketch.paint(Column((4, -72), (18, 14)), 0.12)
    sketch.paint(Column((4, -72), (16.5, 12.5)), sketch.near(0.5, 0.03))
    sketch.paint(Column((4, -92), (8, 6)), sketch.near(0.9, 0.03))


def _paint_abdomen(sketch: ChestSketch) -> None:
    """Paint, under the diaphragm, liver with its veins, spleen, and a stomach that looks like a ventricle."""
    rng = sketch.rng
    drop = sketch.vary((2, 4, 4))
    # the nearer to the apex, the higher the plane of the short axis meets the diaphragm
    dome = HalfSpace(np.array([0, -24, 0]) + drop, (0, 1, 0.35))
    liver = sketch.ellipsoid((54, -36, -22), (54, 36, 78), (0, 0, -14), drop)
    sketch.paint(Clip(liver, (dome,)), sketch.tissue(), roughness=0.8)
    for _ in range(7):
        start = rng.uniform((22, -60, -45), (92, -28, 35))
        vein = sketch.tube([start, start + rng.uniform(-1, 1, 3) * (14, 10, 25)], rng.uniform(2.2, 4.5))
        sketch.paint(Clip(vein, (liver, dome), 2.0), sketch.blood())
    spleen = sketch.ellipsoid((-82, -42, -22), (13, 22, 52), (0, 0, -24), drop)
    sketch.paint(Clip(spleen, (dome,)), sketch.tissue(), roughness=0.5)
    stomach = sketch.ellipsoid((-52, -46, -28), (23, 21, 58), (10, 0, 20), drop)
    sketch.paint(Clip(stomach, (dome,)), sketch.tissue(), roughness=0.6)
    lumen = Ellipsoid(stomach.centre, np.asarray(stomach.radii) - rng.uniform(5, 8), stomach.angles)
    sketch.paint(Clip(lumen, (dome,), 4.0), sketch.blood(), roughness=0.6)


def _draw_heart(sketch: ChestSketch, group: Group, phase: Phase) -> Heart:
    """Draw size and position of the ventricles; both phases draw the same random numbers."""
    rng = sketch.rng
    middle = np.array([-16, 8, 12]) + sketch.vary((3, 3, 3))
    angle = 12 + float(rng.uniform(-14, 14))
    growth = 1 + sketch.vary((0.06, 0.08, 0.05))
    radius, wall, length = group.radius * growth[0], group.wall * growth[1], LONG_AXIS * growth[2]
    right, oval = group.right * (1 + sketch.vary((0.06, 0.05, 0.05))), 1 + sketch.vary(0.03, 1)[0]
    base = 22 + rng.uniform(-3, 3)
    contraction = group.shortening * (1 + sketch.vary(0.1, 1)[0])
    still = rng.uniform(-np.pi, np.pi)
    inner, outer, descent = radius, radius + wall, 0.0
    if phase == "ES":
        # the muscle keeps its volume: as the ring gets shorter and narrower, its wall gets thicker
        inner, descent = radius * (1 - contraction), 36 * contraction
        shorter = 1 - descent / (base + length)
        outer = np.sqrt(inner**2 + ((radius + wall) ** 2 - radius**2) / shorter)
        right = right * (1 - 0.75 * contraction)
    displacement = group.infarct * (phase == "ES") * np.array([np.cos(still), np.sin(still), 0])
    turn = rotation((0, 0, angle))
    axis = turn @ (1.0, 0.0, 0.0)
    crescent = Ellipsoid(
        middle + turn @ (0.66 * (radius + wall) + 6, 7.0, 2),
        (28 * right[0], 41 * right[1], 0.78 * length),
        (0, 0, angle + 6),
    )
    return Heart(
        middle,
        Ellipsoid(middle, (outer * oval, outer / oval, length)),
        Ellipsoid(middle + displacement, (inner * oval, inner / oval, length - 0.9 * wall)),
        crescent,
        HalfSpace(middle + np.array([0, 0, base - descent]), (0, 0, 1)),
        axis,
    )


def _paint_vessels(sketch: ChestSketch, heart: Heart) -> None:
    """Paint fat around the heart, and blood without a label: atria and aortic root, arteries, caval vein."""
    middle, radius = heart.middle, float(heart.outer.radii[0])
    above = HalfSpace(heart.base.point, (0, 0, -1))
    surround = Blend(Ellipsoid(middle, np.asarray(heart.outer.radii) + 6), _enlarged(heart.right, 8.0), softness=12.0)
    sketch.paint(surround, FAT, roughness=1.2)
    for course, width in (
        ([(-22, -58, -80), (-26, -54, 0), (-30, -46, 80)], 10.5),
        ([(30, -30, -80), (32, -22, -10), (36, -12, 30)], 11),
        ([(26, 66, -80), (27, 66, 80)], 2.2),
        ([(8, 67, -80), (8, 66, 80)], 2.0),
    ):
        tube = sketch.tube(course, width)
        sketch.paint(Tube(tube.points, np.asarray(tube.radii) + 1.4), sketch.tissue())
        sketch.paint(tube, sketch.blood())
    atria = (
        Ellipsoid(middle + np.array([2, -12, 42]), (26, 22, 30)),
        Ellipsoid(middle + heart.axis * (radius + 22) + (0, -8, 46), (24, 26, 34)),
        Ellipsoid(middle + heart.axis * (radius - 6) + (0, 20, 46), (15, 15, 60)),
    )
    for chamber in atria:
        chamber = Ellipsoid(np.asarray(chamber.centre) + sketch.vary(1.5), chamber.radii)
        sketch.paint(Clip(_enlarged(chamber, 2.2), (above,)), sketch.tissue())
        sketch.paint(Clip(chamber, (above,)), sketch.blood(), roughness=0.5)


def _enlarged(shape: Ellipsoid, margin: float) -> Ellipsoid:
    return Ellipsoid(shape.centre, np.asarray(shape.radii) + margin, shape.angles)


def _paint_ventricles(sketch: ChestSketch, heart: Heart) -> None:
    """Paint the labelled structures below the base, and the muscles inside the cavities."""
    rng = sketch.rng
    wall = _enlarged(heart.right, 2.6)
    sketch.paint(Clip(wall, (heart.base,)), sketch.tissue(), roughness=0.5)
    cavity = Cut(Clip(heart.right, (heart.base,)), (heart.outer,))
    sketch.paint(cavity, sketch.blood(), "right_ventricle", 0.8)
    band = sketch.ellipsoid(np.asarray(heart.right.centre) + heart.axis * 6 + (0, 2, -22), (14, 2.6, 9), (0, 0, 40))
    sketch.paint(Clip(band, (cavity,), 0.5), sketch.tissue(), "right_ventricle")
    sketch.paint(Clip(heart.outer, (heart.base,)), sketch.tissue(), "myocardium", 0.4)
    sketch.paint(Clip(heart.inner, (heart.base,)), sketch.blood(), "left_ventricle", 0.5)
    for angle in np.radians(np.array([205, 300]) + rng.uniform(-15, 15, 2)):
        place = np.asarray(heart.inner.centre) + 0.58 * heart.inner.radii[0] * np.array(
            [np.cos(angle), np.sin(angle), 0]
        )
        papillary = Ellipsoid(place - (0, 0, 14), (0.17 * heart.inner.radii[0], 0.2 * heart.inner.radii[0], 18))
        sketch.paint(Clip(papillary, (heart.inner,), 1.0), sketch.tissue(), "left_ventricle")


def _add_shading_and_noise(canvas: Canvas, shading: Volume, rng: np.random.Generator) -> Volume:
    """Return the image with texture, the coils' shading (brighter in front), and the Rician noise of a magnitude."""
    front = canvas.grid[1] * np.float32(0.0018)
    image = canvas.image * (1 + np.float32(0.035) * canvas.roughness) * (1 + np.float32(0.11) * shading + front)
    real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(rng.uniform(0.025, 0.05))
    image += real
    magnitude: Volume = np.sqrt(image * image + imaginary * imaginary)
    return magnitude
