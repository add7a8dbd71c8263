"""A generated brain MR with the channels and labels of BraTS: FLAIR, T1w, T1gd and T2w of one glioma.

The phantom is a teaching model, not a simulation. A skull-stripped brain (0 outside) with folded cortex, white matter,
deep nuclei, ventricles, cerebellum and brain stem carries one tumour that pushes its surroundings aside: a core, most
often a ring that takes up contrast around a part that does not, within oedema that spreads along the white matter.
Not everything that is bright on FLAIR or after contrast is tumour: white-matter lesions and the ventricles' caps look
like oedema, veins, sinus and choroid plexus take up contrast, and old infarcts look like a core, all without a label.
Every channel of every case has its own scale and shading, as MR has no unit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medcontext.data.datasets import BRATS_LABELS
from medcontext.phantoms.canvas import Canvas, Pose, smooth_field
from medcontext.phantoms.shapes import Blend, Clip, Cut, Ellipsoid, HalfSpace, Repeat, Shape, Tube, Volume, rotation
from medcontext.phantoms.sketch import Phantom, Sketch, centred_affine

__all__ = ["make_brats_phantom"]

FIELD_MM = (192.0, 192.0, 160.0)
RIBBON = 3.4
"""Thickness of the cortex in mm."""

# FLAIR, T1w, T1gd and T2w; white matter on T1w is about 0.75
FLUID = (0.12, 0.22, 0.21, 1.0)
GREY = (0.60, 0.53, 0.53, 0.60)
WHITE = (0.47, 0.74, 0.72, 0.43)
NUCLEI = (0.55, 0.60, 0.60, 0.50)
EDEMA = (0.98, 0.52, 0.51, 0.86)
CORE = (0.66, 0.33, 0.33, 0.90)
ENHANCING = (0.80, 0.50, 1.05, 0.72)
VEIN = (0.28, 0.42, 1.02, 0.26)
PLEXUS = (0.55, 0.48, 0.98, 0.75)

CEREBRUM = Blend(
    Clip(Ellipsoid((0, 0, 16), (67, 85, 53)), (HalfSpace((0, 0, -22), (0, 0, -1)),)),
    Blend(
        Ellipsoid((42, 10, -18), (22, 40, 22), (-12, 0, 0)), Ellipsoid((-42, 10, -18), (22, 40, 22), (-12, 0, 0)), 1.0
    ),
    softness=10.0,
)
CEREBELLUM = Blend(Ellipsoid((23, -47, -34), (30, 32, 24)), Ellipsoid((-23, -47, -34), (30, 32, 24)), softness=8.0)
STEM = Tube([(0, -16, -8), (0, -18, -30), (0, -27, -48), (0, -33, -74)], (13, 15, 10, 8)).smooth()
CALLOSUM = Ellipsoid((0, -6, 6), (40, 50, 25))
"""The hemispheres are joined below its upper surface."""


def make_brats_phantom(
    seed: int,
    case: int,
    size: tuple[int, int, int] = (96, 96, 80),
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0),
) -> Phantom:
    """Generate one four-channel brain MR with the labels of the Medical Segmentation Decathlon's Task01.

    Args:
        seed: the cohort's seed.
        case: the case's number; each (seed, case) has its own stream of random numbers.
        size: voxels along x, y, z. The brain fills the field, whatever its size.
        spacing: voxel size in mm along x, y, z; it enters the affine only.

    Returns:
        The case, in RAS: image (x, y, z, 4) with FLAIR, T1w, T1gd and T2w. Every label is present, unless voxels are
        too large for the smallest tumours (above 4 mm of the field).
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, case)))
    pose = Pose(rotation(rng.uniform(-1, 1, 3) * 4) * rng.uniform(0.94, 1.03, 3), rng.uniform(-3, 3, 3), warp=2.0)
    canvas = Canvas(size, pose, rng, (0.0,) * 4, FIELD_MM)
    sketch = Sketch(canvas, rng, BRATS_LABELS)
    place, radius = _draw_tumour(rng)
    _push_aside(canvas, place, radius)
    mask, white = _paint_cerebrum(sketch)
    mask |= _paint_hindbrain(sketch)
    ventricles = _paint_depth(sketch)
    _paint_lookalikes(sketch, ventricles)
    _paint_tumour(sketch, place, radius, white, ventricles)
    image = _add_shading_and_noise(canvas, mask, rng)
    canvas.label[~mask] = 0
    centre = np.rint(rng.uniform((-15, -30, -15), (15, 10, 25)))
    return Phantom(np.ascontiguousarray(np.moveaxis(image, 0, -1)), canvas.label, centred_affine(size, spacing, centre))


