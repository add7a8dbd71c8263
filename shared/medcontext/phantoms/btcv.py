"""A generated abdominal CT with the 13 organs of BTCV.

The phantom is a teaching model, not a simulation. The whole trunk is shrunk into the field (about 2/5 of an adult in
plane, 1/2 along z), whatever the number of voxels. Small organs are larger than to scale: the adrenals, the oesophagus,
the gallbladder and the veins are up to three times too thick, so that they survive resampling to 3 × 3 × 4 mm. Organs
keep their relative positions; pose, build, shape, size and intensity vary by case. Liver, spleen, kidneys and
pancreas share one intensity, the vessels another, and bowel, lymph nodes, an accessory spleen and further vessels have
the same intensities without a label: only context tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from medcontext.data.datasets import BTCV_LABELS
from medcontext.phantoms.canvas import Canvas, Pose
from medcontext.phantoms.shapes import (
    Blend,
    Clip,
    Column,
    Cut,
    Ellipsoid,
    HalfSpace,
    Repeat,
    Shape,
    Tube,
    Vector,
    Volume,
    rotation,
)
from medcontext.phantoms.sketch import Phantom, Sketch, centred_affine

__all__ = ["make_btcv_phantom"]

AIR, LUNG, GAS, FAT, FLUID = -1000.0, -840.0, -750.0, -100.0, 15.0

CAVITY = Column((0, 3), (52, 33))
RETROPERITONEUM = Column((3, -22), (17, 12))
DIAPHRAGM = Blend(Ellipsoid((25, 3, 12), (31, 34, 50)), Ellipsoid((-25, 3, 10), (31, 34, 45)), 10)


@dataclass(frozen=True)
class Tissue:
    """One case's attenuations in HU.

    Attributes:
        parenchyma: liver, spleen, kidneys and pancreas, which differ by a few HU.
        vessel: aorta and veins, which differ by a few HU.
        muscle: muscle, oesophagus and the wall of stomach and bowel.
        bone: vertebrae, ribs and pelvis.
    """

    parenchyma: float
    vessel: float
    muscle: float
    bone: float


class AbdomenSketch(Sketch):
    """A sketch with one case's tissues."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        super().__init__(canvas, rng, BTCV_LABELS)
        self.tissue = Tissue(*(rng.uniform(*limits) for limits in ((90, 125), (150, 185), (48, 62), (230, 320))))


