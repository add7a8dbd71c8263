from __future__ import annotations

from pathlib import Path

import pytest

from medcontext.storage.file_memory import FileMemory, sha256_of
from medcontext.storage.parts import parts_of

FILES = {
    "a.nii.gz": b"",
    "p.hdr": b"",
    "p.img": b"",
    "m.mhd": b"NDims = 3\nElementDataFile = m.raw\n",
    "m.raw": b"",
    "n.nhdr": b"NRRD0004\r\ndata file: ./n.raw.gz\r\n",
    "n.raw.gz": b"",
    "local.mhd": b"ElementDataFile = LOCAL\n",
    "alone.hdr": b"",
    "list.nhdr": b"data file: s%03d.raw 1 9 1\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", ["a.nii.gz"]),
        ("p.hdr", ["p.hdr", "p.img"]),
        ("p.img", ["p.img", "p.hdr"]),
        ("m.mhd", ["m.mhd", "m.raw"]),
        ("n.nhdr", ["n.nhdr", "n.raw.gz"]),
        ("local.mhd", ["local.mhd"]),
        ("alone.hdr", ["alone.hdr"]),
        ("list.nhdr", ["list.nhdr"]),
        ("absent.mhd", ["absent.mhd"]),
    ],
)
def test_parts(folder: Path, name: str, expected: list[str]) -> None:
    assert [str(part.relative_to(folder)) for part in parts_of(folder / name)] == expected


def test_voxels_of_their_own_are_part_of_what_is_known_about_a_header(folder: Path) -> None:
    """Headers alone are alike from patient to patient."""
    memory = FileMemory(folder / "memory")
    before = sha256_of(folder / "m.mhd", memory)
    assert sha256_of(folder / "m.mhd", memory) == before
    (folder / "m.raw").write_bytes(b"other voxels")
    assert sha256_of(folder / "m.mhd", memory) != before
