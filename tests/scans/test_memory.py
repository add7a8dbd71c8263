from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest

from medcontext.scans import memory_problem, read_header, size_problem
from medcontext.scans.formats import VolumeError
from medcontext.scans.memory import available_memory

GIB = 1 << 30


def nifti(path: Path, *fields: tuple[int, str, Any]) -> str:
    """Write 24 × 24 × 24 voxels of 5 mm, with other fields of the header, each by place, format and values."""
    raw = bytearray(nib.Nifti1Image(np.zeros((24, 24, 24), np.int16), np.diag([5.0, 5, 5, 1])).to_bytes())
    for place, kind, values in fields:
        struct.pack_into(f"<{kind}", raw, place, *values)
    path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))
    return str(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_that_claims_more_than_its_file_can_hold(tmp_path: Path, name: str) -> None:
    whole = nifti(tmp_path / name)
    assert size_problem(whole, read_header(whole)) is None
    claim = nifti(tmp_path / name, (40, "8h", (3, 32000, 32000, 32000, 1, 1, 1, 1)))
    # 2 · 32000³ bytes
    assert "claims 3.2e+04 × 3.2e+04 × 3.2e+04 voxels, 6.1e+04 GiB, which a file" in str(
        size_problem(claim, read_header(claim))
    )


def test_zeros_compress_well(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((200, 200, 200), np.uint8), np.eye(4))
    nib.save(image, tmp_path / "a.nii.gz")
    assert size_problem(str(tmp_path / "a.nii.gz"), read_header(str(tmp_path / "a.nii.gz"))) is None


def test_memory_of_the_resampled_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 × 200 × 100 mm, seen from other axes, is 500 × 100 × 20 = 10⁶ voxels of 2 × 2 × 5 mm."""
    affine = np.array([[0, 0, 10.0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    needed = 4 * (1e6 + 14 * 1e6)
    asked = ((1000, 100, 10), affine, [5.0, 2.0, 2.0], "LPS", 14)
    monkeypatch.setattr("medcontext.scans.memory.available_memory", lambda: needed + 1)
    assert memory_problem(*asked) is None
    monkeypatch.setattr("medcontext.scans.memory.available_memory", lambda: 0.05 * GIB)
    said = str(memory_problem(*asked))
    assert said.startswith(
        "has 1000 × 100 × 10 voxels of 1 × 2 × 10 mm, for which spacing 5 × 2 × 2 mm needs more than 0.0559"
    )
    assert said.endswith("and 0.05 GiB are free; correct its header, or crop or resample it first")


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "limit").write_text("3000000\n")
    (tmp_path / "used").write_text("1000000\n")
    pair = (str(tmp_path / "limit"), str(tmp_path / "used"))
    monkeypatch.setattr("medcontext.scans.memory._LIMITS", [pair, ("nowhere", "nowhere")])
    assert available_memory() == 2e6
    (tmp_path / "limit").write_text("max\n")
    assert available_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([(112, "2f", (np.inf, 0))], "has values with slope inf and intercept 0; repair the header"),
        (
            [(80, "3f", (0, 1, 1)), (252, "2h", (0, 0))],
            "has no voxel sizes, as pixdim is not above 0 and neither sform nor qform",
        ),
        ([(70, "2h", (32, 64))], "has voxels of type complex64"),
    ],
)
def test_headers_that_nibabel_mends_in_silence(tmp_path: Path, fields: Any, message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        read_header(nifti(tmp_path / "a.nii", *fields))