def make_btcv_phantom(
    seed: int,
    case: int,
    size: tuple[int, int, int] = (96, 96, 96),
    spacing: tuple[float, float, float] = (1.5, 1.5, 2.0),
) -> Phantom:
    """Generate one abdominal CT with BTCV's 13 labels.

    Args:
        seed: the cohort's seed.
        case: the case's number; each (seed, case) has its own stream of random numbers.
        size: voxels along x, y, z. The body fills the field, whatever its size; fewer than 32 lose small organs.
        spacing: voxel size in mm along x, y, z; it enters the affine only.

    Returns:
        The case, in RAS.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, case)))
    canvas = Canvas(size, _draw_pose(rng), rng, AIR)
    sketch = AbdomenSketch(canvas, rng)
    _paint_trunk(sketch)
    _paint_chest(sketch)
    _paint_skeleton(sketch)
    _paint_bowel(sketch)
    _paint_lookalikes(sketch)
    _paint_organs(sketch)
    _add_texture_and_noise(canvas, rng)
    image = np.rint(canvas.image).clip(-1024, 3071).astype(np.int16)
    centre = np.rint(rng.uniform((-30, -40, -250), (30, 40, 350)))
    return Phantom(image, canvas.label, centred_affine(size, spacing, centre))


def _draw_pose(rng: np.random.Generator) -> Pose:
    """Draw the build of a patient, who is lying a little askew."""
    build = rng.uniform((0.93, 0.93, 0.95), (1.02, 1.04, 1.05))
    turn = rotation(rng.uniform(-1, 1, 3) * (3, 2, 6))
    return Pose(turn * build, rng.uniform(-1, 1, 3) * (2, 3, 4), warp=1.4)


def _paint_trunk(sketch: AbdomenSketch) -> None:
    """Paint table, skin, fat, the muscular wall and the fat-filled cavity."""
    canvas, muscle = sketch.canvas, sketch.tissue.muscle
    x, y, _ = canvas.grid
    depth = y + np.float32(52) - x * x * np.float32(1 / 400)
    canvas.image += np.clip(1.6 - np.abs(depth), 0, 1) * np.float32(1050)
    front, back = sketch.rng.uniform((2.5, 2.0), (8, 3.5))
    sides = sketch.rng.uniform(3, 5.5)
    skin = Column((0, (front - back - 4) / 2), (56 + sides, 40 + (front + back) / 2))
    sketch.paint(skin, 20)
    sketch.paint(Column(skin.centre, np.asarray(skin.radii) - 1.6), FAT)
    sketch.paint(Column((0, 0), (56, 37)), muscle, roughness=0.4)
    for side in (-1, 1):
        sketch.paint(Column((15 * side, -33), (17, 8)), muscle, roughness=0.4)
    sketch.paint(Clip(CAVITY, (HalfSpace((0, -31, 0), (0, -1, 0)),)), FAT, roughness=0.3)


def _paint_chest(sketch: AbdomenSketch) -> None:
    """Paint the bases of the lungs over the diaphragm, and the heart between them."""
    chest = Cut(Clip(CAVITY, (HalfSpace((0, 0, 20), (0, 0, -1)),)), (DIAPHRAGM,), margin=1.0)
    sketch.paint(chest, sketch.near(LUNG, 15))
    for mediastinum, radius in (([(-1, -14, 100), (-1, -12, 44)], 12), ([(-3, 20, 100), (-1, 22, 46)], 14)):
        sketch.paint(Clip(sketch.tube(mediastinum, radius), (CAVITY,)), FAT)
    heart = sketch.ellipsoid((-10, 13, 84), (25, 19, 25), (0, 20, 0))
    sketch.paint(heart, sketch.tissue.muscle, roughness=0.5)
    sketch.paint(sketch.ellipsoid((-3, 12, 88), (13, 12, 16), (0, 20, 0)), sketch.near(sketch.tissue.vessel))


def _paint_skeleton(sketch: AbdomenSketch) -> None:
    """Paint ribs, spine and the wings of the pelvis, with the muscles along the spine."""
    bone = sketch.tissue.bone
    for side in (-1, 1):
        psoas = sketch.tube([(11 * side, -20, 12), (16 * side, -17, -45), (23 * side, -8, -100)], (2, 7, 9))
        sketch.paint(psoas, sketch.tissue.muscle)
    pitch = 17.0
    start = sketch.rng.uniform(0, pitch)
    _paint_ribs(sketch, start, pitch)
    sketch.paint(Column((0, -22), (10, 8)), bone - 60)
    sketch.paint(Repeat(Ellipsoid((0, -22, 0), (11, 9, 2.6)), pitch, start), 85)
    processes = Blend(Ellipsoid((0, -38, 0), (2.4, 8, 5)), Ellipsoid((0, -33, 0), (17, 2.6, 3)))
    sketch.paint(Repeat(processes, pitch, start), bone)
    sketch.paint(Column((0, -33), (4.2, 3.2)), 30)
    for side in (-1, 1):
        wing = sketch.ellipsoid((41 * side, -10, -92), (3.5, 20, 26), (0, 14 * side, 24 * side))
        sketch.paint(wing, bone)


def _paint_ribs(sketch: AbdomenSketch, start: float, pitch: float) -> None:
    """Paint ribs from the spine along the wall, sloping down to the front."""
    angles = np.radians(np.linspace(-62, 20, 6))
    along = np.column_stack([54 * np.cos(angles), -1 + 36 * np.sin(angles), -0.55 * 36 * np.sin(angles)])
    for level in np.arange(start - 2 * pitch, 130, pitch):
        if level < -12:
            continue
        for side in (-1, 1):
            course = along * (side, 1, 1) + (0, 0, level - 14)
            for begin, end in pairwise(course):
                sketch.paint(Tube((begin, end), (2.2, 2.2)), sketch.tissue.bone)


def _paint_bowel(sketch: AbdomenSketch) -> None:
    """Paint colon and small bowel: walls of organ intensity, filled with fluid, stool or gas."""
    colon = (
        [(43, -1, -84), (44, 3, -50), (41, 10, -30)],
        [(41, 10, -30), (24, 24, -27), (0, 28, -34), (-22, 25, -25), (-41, 9, -12)],
        [(-41, 9, -12), (-45, 0, -40), (-43, -2, -84)],
    )
    for course in colon:
        _paint_gut(sketch, sketch.tube(course, 6.5, wander=1.5), 2.0)
    for _ in range(10):
        middle = sketch.rng.uniform((-20, 0, -80), (20, 20, -40))
        steps = np.cumsum(sketch.rng.uniform(-1, 1, (4, 3)) * (20, 12, 12), axis=0)
        course = (middle + steps - steps.mean(axis=0)).clip((-32, -4, -92), (32, 27, -38))
        _paint_gut(sketch, sketch.tube(course, sketch.rng.uniform(4, 5.5)), 1.6)
    duodenum = [(11, 15, 0), (20, 10, -4), (21, 4, -16), (12, 2, -26), (-2, 2.5, -28), (-12, 8, -24)]
    _paint_gut(sketch, sketch.tube(duodenum, 4.2), 1.6)


def _paint_gut(sketch: AbdomenSketch, tube: Tube, wall: float) -> None:
    """Paint a stretch of bowel; about every third is collapsed and looks solid."""
    sketch.paint(tube, sketch.near(sketch.rng.choice((sketch.tissue.muscle, sketch.tissue.parenchyma))))
    filling = sketch.rng.choice((FLUID, FLUID, GAS, np.nan))
    if not np.isnan(filling):
        sketch.paint(Tube(tube.points, np.asarray(tube.radii) - wall), sketch.near(filling, 8))


def _paint_lookalikes(sketch: AbdomenSketch) -> None:
    """Paint unlabelled bodies of organ and vessel intensity in the abdominal fat."""
    rng, tissue = sketch.rng, sketch.tissue
    for hu in [tissue.parenchyma] * 6 + [tissue.vessel] * 4:
        centre = rng.uniform((-36, -4, -84), (36, 26, -34))
        node = Ellipsoid(centre, rng.uniform(5, 8.5) * rng.uniform(0.85, 1.2, 3), rng.uniform(-90, 90, 3))
        sketch.paint(node, sketch.near(hu), roughness=0.4)
    accessory_spleen = sketch.ellipsoid((-42, 9, 4), (5, 5, 6))
    sketch.paint(accessory_spleen, sketch.near(tissue.parenchyma))
    for side in (-1, 1):
        iliac_artery = [(-4, -8.5, -46), (-4 + 8 * side, -6.5, -66), (-2 + 20 * side, -2, -100)]
        iliac_vein = [(8, -8.5, -46), (5 + 9 * side, -9.5, -68), (2 + 21 * side, -6, -100)]
        gonadal = [(20 * side, -10, -22), (23 * side, -6, -55), (26 * side, 2, -90)]
        for course, radius in ((iliac_artery, 3.4), (iliac_vein, 3.8), (gonadal, 2.2)):
            sketch.paint(sketch.tube(course, radius), sketch.near(tissue.vessel))
    sketch.paint(sketch.tube([(6, 5, 0), (5, 8, -16), (4, 12, -50)], 3), sketch.near(tissue.vessel))
    sketch.paint(sketch.tube([(-4.5, -6, 2), (-3, 4, -10), (-4, 9, -48)], 2.2), sketch.near(tissue.vessel))


def _paint_organs(sketch: AbdomenSketch) -> None:
    """Paint the 13 labelled organs, from the large and soft ones to the thin ones that run over them."""
    rng = sketch.rng
    upper = sketch.vary((1.2, 1.0, 1.5))
    kidneys = {side: sketch.vary((1.0, 1.0, 2.5)) for side in ("right", "left")}
    stomach = sketch.tube(
        [(-24, -1, 43), (-26, 7, 28), (-23, 18, 12), (-11, 22, 0), (2, 20, -3), (10, 15, 1)],
        (12, 12.5, 11, 8.5, 6.5, 4.5),
        upper,
    )
    right, left = (
        sketch.ellipsoid((29 * side, -15, height), (12.8, 11.2, 23), (8, 6 * side, -20 * side), kidneys[name])
        for side, height, name in ((1, -15, "right"), (-1, -9, "left"))
    )
    _paint_liver(sketch, right, upper)
    spleen = sketch.ellipsoid((-40, -9, 29), (14, 19, 24), (-15, 0, 12))
    spleen_body = Clip(Cut(spleen, (left, stomach), margin=rng.uniform(0.3, 1.5)), (CAVITY, DIAPHRAGM), margin=1.0)
    sketch.paint(spleen_body, sketch.near(sketch.tissue.parenchyma), "spleen", 0.7)
    for kidney, name, side in ((right, "right_kidney", 1), (left, "left_kidney", -1)):
        sketch.paint(Clip(kidney, (CAVITY,)), sketch.near(sketch.tissue.parenchyma), name, 0.4)
        sinus = Ellipsoid(np.add(kidney.centre, (-10 * side, 4, 0)), (6, 3.5, 8), kidney.angles)
        sketch.paint(sinus, FAT + 20)
    _paint_stomach(sketch, stomach, upper)
    gallbladder = sketch.ellipsoid((20, 19, -12), (6.5, 6.5, 10.5), (-20, 15, 0), upper)
    sketch.paint(gallbladder, sketch.near(FLUID, 5), "gallbladder", 0.2)
    pancreas = sketch.tube(
        [(13, 8, -10), (6, 11, -3), (-5, 11.5, 3), (-16, 5, 8), (-28, -3, 15)], (7.5, 5.5, 5.2, 5.2, 4.8), upper
    )
    sketch.paint(pancreas, sketch.near(sketch.tissue.parenchyma - 6), "pancreas", 0.6)
    _paint_adrenals(sketch, kidneys)
    _paint_vessels(sketch, kidneys, upper)


def _paint_liver(sketch: AbdomenSketch, kidney: Shape, shift: Vector) -> None:
    """Paint the liver: two lobes that fill the right dome, hollowed from below, with their veins."""
    right = sketch.ellipsoid((27, 3, 22), (30, 31, 42))
    left = sketch.ellipsoid((-1, 20, 36), (26, 13, 17), (0, -8, 0), shift)
    visceral = HalfSpace(np.array([27, 3, -7]) + shift + sketch.vary(1.5), (-0.5, -0.35, -1))
    lobes = Clip(Blend(right, left, 8), (CAVITY, DIAPHRAGM), margin=1.2)
    body = Cut(Clip(lobes, (visceral,)), (kidney, RETROPERITONEUM), margin=sketch.rng.uniform(0.5, 2))
    sketch.paint(body, sketch.near(sketch.tissue.parenchyma), "liver", 0.7)
    for end in ((40, 4, 34), (27, 20, 40), (8, 20, 38)):
        vein = sketch.tube([(10, -2, 47), (0.6 * end[0] + 4, 0.5 * end[1], 44), end], (2.2, 1.8, 1.0))
        sketch.paint(Clip(vein, (body,), margin=2), sketch.tissue.vessel - 10, "liver")


def _paint_stomach(sketch: AbdomenSketch, stomach: Tube, shift: Vector) -> None:
    """Paint the stomach: a wall around fluid or food, with gas under the front wall in about half of the cases."""
    body = Clip(stomach, (CAVITY, DIAPHRAGM), margin=1.0)
    sketch.paint(body, sketch.tissue.muscle + 15, "stomach", 0.4)
    lumen = Clip(stomach, (CAVITY, DIAPHRAGM, stomach), margin=3.0)
    sketch.paint(lumen, sketch.rng.uniform(20, 60), "stomach", 0.4)
    if sketch.rng.uniform() < 0.5:
        level = HalfSpace(np.array([0, 20, 0]) + shift, (0, -1, 0))
        sketch.paint(Clip(lumen, (level,)), GAS, "stomach")
    esophagus = sketch.tube([(-3, -5, 100), (-3, -3, 74), (-7, -2, 60), (-15, -1, 49)], (4.3, 4.3, 4.3, 4.4), shift)
    sketch.paint(esophagus, sketch.near(sketch.tissue.muscle + 5), "esophagus", 0.2)


def _paint_adrenals(sketch: AbdomenSketch, kidneys: dict[str, npt.NDArray[np.float64]]) -> None:
    """Paint the adrenals: two limbs each, on the inner upper side of the kidneys."""
    hu = sketch.tissue.parenchyma - 8
    limbs = {
        "right": [(14, -16, 9), (17, -11, 22), (22, -16, 11)],
        "left": [(-14, -15, 11), (-17, -8, 23), (-23, -12, 14)],
    }
    for side, course in limbs.items():
        tube = sketch.tube(course, (3.6, 4.3, 3.6), kidneys[side] * 0.7, wander=0.5)
        sketch.paint(tube, sketch.near(hu), f"{side}_adrenal_gland", 0.2)


def _paint_vessels(sketch: AbdomenSketch, kidneys: dict[str, npt.NDArray[np.float64]], upper: Vector) -> None:
    """Paint renal veins (no label), portal and splenic vein, inferior vena cava, aorta."""
    vessel = sketch.tissue.vessel
    for side, start in (("right", (21, -12, -15)), ("left", (-21, -12, -9))):
        renal = sketch.tube([np.asarray(start) + kidneys[side], (3 if side == "left" else 14, -3, -10), (9, -6, -8)], 2)
        sketch.paint(renal, sketch.near(vessel))
    portal = sketch.tube(
        [(22, 7, 21), (15, 6, 13), (6, 5.5, 2), (-6, 5.5, 5), (-17, -1, 11), (-30, -6, 18)],
        (3.6, 3.9, 3.9, 3.6, 3.5, 3.4),
        upper,
    )
    sketch.paint(portal, sketch.near(vessel), "portal_and_splenic_vein", 0.2)
    cava = sketch.tube([(7, 0, 62), (9, -3, 45), (9.5, -6, 20), (9, -8, -10), (8, -8.5, -46)], 4.8)
    sketch.paint(cava, sketch.near(vessel), "inferior_vena_cava", 0.2)
    aorta = sketch.tube(
        [(-9, -12, 105), (-8, -12, 60), (-5.5, -10, 30), (-4.5, -9, 0), (-4, -9, -46)], (5, 4.8, 4.6, 4.4, 4.2)
    )
    sketch.paint(aorta, sketch.near(vessel), "aorta", 0.2)


def _add_texture_and_noise(canvas: Canvas, rng: np.random.Generator) -> None:
    """Add faint mottling of the tissues, and CT noise that is slightly correlated in plane."""
    canvas.image += 3 * canvas.roughness
    noise: Volume = rng.standard_normal(canvas.image.shape, dtype=np.float32)
    noise[1:] += np.float32(0.6) * noise[:-1]
    noise[:, 1:] += np.float32(0.6) * noise[:, :-1]
    noise *= np.float32(rng.uniform(11, 18) / 1.36)
    canvas.image += noise
