"""Whether the files of a bundle are those that its lists and the installed package name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import medcontext
from medcontext.hub.collection import LISTING, read_collection
from medcontext.hub.download import large_files
from medcontext.networks import load_checkpoint
from medcontext.networks.model_file import MODEL_FILE, MODEL_INFO_FILE, STUDENT_FILE, TEACHER_FILE, check_weights_hash

__all__ = ["CODE", "Checksum", "checksums"]

CODE = "medcontext"
"""Folder of the copy of this package in a bundle."""


@dataclass(frozen=True)
class Checksum:
    """A file that was compared with what it should be.

    Attributes:
        file: file in the bundle, or the archive itself.
        by: what says how it should be.
        problem: how it differs; empty if it does not.
    """

    file: str
    by: str
    problem: str = ""


def checksums(given: Path, bundle: Path) -> Iterator[Checksum]:
    """Yield the comparisons that the files of a bundle allow.

    Args:
        given: the archive that it came in, or its folder.
        bundle: its folder.
    """
    yield from _archive(given)
    yield from _large_files(bundle)
    yield from _weights(bundle)
    yield from _code(bundle)


def _archive(given: Path) -> Iterator[Checksum]:
    """Compare an archive with the list of its collection, if that lies beside it."""
    if not given.is_file() or not given.with_name(LISTING).is_file():
        return
    for listed in read_collection(given.parent).bundles:
        if given.name == f"{listed.key}.zip" and listed.digest is not None:
            problem = "" if listed.digest.matches(given) else f"its {listed.digest.kind} differs"
            yield Checksum(given.name, LISTING, problem)


def _large_files(bundle: Path) -> Iterator[Checksum]:
    try:
        listed = list(large_files(bundle))
    except ValueError as error:
        yield Checksum("large_files", "large_files", str(error))
        return
    for large in listed:
        path = bundle / large.path
        if path.is_file():
            problem = "" if large.digest.matches(path) else f"its {large.digest.kind} differs"
            yield Checksum(large.path, "large_files", problem)


def _weights(bundle: Path) -> Iterator[Checksum]:
    """Compare weights with the hashes in ``model.json``; code in a file of weights is never run."""
    for name in (MODEL_FILE, STUDENT_FILE, TEACHER_FILE):
        path = bundle / "models" / name
        if path.is_file():
            by = MODEL_INFO_FILE if path.with_name(MODEL_INFO_FILE).is_file() else "the file's own checksums"
            yield Checksum(f"models/{name}", by, _weights_problem(path))


def _weights_problem(path: Path) -> str:
    try:
        check_weights_hash(path, load_checkpoint(path))
    except (ValueError, ImportError, AttributeError) as error:
        return str(error)
    return ""


def _code(bundle: Path) -> Iterator[Checksum]:
    """Compare a bundle's copy of this package with the installed one, file by file."""
    copy, installed = bundle / CODE, Path(medcontext.__file__).parent
    files = sorted(path.relative_to(copy) for path in copy.rglob("*") if path.is_file())
    other = [
        file.as_posix()
        for file in files
        if not (installed / file).is_file() or (installed / file).read_bytes() != (copy / file).read_bytes()
    ]
    if files:
        problem = f"{len(other)} of {len(files)} files differ, such as {other[0]}" if other else ""
        yield Checksum(f"{CODE}/", f"the installed medcontext {medcontext.__version__}", problem)