def _draw_tumour(rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], float]:
    """Draw the tumour's middle, in the white matter of one hemisphere, and the radius of its core in mm."""
    radius = float(rng.uniform(9, 19))
    while True:
        place = rng.uniform((18, -58, -16), (52, 58, 52)) * (rng.choice((-1, 1)), 1, 1)
        depth = CEREBRUM.distance(*(np.array([c], np.float32) for c in place))[0]
        if -34 < depth < -0.7 * radius - 5:
            return place, radius


def _push_aside(canvas: Canvas, place: npt.NDArray[np.float64], radius: float) -> None:
    """Simulate the tumour's mass effect: everything painted later is moved away from its middle."""
    reach, share = 1.9 * radius, 0.24
    offsets = [c - np.float32(p) for c, p in zip(canvas.body, place, strict=True)]
    weight = 1 + (offsets[0] ** 2 + offsets[1] ** 2 + offsets[2] ** 2) * np.float32(1 / reach**2)
    weight *= weight
    for coordinate, offset in zip(canvas.body, offsets, strict=True):
        coordinate -= np.float32(share) * offset / weight
    canvas.shifted += 0.33 * reach * share


def _paint_cerebrum(sketch: Sketch) -> tuple[npt.NDArray[np.bool_], Volume]:
    """Paint folded cortex over white matter; return the cerebrum's mask and the distance in mm to the white matter."""
    canvas = sketch.canvas
    x, _, _ = canvas.body
    hull: Volume = CEREBRUM.distance(*canvas.body) + np.float32(0.8) * canvas.roughness
    # sheets where a random field is zero, as far apart as sulci; 7 mm for a change of 1
    folds = np.abs(smooth_field(canvas.label.shape, (25, 25, 21), sketch.rng)) * np.float32(7)
    folds = np.maximum(folds, -np.float32(sketch.rng.uniform(12, 17)) - hull)
    fissure = np.maximum(np.abs(x), -CALLOSUM.distance(*canvas.body))
    folds = np.minimum(folds, fissure)
    for side in (-1, 1):
        extent = sketch.ellipsoid((50 * side, 8, 0), (17, 26, 20))
        cleft = HalfSpace(extent.centre, np.array([-0.2 * side, 0.4, 1]) + sketch.vary(0.06))
        sylvian = np.maximum(np.abs(cleft.distance(*canvas.body)), extent.distance(*canvas.body))
        folds = np.minimum(folds, sylvian)
    canvas.cover(hull - 1, FLUID, None)
    canvas.cover(hull + 0.5, GREY, None)
    white: Volume = np.maximum(hull + np.float32(RIBBON + 1), np.float32(RIBBON) - folds)
    canvas.cover(white.copy(), WHITE, None)
    width = np.float32(sketch.rng.uniform(0.5, 1.3))
    furrows: Volume = np.maximum(folds - width, hull - 1)
    canvas.cover(furrows, FLUID, None)
    return hull < 1, white


def _paint_hindbrain(sketch: Sketch) -> npt.NDArray[np.bool_]:
    """Paint cerebellum with its folia, and brain stem; return their mask."""
    canvas = sketch.canvas
    small, stem = CEREBELLUM.distance(*canvas.body), STEM.distance(*canvas.body)
    mask: npt.NDArray[np.bool_] = (small < 1) | (stem < 1)
    canvas.cover(small - 1, FLUID, None)
    canvas.cover(small.copy(), GREY, None)
    furrows = Repeat(Ellipsoid((0, -50, 0), (60, 44, 0.7)), pitch=6.5)
    sketch.paint(Clip(furrows, (CEREBELLUM, HalfSpace((0, -42, 0), (0, 1, 0)))), np.add(FLUID, GREY) / 2)
    for side in (-1, 1):
        sketch.paint(sketch.ellipsoid((20 * side, -43, -35), (17, 15, 9)), WHITE, roughness=1.2)
    canvas.cover(stem, np.add(WHITE, GREY) / 2, None)
    return mask


