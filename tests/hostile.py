"""Scans and JSON that are damaged, absurd or made to do harm, each with what is to be said about it."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np


class Hostile(NamedTuple):
    """A file by its name and writer, and what is said about it; nothing where it can be used."""

    name: str
    write: Callable[[Path], Any]
    said: str | None = None


def scan() -> np.ndarray:
    """Soft tissue of 480 voxels in fat."""
    image = np.full((20, 24, 28), -150, np.int16)
    image[4:12, 10:16, 6:16] = 200
    return image


def raw(array: np.ndarray | None = None, mm: float = 4.5, *fields: tuple[int, str, Any]) -> bytes:
    """A NIfTI file, with fields of the header, each given by place, format and values, replaced."""
    array = scan() if array is None else array
    content = bytearray(nib.Nifti1Image(array, np.diag([mm, mm, mm, 1])).to_bytes())
    for place, kind, values in fields:
        struct.pack_into(f"<{kind}", content, place, *values)
    return bytes(content)


def packed(*arguments: Any) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(gzip.compress(raw(*arguments), 1))


def header(*fields: tuple[int, str, Any]) -> Callable[[Path], Any]:
    return packed(None, 4.5, *fields)


def plain(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def with_value(value: float) -> np.ndarray:
    return np.where(scan() == 200, value, scan()).astype(np.float64)


NO_FORMS = (252, "2h", (0, 0))
GOOD = Hostile("good.nii.gz", packed())
SCANS = [
    GOOD,
    Hostile("empty.nii.gz", plain(b""), "is empty; get it again"),
    Hostile("cut.nii.gz", plain(gzip.compress(raw(), 1)[:200]), "cannot be read (Compressed file ended before"),
    Hostile("header_only.nii.gz", plain(gzip.compress(raw()[:352])), "cannot be read (Expected 26880 bytes, got 0"),
    Hostile("picture.nii.gz", plain(b"\x89PNG\r\n" + bytes(500)), "is a picture (PNG), not a volume"),
    Hostile("page.nii.gz", plain(b"<html>not found</html>"), "is a web page, as of a failed download"),
    Hostile("magic.nii", plain(raw(None, 4.5, (344, "4s", [b"none"]))), "cannot be read (Cannot work out file type"),
    Hostile("flat.nii.gz", packed(scan()[:, :, 0]), "has shape (20, 24), which is not that of a volume"),
    Hostile("four_axes.nii.gz", packed(np.stack([scan()] * 2, -1)), "in_channels 1 asks for three axes"),
    Hostile("complex.nii.gz", packed(scan().astype(np.complex64)), "has voxels of type complex64"),
    Hostile("nan.nii.gz", packed(with_value(np.nan)), "has 480 voxels that are NaN or infinite"),
    Hostile("beyond.nii.gz", packed(with_value(1e300)), "has 480 voxels that are NaN or infinite, or beyond 1e+15"),
    Hostile("terabytes.nii.gz", header((40, "4h", (3, 600, 600, 30000))), "is 2700 × 2700 × 1.35e+05 mm large"),
    Hostile("claims.nii.gz", packed(None, 0.05, (40, "4h", (3, 3000, 3000, 3000))), "which a file of"),
    Hostile("negative.nii.gz", header((40, "4h", (3, -20, 24, 28))), "has no voxels, its shape being (-20, 24, 28)"),
    Hostile("no_extent.nii.gz", header((40, "4h", (3, 0, 24, 28))), "has no voxels, its shape being (0, 24, 28)"),
    Hostile("slope_inf.nii.gz", header((112, "2f", (np.inf, 0))), "has values with slope inf and intercept 0"),
    Hostile("singular.nii.gz", header((280, "12f", [0.0] * 12)), "has a singular affine"),
    Hostile("nan_affine.nii.gz", header((280, "f", [np.nan])), "has an affine that is not finite"),
    Hostile("nan_pixdim.nii.gz", header((80, "3f", [np.nan] * 3), NO_FORMS), "has no voxel sizes"),
    Hostile(
        "no_pixdim.nii.gz", header((80, "3f", [0.0] * 3), NO_FORMS), "has no voxel sizes, as pixdim is not above 0"
    ),
    Hostile("voxels_of_60_mm.nii.gz", packed(None, 60.0), "has voxels of 60 × 60 × 60 mm, as no scan has"),
    Hostile("far.nii.gz", header((292, "f", [1e9])), "lies at 1e+09 × 0 × 0 mm, as no scan does"),
    Hostile("loop.nii.gz", lambda path: path.symlink_to(path.name), "cannot be read ("),
    Hostile("folder.nii.gz", lambda path: path.mkdir(), "cannot be read ("),
    Hostile("escape\x1b[31m.nii.gz", packed(), "has a name with control characters"),
    Hostile(os.fsdecode(b"latin_\xe4.nii.gz"), packed(), "or one that is not UTF-8; rename it"),
    # what is odd and can be used
    Hostile("slope_0.nii.gz", header((112, "2f", (0, 0)))),
    Hostile("minute.nii.gz", packed(None, 0.1)),
    Hostile("=cmd|' C calc'!A0.nii.gz", packed(scan() - 1)),
    Hostile("<script>alert(1)<|script>.nii.gz", packed(scan() - 2)),
    Hostile("a$b_{$.nii.gz", packed(scan() - 3)),
]


class Json(NamedTuple):
    """Content of a JSON file by its name, and what is said about it; nothing where it can be read."""

    name: str
    content: bytes
    said: str | None = None


JSON = [
    Json("empty", b"", "Expecting value"),
    Json("cut", b'{"training": [', "Expecting value"),
    Json("trailing comma", b'{"training": [],}', "Expecting property name"),
    Json("zeros", bytes(64), "Expecting value"),
    Json("Latin-1", b'{"name": "\xe4"}', "it is not UTF-8 at byte 10"),
    Json("UTF-16", '{"name": "a"}'.encode("utf-16"), "it is not UTF-8 at byte 0"),
    Json("deep lists", b"[" * 100_000 + b"]" * 100_000, "it is nested too deeply"),
    Json("deep objects", b'{"a": ' * 65 + b"1" + b"}" * 65, "it is nested too deeply"),
    Json("twice", b'{"a": 1, "training": [], "training": [1]}', "it has 'training' twice"),
    Json("NaN", b'{"a": NaN}', "it has NaN, which is not a number in JSON"),
    Json("infinite", b'{"a": [-Infinity]}', "it has -Infinity, which is not a number in JSON"),
    Json("beyond doubles", b'{"a": 1e999}', "it has a number that begins with 1e999, which is beyond 1e308"),
    Json("endless digits", b'{"a": ' + b"9" * 5000 + b"}", "it has a number that begins with 999999999, which is"),
    Json("byte order mark", b'\xef\xbb\xbf{"a": 1}'),
    Json("64 deep", b"[" * 64 + b"]" * 64),
]

CASE = {"image": "good.nii.gz", "label": "good.nii.gz"}
DATASETS: list[tuple[dict[str, Any], str]] = [
    ({"training": {"a": CASE}}, "lists of cases, but 'training' is no list"),
    ({"training": "good.nii.gz"}, "lists of cases, but 'training' is no list"),
    ({"validation": 7}, "lists of cases, but 'validation' is no list"),
    ({"unlabeled": CASE}, "lists of cases, but 'unlabeled' is no list"),
    ({"training": [5]}, "A case must give a path under 'image'"),
    ({"training": [[CASE]]}, "A case must give a path under 'image'"),
    ({"training": [CASE | {"image": ""}]}, "A case must give a path under 'image'"),
    ({"training": [CASE | {"image": ["good.nii.gz", 5]}]}, "A case must give a path under 'image'"),
    ({"training": [CASE | {"image": "a\0b.nii.gz"}]}, "A case must give a path under 'image'"),
    ({"training": [CASE | {"image": "\ud800.nii.gz"}]}, "A case must give a path under 'image'"),
    ({"training": [CASE | {"image": "a" * 5000}]}, "A case must give a path under 'image'"),
    ({"training": [CASE | {"label": ["good.nii.gz"]}]}, "A case must give a path under 'image'"),
    ({"training": [CASE | {"patient": {"id": 1}}]}, "gives {'id': 1} as 'patient'; give a text or a whole number"),
    ({"training": [CASE | {"unannotated": "spleen"}]}, "gives 'spleen' as 'unannotated'; give a list"),
    ({"labels": ["spleen"]}, "'labels' of dataset.json must map ids to names"),
    ({"labels": {"-1": "spleen"}}, "'labels' of dataset.json must map ids to names"),
    ({"labels": {"9" * 5000: "spleen"}}, "'labels' of dataset.json must map ids to names"),
    ({"labels": {"1": " "}}, "'labels' of dataset.json must map ids to names"),
    ({"labels": {"1": "\x1b]0;spleen\x07"}}, "names '\\x1b]0;spleen\\x07', which has control characters; rename it"),
    ({"modality": 5}, "'modality' of"),
    ({"modality": ["CT"]}, "'modality' of"),
    ({"sha256": {"good.nii.gz": 5}}, "'sha256' of"),
    ({"sha256": ["good.nii.gz"]}, "'sha256' of"),
]
"""Entries that replace those of a sound ``dataset.json``, and what is said about them."""
