from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from dicom_scans import OBLIQUE, phantom, write_series
from medcontext.scans import is_volume_file, read_header, unreadable, volume_name


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        *((f"a.b{ending}", "a.b") for ending in (".nii", ".nii.gz", ".mgz", ".mgh", ".hdr", ".img")),
        *((f"a.b{ending}", "a.b") for ending in (".nrrd", ".nhdr", ".mha", ".mhd", ".NII.GZ")),
        *((name, None) for name in (".a.nii.gz", "a.png", "a.nii.txt", "a.json", "nii", "a.raw")),
    ],
)
def test_names_of_volumes(name: str, stem: str | None) -> None:
    assert is_volume_file(name) == (stem is not None)
    assert stem is None or volume_name(f"scans/{name}") == stem


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "a.png is a picture (PNG), not a volume; give NIfTI, MGH, Analyze, NRRD, "),
        ("a.nii.gz", b"<!DOCTYPE html>", "a.nii.gz is a web page, as of a failed download; give NIfTI"),
        ("a.nrrd", b"<html>", "a.nrrd is a web page, as of a failed download; give NIfTI"),
        ("a.npy", b"\x93NUMPY", "a.npy is a NumPy array without a place in the patient; give NIfTI"),
        ("a.nii", b"version https://git-lfs", "is a pointer of Git LFS; get the file itself (git lfs pull)."),
        ("a.zip", b"PK\x03\x04", "a.zip is an archive (zip); unpack it first."),
        ("a.nii", b"", "a.nii is empty; get it again."),
        ("a.nii", b"\x1f\x8b\x08\x00", "a.nii is compressed, unlike its name; add .gz to it."),
        ("a.nii", b"NRRD0004\n", "a.nii is NRRD, unlike its name; let it end in .nrrd."),
        ("a.dcm", b"\x08\x00\x05\x00CS", "a.dcm is DICOM without its preamble; convert it to NIfTI"),
        ("a.img", b"\x08\x00\x08\x00", "a.img cannot be read ("),  # voxels may be any bytes
        ("a.xyz", b"1 2 3", "a.xyz has a name of no format that is read; give NIfTI"),
        ("a.nii.gz", b"nothing", "a.nii.gz cannot be read ("),
        ("a.mha", b"ObjectType = Image", "a.mha cannot be read ("),
        ("a.nrrd", b"NRRD0004", "a.nrrd cannot be read ("),
    ],
)
def test_what_is_no_volume_is_named_for_what_it_is(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Exception) as raised:  # noqa: PT011  (by any library)
        read_header(str(path))
    sentence = unreadable(name, str(path), raised.value)
    assert message in sentence
    assert sentence.endswith(".")
    assert not set("\n") & set(sentence)
    assert "itk::" not in sentence


def test_dicom_as_a_labelled_scan(tmp_path: Path) -> None:
    path = str(write_series(tmp_path, phantom(), OBLIQUE)[0])
    with pytest.raises(ValueError, match="is DICOM, which is read for prediction and as unlabelled scans only; conv"):
        read_header(path)


def test_a_header_cannot_name_any_file_as_its_voxels(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(60))
    (tmp_path / "scans").mkdir()
    path = tmp_path / "scans" / "a.mhd"
    path.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementType = MET_UCHAR\nElementDataFile = ../secret\n"
    )
    with pytest.raises(ValueError, match="names voxels in another folder; put them beside it"):
        read_header(str(path))


def test_nrrd_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    path = str(tmp_path / "a.nrrd")
    Path(path).write_bytes(b"NRRD0004")
    with pytest.raises(ImportError, match="NRRD and MetaImage require SimpleITK, .* pip install SimpleITK") as raised:
        read_header(path)
    assert unreadable("a.nrrd", path, raised.value).startswith("a.nrrd cannot be read: NRRD and MetaImage require")


def test_a_pair_is_opened_by_either_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(np.zeros((3, 4, 5), np.int16), OBLIQUE), tmp_path / "a.hdr")
    headers: list[Any] = [read_header(str(tmp_path / name)) for name in ("a.hdr", "a.img")]
    np.testing.assert_allclose(headers[0].affine, headers[1].affine)
