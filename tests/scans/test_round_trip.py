"""Properties that hold for every grid that a scanner may write."""

from __future__ import annotations

import tempfile
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.eulerangles import euler2mat

from medcontext.scans import grid_problem, nifti_header, read_header, voxel_ml

SHAPE = (3, 4, 5)


def check_round_trip(affine: np.ndarray, codes: tuple[int, int], units: str) -> None:
    """A file is read where it was written, and a label map with its header lies in the same place."""
    scale = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}[units]
    written = np.diag([1 / scale] * 3 + [1]) @ affine
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), written)
    image.set_sform(written, codes[0])
    image.set_qform(written, codes[1])
    image.header.set_xyzt_units(units)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "image.nii")
        nib.save(image, path)
        header = read_header(path)
        np.testing.assert_allclose(header.affine, affine, rtol=1e-4, atol=1e-2)
        assert header.doubts == ()
        assert grid_problem(header.shape, header.affine) is None
        assert voxel_ml(header.affine) == pytest.approx(abs(np.linalg.det(affine[:3, :3])) / 1000, rel=1e-4)
        copy = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), None, nifti_header(path, header.affine))
        nib.save(copy, str(Path(folder) / "label.nii"))
        again = nib.load(Path(folder) / "label.nii")
        np.testing.assert_array_equal(read_header(str(Path(folder) / "label.nii")).affine, header.affine)
        for form in ("get_sform", "get_qform"):
            (ours, code), (theirs, expected) = (getattr(one, form)(coded=True) for one in (again, nib.load(path)))
            assert code == expected
            np.testing.assert_array_equal(ours, theirs)


GRIDS = {
    "axes": st.sampled_from(list(permutations(range(3)))),
    "flips": st.tuples(*[st.sampled_from([-1, 1])] * 3),
    "angles": st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    "sizes": st.tuples(*[st.floats(0.2, 9.0)] * 3),
    "origin": st.tuples(*[st.floats(-900, 900)] * 3),
    "codes": st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 1), (4, 4)]),
    "units": st.sampled_from(["mm", "meter", "micron"]),
}


def affine_of(
    axes: tuple[int, ...],
    flips: tuple[int, ...],
    angles: tuple[float, ...],
    sizes: tuple[float, ...],
    origin: tuple[float, ...],
) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(*angles) @ np.eye(3)[:, axes] @ np.diag(np.multiply(flips, sizes))
    affine[:3, 3] = origin
    return affine


@settings(max_examples=15, deadline=None)
@given(**GRIDS)
def test_geometry_comes_back(codes: tuple[int, int], units: str, **grid: tuple[float, ...]) -> None:
    check_round_trip(affine_of(**grid), codes, units)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(**GRIDS)
def test_geometry_comes_back_from_a_thousand_grids(
    codes: tuple[int, int], units: str, **grid: tuple[float, ...]
) -> None:
    check_round_trip(affine_of(**grid), codes, units)