def _paint_depth(sketch: Sketch) -> Shape:
    """Paint deep nuclei and the fluid-filled ventricles; return the ventricles."""
    wide = 1 + float(sketch.rng.uniform(-0.3, 0.45))
    parts: list[Shape] = [
        sketch.ellipsoid((0, -9, 4), (1.6 * wide, 12, 8)),
        sketch.ellipsoid((0, -36, -30), (5.5, 4, 8)),
    ]
    for side in (-1, 1):
        for centre, radii in (
            ((12.0, -14.0, 7.0), (8.5, 13.0, 8.0)),
            ((26.0, 4.0, 5.0), (6.5, 17.0, 11.0)),
            ((14.0, 20.0, 12.0), (5.0, 11.0, 7.0)),
        ):
            nucleus = sketch.ellipsoid(np.multiply(centre, (side, 1, 1)), radii, (0, 0, -14 * side))
            sketch.paint(nucleus, NUCLEI, roughness=0.5)
        body = [(8, 30, 12), (8, 18, 18), (10, -4, 23), (17, -26, 18), (24, -38, 10), (23, -54, 7)]
        horn = [(24, -38, 8), (34, -22, -8), (34, 0, -16)]
        for course, width in ((body, [2.5, 5.2, 4.8, 6, 7, 2.5]), (horn, [4, 2.8, 1.5])):
            parts.append(sketch.tube(np.multiply(course, (side, 1, 1)), np.asarray(width) * wide))
    ventricles = parts[0]
    for part in parts[1:]:
        ventricles = Blend(ventricles, part, 1.0)
    for part in parts:
        sketch.paint(part, FLUID, roughness=0.3)
    for side in (-1, 1):
        sketch.paint(sketch.tube([(15 * side, -24, 17), (22 * side, -36, 8)], (1.6, 2.6)), PLEXUS)
    return ventricles


def _paint_lookalikes(sketch: Sketch, ventricles: Shape) -> None:
    """Paint lesions of the white matter, old infarcts, veins and the sagittal sinus, all without a label."""
    rng = sketch.rng
    for side in (-1, 1):
        for tip in ((9, 36, 13), (24, -60, 8)):
            cap = sketch.ellipsoid(np.multiply(tip, (side, 1, 1)), rng.uniform(3, 7, 3))
            sketch.paint(Cut(cap, (ventricles,)), EDEMA, roughness=1.0)
    for _ in range(int(rng.integers(6, 18))):
        lesion = Ellipsoid(_point_in_cerebrum(rng, 11), rng.uniform(1.8, 4.5, 3), rng.uniform(-90, 90, 3))
        sketch.paint(Cut(lesion, (ventricles,)), sketch.near(1.0, 0.04) * np.asarray(EDEMA), roughness=1.0)
    for _ in range(int(rng.integers(1, 4))):
        scar = Ellipsoid(_point_in_cerebrum(rng, 9), rng.uniform(4, 8, 3), rng.uniform(-90, 90, 3))
        sketch.paint(scar, EDEMA, roughness=1.0)
        sketch.paint(Ellipsoid(scar.centre, np.asarray(scar.radii) - 2, scar.angles), CORE, roughness=0.5)
    for _ in range(14):
        start, end = _point_in_cerebrum(rng, 2), _point_in_cerebrum(rng, 12)
        vein = sketch.tube([start, start + 0.15 * (end - start) + sketch.vary(3), start + 0.35 * (end - start)], 1.5)
        sketch.paint(vein, VEIN)
    for course, width in (
        ([(0, 74, 30), (0, 40, 60), (0, 0, 68), (0, -50, 54), (0, -82, 18)], 3.2),
        ([(0, -20, 12), (0, -34, 14), (0, -50, 8)], 2.2),
        ([(0, -2, -20), (14, 0, -21), (34, 6, -14), (44, 10, -4)], 1.7),
        ([(0, -2, -20), (-14, 0, -21), (-34, 6, -14), (-44, 10, -4)], 1.7),
    ):
        sketch.paint(sketch.tube(course, width), VEIN)


def _point_in_cerebrum(rng: np.random.Generator, depth: float) -> npt.NDArray[np.float64]:
    """Draw a point in the cerebrum, at least ``depth`` mm below its surface."""
    while True:
        place = rng.uniform((-66, -85, -20), (66, 85, 68))
        if CEREBRUM.distance(*(np.array([c], np.float32) for c in place))[0] < -depth:
            return place


def _paint_tumour(
    sketch: Sketch, place: npt.NDArray[np.float64], radius: float, white: Volume, ventricles: Shape
) -> None:
    """Paint oedema along the white matter, and a core with contrast at its rim or, if of low grade, in spots."""
    canvas, rng = sketch.canvas, sketch.rng
    lobes = [Ellipsoid(place, radius * rng.uniform(0.75, 1.1, 3), rng.uniform(-90, 90, 3))]
    for _ in range(int(rng.integers(1, 4))):
        offset = rng.standard_normal(3)
        offset *= 0.75 * radius / np.sqrt((offset**2).sum())
        lobes.append(Ellipsoid(place + offset, radius * rng.uniform(0.35, 0.65, 3), rng.uniform(-90, 90, 3)))
    core: Shape = lobes[0]
    for lobe in lobes[1:]:
        core = Blend(core, lobe, softness=5.0)
    fringe = smooth_field(canvas.label.shape, (13, 13, 11), rng)
    distance = core.distance(*canvas.body) + np.float32(1.1) * canvas.roughness
    outside = -ventricles.distance(*canvas.body)
    spread = np.float32(rng.uniform(6, 17))
    edema = distance - spread * (1 + np.float32(0.45) * fringe) + np.clip(white + 1, 0, 4) * np.float32(2.2)
    edema = np.minimum(edema, distance - 1.5)
    canvas.cover(np.maximum(edema, outside), _varied_intensities(sketch, EDEMA), sketch.ids["edema"])
    necrosis = _varied_intensities(sketch, CORE)
    ring = rng.uniform() < 0.75
    if ring:
        rim = np.float32(min(rng.uniform(2.4, 4.5), 0.28 * radius)) * (1 + np.float32(0.3) * np.clip(fringe, -1.5, 1.5))
        canvas.cover(distance.copy(), _varied_intensities(sketch, ENHANCING), sketch.ids["enhancing_tumor"])
        canvas.cover(distance + rim, necrosis, sketch.ids["non_enhancing_tumor"])
    else:
        canvas.cover(distance.copy(), necrosis * (1.1, 1.25, 1.25, 0.95), sketch.ids["non_enhancing_tumor"])
    for _ in range(int(rng.integers(0, 3) if ring else rng.integers(2, 5))):
        offset = rng.uniform(-0.45, 0.45, 3) * radius
        spot = Ellipsoid(place + offset, radius * rng.uniform(0.18, 0.34, 3) + 0.8, rng.uniform(-90, 90, 3))
        sketch.paint(Clip(spot, (core,), 0.5), _varied_intensities(sketch, ENHANCING), "enhancing_tumor", 0.6)


def _varied_intensities(sketch: Sketch, values: tuple[float, ...]) -> npt.NDArray[np.float64]:
    return np.asarray(values) * (1 + sketch.vary(0.05, len(values)))


def _add_shading_and_noise(
    canvas: Canvas, mask: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Return the image with each channel's scale, shading and noise within the mask, and 0 outside."""
    image = np.zeros(canvas.image.shape, np.int16)
    for source, target in zip(canvas.image, image, strict=True):
        shading = 1 + np.float32(0.06) * smooth_field(source.shape, (5, 5, 5), rng)
        noise = rng.standard_normal(source.shape, dtype=np.float32) * np.float32(rng.uniform(0.02, 0.045))
        scale = np.float32(10 ** rng.uniform(2.3, 3.3))
        values = np.rint(((source + 0.015 * canvas.roughness) * shading + noise) * scale)
        target[mask] = np.clip(values[mask], 1, 32767)
    return image
